-- Replaces everything, if the client has seen all of it.

local loaded, loadedMark, wanted, before, updated, days = unpack(ARGV, 8, 13)

if applied() then
  return answer('done')
end
if int(generation) ~= loaded or mark ~= loadedMark then
  return answer('conflict')
end
if now >= tonumber(before) then
  return answer('late')
end
local number = math.max(generation + 1, tonumber(wanted))
local revision = int(number) .. '.' .. token
redis.call('DEL', books, revisions)
count, deleted = 0, revision
for i = 14, #ARGV, 2 do
  put(ARGV[i], ARGV[i + 1], revision)
end
if days == '' then
  redis.call('DEL', history)
else
  redis.call('SET', history, days)
end
publish(number, updated)
return answer('ok')

-- Compares the revisions of the named books and the time, and then writes what has changed; or, without a decision,
-- reads. It returns those books whose revision is another than the client knows.

local decided, before, me, ttl, updated, names = unpack(ARGV, 8, 13)
local first = 14
local changes = first + 2 * names
local writing = #ARGV >= changes

local differing = {}
for i = first, changes - 1, 2 do
  local name = ARGV[i]
  local revision = redis.call('HGET', revisions, name) or '-' .. deleted
  if revision ~= ARGV[i + 1] then
    differing[#differing + 1] = name
    differing[#differing + 1] = revision
    differing[#differing + 1] = redis.call('HGET', books, name) or ''
  end
end

local holder = redis.call('HGET', lease, 'holder')

-- take gives this client the lease of the named books, if it wants it and nobody has it.
local function take()
  if ttl == '0' or holder then
    return holder == me and '1' or ''
  end
  redis.call('HSET', lease, 'holder', me)
  for i = first, changes - 1, 2 do
    redis.call('HSET', lease, 'of:' .. ARGV[i], '')
  end
  redis.call('PEXPIRE', lease, ttl)
  return '1'
end

if decided == '' then
  return answer('read', differing)
end
if #differing > 0 then
  if writing and applied() then
    return answer('done')
  end
  return answer('conflict', differing, take())
end
if now < tonumber(decided) then
  return answer('early')
end
if now >= tonumber(before) then
  return answer('late')
end
if holder == me then
  redis.call('DEL', lease)
elseif writing and holder then
  for i = first, changes - 1, 2 do
    if redis.call('HEXISTS', lease, 'of:' .. ARGV[i]) == 1 then
      return answer('busy')
    end
  end
end
if writing then
  local number = generation + 1
  local revision = int(number) .. '.' .. token
  for i = changes, #ARGV, 2 do
    put(ARGV[i], ARGV[i + 1], revision)
  end
  publish(number, updated)
end
return answer('ok')

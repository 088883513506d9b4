-- Returns the books that have changed since a generation (-1: all), and, if any was dropped since, the names of those
-- that there are; then when it was saved, and the finished days, if asked for.

local since, whole = tonumber(ARGV[8]), ARGV[9]

local function generationOf(revision)
  return tonumber(string.match(revision, '^%d+') or 0)
end

local changed, names = {}, {}
local dropped = generationOf(deleted) > since
local all = redis.call('HGETALL', revisions)
for i = 1, #all, 2 do
  if generationOf(all[i + 1]) > since then
    changed[#changed + 1] = all[i]
    changed[#changed + 1] = all[i + 1]
    changed[#changed + 1] = redis.call('HGET', books, all[i]) or ''
  end
  if dropped then
    names[#names + 1] = all[i]
  end
end
if whole ~= '1' then
  return answer('ok', changed, dropped and '1' or '', names)
end
return answer('ok', changed, dropped and '1' or '', names, redis.call('HGET', meta, 'updated') or '',
  redis.call('GET', history) or '')

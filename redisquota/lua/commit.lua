-- Compares the revisions of the named books and the time, and then writes what has changed; or, without a decision,
-- reads. It returns those books whose revision is another than the client knows.

local decided, before, me, length, asks, updated, names = unpack(ARGV, 8, 14)
local first = 15
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

-- Turns are pieces of time that stores have asked for, one after the other, in which others do not write the same books.
-- Each is {from, until, names} under its store's ID: mine, that of others which stands now, and all but mine in line.
local mine, others, free, line = nil, nil, now, {}

local turns = redis.call('HGETALL', lease)
if #turns > 0 then
  local wanted = {}
  for i = first, changes - 1, 2 do
    wanted[ARGV[i]] = true
  end
  for i = 1, #turns, 2 do
    local readable, from, till, list = pcall(function() return unpack(cjson.decode(turns[i + 1])) end)
    local one = {id = turns[i], from = tonumber(from), till = tonumber(till), names = list}
    if not readable or not one.from or not one.till or type(list) ~= 'table' or one.till <= now then
      redis.call('HDEL', lease, one.id)
    elseif one.id == me then
      mine = one
    else
      line[#line + 1] = one
      for _, name in ipairs(list) do
        if wanted[name] then
          free = math.max(free, one.till)
          if one.from <= now then
            others = one
          end
          break
        end
      end
    end
  end
end

-- Whether the turn of mine is one on all that is named here.
local covers = mine ~= nil
if mine then
  local has = {}
  for _, name in ipairs(mine.names) do
    has[name] = true
  end
  for i = first, changes - 1, 2 do
    covers = covers and has[ARGV[i]]
  end
  if covers and mine.from <= now then
    others = nil
  end
end

local function note(one)
  redis.call('HSET', lease, one.id, cjson.encode({int(one.from), int(one.till), one.names}))
end

-- tell wakes a store that waits: its turn comes in so many microseconds.
local function tell(one, wait)
  redis.call('RPUSH', lease .. ':' .. one.id, int(wait))
  redis.call('PEXPIRE', lease .. ':' .. one.id, '2000')
end

-- turn returns in how many microseconds this store has its turn, after it has given it one.
local function turn()
  if not covers then
    local from, names = free, {}
    if mine then
      from, names = math.max(free, mine.from), mine.names
    end
    for i = first, changes - 1, 2 do
      names[#names + 1] = ARGV[i]
    end
    mine = {id = me, from = from, till = from + tonumber(length), names = names}
    local last = mine.till
    for _, one in ipairs(line) do
      last = math.max(last, one.till)
    end
    note(mine)
    redis.call('PEXPIRE', lease, int(math.ceil((last - now) / 1000)))
    redis.call('DEL', lease .. ':' .. me)
    if others then
      tell(others, 0) -- whose turn it is may still be waiting for it
    end
  end
  return int(math.max(0, mine.from - now))
end

-- leave gives back this store's turn, and tells those whose turn comes earlier now in how many microseconds it does.
local function leave()
  redis.call('HDEL', lease, me)
  table.sort(line, function(a, b) return a.from < b.from end)
  local taken = {}
  for _, one in ipairs(line) do
    local from = now
    for _, name in ipairs(one.names) do
      from = math.max(from, taken[name] or 0)
    end
    if from < one.from then
      one.from, one.till = from, one.till - one.from + from
      note(one)
      tell(one, from - now)
    end
    for _, name in ipairs(one.names) do
      taken[name] = math.max(taken[name] or 0, one.till)
    end
  end
end

if decided == '' then
  if asks == 'leave' and mine then
    leave()
  end
  return answer('read', differing)
end
if #differing > 0 then
  if writing and applied() then
    return answer('done')
  end
  return answer('conflict', differing, writing and (asks == '1' or others) and turn() or '')
end
if now < tonumber(decided) then
  return answer('early')
end
if now >= tonumber(before) then
  return answer('late')
end
if writing and others then
  return answer('busy', {}, turn())
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

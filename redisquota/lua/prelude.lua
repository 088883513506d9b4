-- What every script begins with. Numbers of 2^53 and more do not occur: times are in microseconds.

local meta, books, revisions, marks, lease, done, history = unpack(KEYS)
local offset, known, knownGeneration, knownMark, fresh, version, token = unpack(ARGV, 1, 7)

local function int(n) return string.format('%.0f', n) end

local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2] + offset

local head = redis.call('HMGET', meta, 'layout', 'version', 'dataset', 'generation', 'mark', 'deleted', 'books')
local dataset, generation, mark = head[3] or '', tonumber(head[4] or 0), head[5] or ''
local deleted, count = head[6] or '', tonumber(head[7] or 0)

local function answer(status, ...)
  return {status, int(now), dataset, int(generation), mark, deleted, ...}
end

if tonumber(head[1] or 1) > 1 or tonumber(head[2] or 0) > tonumber(version) then
  return answer('newer')
end

-- Is it the data set that the client knows, and does it still have what the client has seen saved?
if dataset == '' then
  if known ~= '' then
    return answer('lost')
  end
  if redis.call('EXISTS', books, revisions, history) > 0 then
    return answer('corrupt')
  end
  dataset = fresh
  redis.call('DEL', marks, lease)
  redis.call('HSET', meta, 'layout', '1', 'version', version, 'dataset', dataset, 'generation', '0', 'mark', '',
    'deleted', '', 'books', '0')
elseif known ~= '' then
  local then_mark = knownGeneration == int(generation) and mark or redis.call('HGET', marks, knownGeneration)
  if known ~= dataset or tonumber(knownGeneration) > generation or then_mark and then_mark ~= knownMark then
    return answer('lost')
  end
end
if redis.call('HLEN', books) ~= count or redis.call('HLEN', revisions) ~= count then
  return answer('corrupt')
end

-- put writes one book under a revision, or drops it.
local function put(name, data, revision)
  if data == '' then
    count = count - redis.call('HDEL', books, name)
    redis.call('HDEL', revisions, name)
    deleted = revision
  else
    count = count + redis.call('HSET', books, name, data)
    redis.call('HSET', revisions, name, revision)
  end
end

-- publish makes what has been put the generation of that number.
local function publish(number, updated)
  generation, mark = number, token
  local text = int(generation)
  redis.call('HSET', meta, 'version', version, 'generation', text, 'mark', mark, 'deleted', deleted,
    'books', int(count), 'updated', updated)
  redis.call('HSET', marks, text, mark)
  redis.call('HDEL', marks, int(generation - 128))
  redis.call('SET', done, '', 'PX', '5000')
end

-- applied tells whether an earlier copy of this command has done it.
local function applied()
  return redis.call('PEXPIRE', done, '5000') == 1
end

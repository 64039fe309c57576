#!lua
-- Append batches of one producer to a shard's stream: each event once, however often the call is repeated.
--
-- KEYS   1 the shard's events stream
--        2 the shard's producers hash: producer -> "<number of its last event> <server milliseconds>"
-- ARGV   1 producer   2 number of the first event   3 format version   4 the producer's counters as JSON
--        5 declared groups, separated by spaces   6 "1": refuse a call that would leave numbers out
--        7, 8, ... for each batch: how many events, and they as NDJSON; numbers go on from batch to batch
-- Reply  { "appended", "duplicate" or "gap", number of the producer's last event, 1 if the stream was created else 0,
--          how many of the events had been there already }
--        "gap": events before the first one never came, and nothing was appended
--
-- Atomic because "is it there already", the entry and the new number must be one step: apart, a reply lost between
-- them would double or lose a batch. HGET comes first, so that a key of a wrong type stops us before anything is
-- written. No allow-oom flag: a full server refuses the whole call, and the producer keeps the batch.

local stream, producers = KEYS[1], KEYS[2]
local producer, first, version, stats, groups = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4], ARGV[5]

local function digits(number)
  return string.format('%.0f', number) -- `..` would round above 10^14
end

local function without_lines(payload, lines)
  local at = 1
  for _ = 1, lines do
    at = string.find(payload, '\n', at, true) + 1
  end
  return string.sub(payload, at)
end

local function xadd(seq, n, payload)
  return redis.call('XADD', stream, 'NOMKSTREAM', '*', 'v', version, 'producer', producer, 'seq', digits(seq),
    'n', digits(n), 'events', payload, 'stats', stats)
end

local stored = redis.call('HGET', producers, producer)
local last = 0
if stored then
  last = tonumber(string.match(stored, '^%d+'))
end

if ARGV[6] == '1' and first > last + 1 then
  return { 'gap', last, 0, 0 }
end

local status, created, known = 'duplicate', 0, 0
for at = 7, #ARGV, 2 do
  local n, payload = tonumber(ARGV[at]), ARGV[at + 1]
  local present = math.max(0, last + 1 - first)
  known = known + math.min(present, n)
  if present < n then
    if present > 0 then
      payload = without_lines(payload, present)
    end
    if not xadd(first + present, n - present, payload) then
      -- The groups come before the first entry, or a reader that starts at "new" would skip it.
      for group in string.gmatch(groups, '%S+') do
        redis.call('XGROUP', 'CREATE', stream, group, '0', 'MKSTREAM')
      end
      created = 1
      if not xadd(first + present, n - present, payload) then
        return redis.error_reply('ERR no group is declared for ' .. stream)
      end
    end
    last, status = first + n - 1, 'appended'
  end
  first = first + n
end

-- Written for a duplicate too: a WAIT after this call then covers the number (and so the entry before it) on replicas.
local now = redis.call('TIME')
local ms = digits(now[1] * 1000 + math.floor(now[2] / 1000))
redis.call('HSET', producers, producer, digits(last) .. ' ' .. ms)
return { status, last, created, known }

#!lua
-- Append batches of one producer to a shard's stream: each event once, however often the call is repeated.
--
-- KEYS   1 the shard's events stream
--        2 the shard's producers hash: producer -> "<number of its last event> <server milliseconds> <its counters>"
--        3 the shard's books: append.epoch, append.events and append.entries are changed here and nowhere else
-- ARGV   1 producer   2 number of the first event   3 format version   4 the producer's counters as JSON
--        5 declared groups, separated by spaces   6 "1": refuse a call that would leave numbers out
--        7, 8, ... for each batch: how many events, and they as NDJSON; numbers go on from batch to batch
--        Without any batch only number, time and counters of the producer are written anew.
-- Reply  { "appended", "duplicate" or "gap", number of the producer's last event, 1 if the stream was created else 0,
--          how many of the events had been there already }
--        "gap": events before the first one never came, and nothing was appended
--        An error that begins with OOM while the stream is larger than the archiver's books say it may become.
--
-- Each entry's field `books` tells the epoch of the books and how many events, with its own, were appended in it.
--
-- Atomic because "is it there already", the entry, the new number and the count must be one step: apart, a reply lost
-- between them would double or lose a batch. Reading comes first, so that a key of a wrong type stops us before anything
-- is written. No allow-oom flag: a full server refuses the whole call, and the producer keeps the batch.

local stream, producers, books = KEYS[1], KEYS[2], KEYS[3]
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

local time = redis.call('TIME')
local now = digits(time[1] * 1000 + math.floor(time[2] / 1000))
local told = redis.call('HMGET', books, 'append.epoch', 'append.events', 'append.entries', 'archive.max_bytes')
local epoch = told[1] or time[1] .. string.format('%06d', time[2])
local total, entries, most = tonumber(told[2] or 0), tonumber(told[3] or 0), tonumber(told[4])

local function xadd(seq, n, payload)
  return redis.call('XADD', stream, 'NOMKSTREAM', '*', 'v', version, 'producer', producer, 'seq', digits(seq),
    'n', digits(n), 'books', epoch .. ' ' .. digits(total + n), 'events', payload, 'stats', stats)
end

local stored = redis.call('HGET', producers, producer)
local last = 0
if stored then
  last = tonumber(string.match(stored, '^%d+'))
end

if ARGV[6] == '1' and first > last + 1 then
  return { 'gap', last, 0, 0 }
end

local function is_full()
  if not most then
    return false
  end
  -- Trimming leaves the newest entry that was read: by itself, however large, it must not keep all others out for ever.
  return redis.call('XLEN', stream) > 1 and redis.call('MEMORY', 'USAGE', stream) > most
end

local status, created, known = 'duplicate', 0, 0
for at = 7, #ARGV, 2 do
  local n, payload = tonumber(ARGV[at]), ARGV[at + 1]
  local present = math.max(0, last + 1 - first)
  known = known + math.min(present, n)
  if present < n then
    if status == 'duplicate' and is_full() then
      return redis.error_reply('OOM the stream holds more than ' .. digits(most) .. ' bytes that were not read yet')
    end
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
    total, entries = total + n - present, entries + 1
    last, status = first + n - 1, 'appended'
  end
  first = first + n
end

if status == 'appended' then
  redis.call('HSET', books, 'append.epoch', epoch, 'append.events', digits(total), 'append.entries', digits(entries))
end
-- Written for a duplicate too: a WAIT after this call then covers the number (and so the entry before it) on replicas.
redis.call('HSET', producers, producer, digits(last) .. ' ' .. now .. ' ' .. stats)
return { status, last, created, known }

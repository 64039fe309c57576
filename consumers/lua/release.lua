#!lua flags=allow-oom
-- Give a lease back, so that a successor continues at once.
-- KEYS  1 lease  2 fence  3 books
-- ARGV  1 owner  2 fence  3 group  4 '1' when no entry had to do with the owner's end: its start and its last try then do
--       not count among the failures that are held against entries
-- Reply 1 when the lease was ours, else 0.
-- Atomic, because between a look and a DEL the lease may have become another's.
if ARGV[4] == '1' and redis.call('GET', KEYS[2]) == ARGV[2] then
  for _, name in ipairs({'.began', '.tried'}) do
    local mark = redis.call('HGET', KEYS[3], ARGV[3] .. name)
    local id, count, fence = string.match(mark or '', '^(%S+) (%d+) (%S+)$')
    if fence == ARGV[2] then
      if count == '1' then
        redis.call('HDEL', KEYS[3], ARGV[3] .. name)
      else
        -- Without a fence: it is taken back once, however often this is asked.
        redis.call('HSET', KEYS[3], ARGV[3] .. name, string.format('%s %d -', id, count - 1))
      end
    end
  end
end
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
redis.call('DEL', KEYS[1])
return 1

#!lua flags=allow-oom
-- Take dead letters away, and count what became of them.
--
-- KEYS   1 the shard's dead letters hash
--        2 the shard's books hash
-- ARGV   1 the counter to raise   2, 3, ... ids of the letters
-- Reply  how many of them were there
--
-- Atomic because the counter tells of exactly the letters that this call removed: of two callers only one finds each.
-- allow-oom because this is how a full server is relieved of them.

local letters, books = KEYS[1], KEYS[2]
local taken, bytes = 0, 0
for i = 2, #ARGV do
  local size = redis.call('HSTRLEN', letters, ARGV[i])
  if redis.call('HDEL', letters, ARGV[i]) == 1 then
    taken = taken + 1
    bytes = bytes + size
  end
end
if taken > 0 then
  redis.call('HINCRBY', books, ARGV[1], taken)
  redis.call('HINCRBY', books, 'dead.bytes', -bytes)
end
return taken

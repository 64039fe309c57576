#!lua flags=allow-oom
-- Say in the books why a group's owner cannot commit now; its next commit takes that back.
-- KEYS  1 fence  2 books
-- ARGV  1 fence  2 group  3 one line
-- Reply 1, or 0 when another owner has raised the fence.
-- Atomic, because a successor may have committed meanwhile, and would be shown in trouble.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
redis.call('HSET', KEYS[2], ARGV[2] .. '.trouble', ARGV[3])
return 1

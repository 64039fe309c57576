#!lua flags=allow-oom
-- Keep a lease while there is nothing to commit, and see that the stream is still the one that was read.
-- KEYS  1 lease  2 fence  3 stream
-- ARGV  1 fence  2 owner  3 lease time in ms  4 group  5 where the owner left the group
-- Reply 1; 0 when another owner has raised the fence; -1 when the stream or its group is gone or stands elsewhere: new
--       entries may then have IDs that this owner would never read.
-- Atomic, because a lease renewed after a take-over would lock the new owner out.
if redis.call('GET', KEYS[2]) ~= ARGV[1] then
  return 0
end
local stands
if redis.call('EXISTS', KEYS[3]) == 1 then
  for _, row in ipairs(redis.call('XINFO', 'GROUPS', KEYS[3])) do
    local group = {}
    for i = 1, #row, 2 do
      group[row[i]] = row[i + 1]
    end
    if group['name'] == ARGV[4] then
      stands = group['last-delivered-id']
    end
  end
end
if stands ~= ARGV[5] then
  return -1
end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1

#!lua flags=allow-oom
-- Remove the entries that every declared group has committed.
-- KEYS  1 stream
-- ARGV  the declared groups
-- Reply number of entries removed; 0 while a declared group is missing.
-- Atomic, because a group created in between would find its entries gone. Groups of others hold nothing back.
if redis.call('EXISTS', KEYS[1]) == 0 then
  return 0
end
local positions = {}
for _, row in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local group = {}
  for i = 1, #row, 2 do
    group[row[i]] = row[i + 1]
  end
  positions[group['name']] = group['last-delivered-id']
end
local least
for _, name in ipairs(ARGV) do
  local position = positions[name]
  if not position then
    return 0
  end
  local ms, n = string.match(position, '^(%d+)-(%d+)$')
  ms, n = tonumber(ms), tonumber(n)
  if not least or ms < least[1] or (ms == least[1] and n < least[2]) then
    least = {ms, n, position}
  end
end
return redis.call('XTRIM', KEYS[1], 'MINID', least[3])

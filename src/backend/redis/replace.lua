-- Puts a result in the place of one whose state was read outside, unless that one has changed meanwhile.
-- KEYS: the result's. ARGV: seconds to keep it (0: for ever), the result, the bytes that are expected there.
-- Returns the bytes that are there when they are others, and nothing counts as an empty string.
local key, seconds, value, expected = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
local stored = redis.call('GET', key) or ''
if stored ~= expected then
  return stored
end
if seconds == '0' then
  redis.call('SET', key, value)
else
  redis.call('SET', key, value, 'EX', seconds)
end
redis.call('PUBLISH', key, value)
return false

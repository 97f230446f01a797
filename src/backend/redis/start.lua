-- Announces a chord of so many members, and does away with the claim of an earlier run under the same id
-- (celery/backends/redis.py `RedisBackend.set_chord_size`).
-- A group that a header's chain ends in announces its own members when the chain comes to it. Those are counted in the
-- whole already: a size that is there and larger stays.
-- KEYS: claim, size. ARGV: the size, seconds to keep it (0: for ever). Returns 1, or 0 where the larger one stays.
local known = tonumber(redis.call('GET', KEYS[2]) or nil)
if known and known > tonumber(ARGV[1]) then
  return 0
end
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[2], ARGV[1])
if ARGV[2] ~= '0' then
  redis.call('EXPIRE', KEYS[2], ARGV[2])
end
return 1

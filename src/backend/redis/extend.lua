-- Holds a claim for longer, or takes again one that has expired while the chord is still announced
-- (celery/backends/redis.py CHORD_CLAIM_EXTEND_LUA).
-- KEYS: claim, size. ARGV: the token, seconds. Returns 1, or 0 when it is another's or the chord is over.
local holder = redis.call('GET', KEYS[1])
if holder == ARGV[1] or not holder and redis.call('EXISTS', KEYS[2]) == 1 then
  redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
  return 1
end
return 0

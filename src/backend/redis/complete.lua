-- Forgets a chord that the token has claimed, and leaves word that it is done (celery/backends/redis.py
-- CHORD_CLEANUP_LUA).
-- KEYS: claim, parts, added, size, counted. ARGV: the token, seconds to remember. Returns 1, or 0 without the claim.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
-- Freeing a hundred thousand parts is not worth anybody's waiting.
redis.call('UNLINK', KEYS[2], KEYS[3], KEYS[4], KEYS[5])
redis.call('SET', KEYS[1], 'done', 'EX', ARGV[2])
return 1

-- Makes a chord wait for one more member, once for each however often it is asked.
-- KEYS: added, counted. ARGV: the member, seconds to remember it (0: for ever). Returns 1, or 0 for one that was there.
-- Stock workers look in `counted` for members that have reported, `<id>:<place>`, and remove it with the chord; those
-- older than Celery 5.7 do not know it.
local is_new = redis.call('SADD', KEYS[2], 'added:' .. ARGV[1])
if is_new == 1 then
  redis.call('INCR', KEYS[1])
end
if ARGV[2] ~= '0' then
  redis.call('EXPIRE', KEYS[2], ARGV[2])
end
return is_new

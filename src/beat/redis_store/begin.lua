-- Keeps these runs and no others, if the lease is still ours.
--
-- KEYS: the lease, the runs.
-- ARGV: what the lease says if it is ours, then names and runs.
-- Returns 1 if they are kept.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[2])
for at = 2, #ARGV, 2 do redis.call('HSET', KEYS[2], ARGV[at], ARGV[at + 1]) end
return 1

-- Keeps a run and what is to be sent, if the lease is still ours, and extends the lease.
--
-- KEYS: the lease, the runs, what was claimed and not sent.
-- ARGV: what the lease says if it is ours, the entry's name, its run, the claim's id, what is to be sent, how many
--       milliseconds the lease lasts.
-- Returns 1 if it is claimed.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[3], ARGV[4], ARGV[5])
redis.call('HSET', KEYS[2], ARGV[2], ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[6])
return 1

-- Forgets what was claimed.
--
-- KEYS: what was claimed and not sent.
-- ARGV: the claim's id.
return redis.call('HDEL', KEYS[1], ARGV[1])

-- What is kept.
--
-- KEYS: the runs, what was claimed and not sent.
return { redis.call('HGETALL', KEYS[1]), redis.call('HGETALL', KEYS[2]) }

-- Releases a lock that we still hold (the semantics of redis-py's Lock.release).
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0

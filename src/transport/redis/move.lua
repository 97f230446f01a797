-- Takes a message out of the reserved ones and pushes what stands for it, unless it is gone already.
--
-- KEYS: unacked, unacked_index, then the lists to push to.
-- ARGV: the tag, LPUSH or RPUSH, what to push, and the score up to which the message may be moved, or nothing.
-- Returns 1 if it was moved.
local unacked, index, tag = KEYS[1], KEYS[2], ARGV[1]
if ARGV[4] ~= '' then
    local score = redis.call('ZSCORE', index, tag)
    if not score or tonumber(score) > tonumber(ARGV[4]) then return 0 end
end
if redis.call('HEXISTS', unacked, tag) == 0 then
    redis.call('ZREM', index, tag)
    return 0
end
-- A first write without effect: a server that is out of memory then lets the push pass, too.
redis.call('HDEL', unacked, '')
for at = 3, #KEYS do redis.call(ARGV[2], KEYS[at], ARGV[3]) end
redis.call('HDEL', unacked, tag)
redis.call('ZREM', index, tag)
return 1

-- Pushes a message and takes its claim away, unless that is gone already.
--
-- KEYS: the hash of claims, then the lists to push to.
-- ARGV: the claim's field, the message.
-- Returns 1 if it was pushed.
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then return 0 end
-- A first write without effect: a server that is out of memory then lets the push pass, too.
redis.call('HDEL', KEYS[1], '')
for at = 2, #KEYS do
    local answer = redis.pcall('LPUSH', KEYS[at], ARGV[2])
    -- What is no list refuses it; the claim stays unless the message is somewhere already.
    if type(answer) == 'table' and at == 2 then return answer end
end
redis.call('HDEL', KEYS[1], ARGV[1])
return 1

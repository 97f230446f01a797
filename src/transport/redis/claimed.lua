-- Pushes a message and takes its claim away, unless that is gone already, or the message would go to other queues.
--
-- KEYS: the hash of claims, then the bindings of the exchange, if it is not the default one, then the lists to push to.
-- ARGV: the claim's field, the message, and the digest of the bindings that the lists were found by, if there are some.
-- Returns 1 if it was pushed, 0 if the claim is gone; and if the bindings are others, their digest and they themselves.
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then return 0 end
local first = 2
if ARGV[3] then
    local bindings = redis.call('SMEMBERS', KEYS[2])
    -- In an order of their own, and each with its length: no two tables look alike.
    table.sort(bindings)
    local digest = {}
    for at, binding in ipairs(bindings) do digest[at] = #binding .. ':' .. binding end
    digest = redis.sha1hex(table.concat(digest))
    if digest ~= ARGV[3] then
        table.insert(bindings, 1, digest)
        return bindings
    end
    first = 3
end
-- A first write without effect: a server that is out of memory then lets the push pass, too.
redis.call('HDEL', KEYS[1], '')
for at = first, #KEYS do
    local answer = redis.pcall('LPUSH', KEYS[at], ARGV[2])
    -- What is no list refuses it; the claim stays unless the message is somewhere already.
    if type(answer) == 'table' and at == first then return answer end
end
redis.call('HDEL', KEYS[1], ARGV[1])
return 1

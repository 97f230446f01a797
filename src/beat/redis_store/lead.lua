-- Takes the lease if nobody has it, and extends it if we do.
--
-- KEYS: the lease, the number of the last one.
-- ARGV: our token, how many milliseconds it lasts.
-- Returns what the lease says if it is ours, else how many milliseconds it still lasts.
local held = redis.call('GET', KEYS[1])
if held and string.match(held, '^%d+ (.*)$') ~= ARGV[1] then
    local rest = redis.call('PTTL', KEYS[1])
    -- Whoever wrote it thus, a lease is over some time.
    if rest < 0 then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
    return rest
end
held = held or (string.format('%.0f', redis.call('INCR', KEYS[2])) .. ' ' .. ARGV[1])
redis.call('SET', KEYS[1], held, 'PX', ARGV[2])
return held

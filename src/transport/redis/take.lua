-- Takes messages out of a list, wherever they stand, and pushes what replaces each.
--
-- KEYS: the list, then the lists to push to.
-- ARGV: a text that no message is, then for each message: where it was seen, counted from the right end (-1), the message,
--       what to push, to how many of the lists (in their order).
-- Returns for each message 1 if it was taken.
local list, mark = KEYS[1], ARGV[1]
local taken, marked, key = {}, 0, 2
-- A first write without effect: a server that is out of memory then lets the others pass, too.
redis.call('LREM', list, 1, mark)

local function push(payload, lists)
    for at = key, key + lists - 1 do
        local answer = redis.pcall('LPUSH', KEYS[at], payload)
        if type(answer) == 'table' then return false end
    end
    return true
end

for at = 2, #ARGV, 4 do
    local place, raw, payload, lists = tonumber(ARGV[at]), ARGV[at + 1], ARGV[at + 2], tonumber(ARGV[at + 3])
    local done = 0
    if redis.call('LINDEX', list, place) == raw then
        if push(payload, lists) then
            -- Removed at the end, all in one go, so that the places of the others hold until then.
            redis.call('LSET', list, place, mark)
            marked, done = marked + 1, 1
        end
    elseif redis.call('LREM', list, -1, raw) == 1 then
        if push(payload, lists) then done = 1 else redis.call('RPUSH', list, raw) end
    end
    taken[#taken + 1] = done
    key = key + lists
end
if marked > 0 then redis.call('LREM', list, -marked, mark) end
return taken

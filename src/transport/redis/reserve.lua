-- Takes messages off the lists and registers them as reserved, in one instant.
--
-- KEYS: the lists: for each priority step each queue. No others: before Redis 7.2 a client that tracks is told of changes
--       to all keys of a script that reads one of them.
-- ARGV: the names of unacked and unacked_index, how many at most, how many queues, 1 to share among them, the time, the
--       tags' prefix, the first tag's number, 1 to be told of changes to empty lists, then for each queue the text that
--       closes its entries in unacked.
-- Returns: an array of flags and counts (1 if all lists are empty now, then list number and count, ..., a count of 0 for a
-- key that holds no list), then the messages.
local unacked, index = ARGV[1], ARGV[2]
local left, queues, fair = tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5] == '1'
local now, prefix, tag, arm = ARGV[6], ARGV[7], tonumber(ARGV[8]), ARGV[9] == '1'
-- What one answer may weigh, and how many messages are moved at a time: few enough to stay near the processor. They begin
-- with one and grow as long as messages are light, for each byte is copied a few times while all others wait.
local bytes, step, most_at_once, largest = 4194304, 1, 100, 1
local call, pcall, format = redis.call, redis.pcall, string.format
local heads, found, count = { 0 }, { 0 }, 1
local failed

-- What the key of a list holds that is none is the trouble of that queue, and no other's.
local function is_misfit(answer)
    return string.find(answer.err, 'WRONGTYPE', 1, true)
end

-- Nothing for a key that holds no list.
local function pop(list, wanted)
    local popped = pcall('RPOP', list, wanted)
    if popped and popped.err then
        if is_misfit(popped) then return nil end
        -- Before Redis 6.2 there is no count. Whatever is wrong beside that is wrong without it, too.
        popped = {}
        for at = 1, wanted do
            local one = pcall('RPOP', list)
            if type(one) == 'table' then
                if is_misfit(one) then return nil end
                failed = one
                break
            end
            if not one then break end
            popped[at] = one
        end
    end
    return popped or {}
end

-- Whatever the bytes are: to look into them here would keep the server from all others. The worker wraps what is no
-- message as soon as it has read it.
local function register(popped, suffix)
    local fields, scores, names = {}, {}, {}
    for at = 1, #popped do
        local raw = popped[at]
        local name = prefix .. format('%024.0f', tag)
        tag = tag + 1
        fields[2 * at - 1], fields[2 * at] = name, '[' .. raw .. suffix
        scores[2 * at - 1], scores[2 * at] = now, name
        names[at] = name
    end
    local answer = pcall('HSET', unacked, unpack(fields))
    if type(answer) ~= 'table' then
        answer = pcall('ZADD', index, unpack(scores))
        -- What goes back to its list must not stand here as well.
        if type(answer) == 'table' then pcall('HDEL', unacked, unpack(names)) end
    end
    return type(answer) == 'table' and answer
end

local function take(list, most)
    local key, suffix = KEYS[list], ARGV[10 + (list - 1) % queues]
    local taken = 0
    while taken < most and bytes > 0 and not failed do
        local wanted = math.min(most - taken, step, math.max(1, math.floor(bytes / largest)))
        local popped = pop(key, wanted)
        if not popped then
            heads[#heads + 1] = list
            heads[#heads + 1] = 0
            break
        end
        local got = #popped
        local refused = got > 0 and register(popped, suffix)
        if refused then
            -- Nothing may be out of the lists and not registered.
            for back = got, 1, -1 do call('RPUSH', key, popped[back]) end
            failed = refused
            break
        end
        for at = 1, got do
            local raw = popped[at]
            found[count + at] = raw
            bytes = bytes - #raw
            if #raw > largest then largest = #raw end
        end
        count, taken, step = count + got, taken + got, math.min(step * 4, most_at_once)
        if got < wanted then break end
    end
    left = left - taken
    if taken > 0 then
        heads[#heads + 1] = list
        heads[#heads + 1] = taken
    end
    return taken
end

for first = 1, #KEYS, queues do
    local share = fair and math.ceil(left / queues) or left
    local full = {}
    for list = first, first + queues - 1 do
        if left > 0 and take(list, math.min(share, left)) == share then full[#full + 1] = list end
    end
    for at = 1, #full do
        if left > 0 then take(full[at], left) end
    end
end

if count == 1 and failed then return failed end
if left > 0 and bytes > 0 then
    -- Reading the lists is what makes the server tell this client of the next change.
    for first = 1, arm and #KEYS or 0, 1000 do call('EXISTS', unpack(KEYS, first, math.min(first + 999, #KEYS))) end
    heads[1] = 1
end
found[1] = heads
return found

-- Takes messages off the lists and registers them as reserved, in one instant.
--
-- KEYS: unacked, unacked_index, then the lists: for each priority step each queue.
-- ARGV: how many at most, how many queues, 1 to share among them, the time, the tags' prefix, the first tag's number,
--       1 to be told of changes to empty lists, then for each queue the text that closes its entries in unacked.
-- Returns: an array of flags and counts (1 if all lists are empty now, then list number and count, ...), then the messages.
local unacked, index = KEYS[1], KEYS[2]
local left, queues, fair = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3] == '1'
local now, prefix, tag = ARGV[4], ARGV[5], tonumber(ARGV[6])
-- What one answer may weigh, and how many messages are popped before that is looked at again.
local bytes, step = 4194304, 100
local lists = #KEYS - 2
local heads, found, taken_from = { 0 }, { 0 }, {}
local failed

local function pop(list, count)
    local popped = redis.pcall('RPOP', KEYS[list + 2], count)
    if popped and popped.err then
        -- Before Redis 6.2 there is no count. Whatever is wrong beside that is wrong without it, too.
        popped = {}
        for at = 1, count do
            local one = redis.pcall('RPOP', KEYS[list + 2])
            if type(one) == 'table' then failed = one break end
            if not one then break end
            popped[at] = one
        end
    end
    return popped or {}
end

local function take(list, count)
    local taken = 0
    while count > 0 and bytes > 0 and not failed do
        local wanted = math.min(count, step)
        local popped = pop(list, wanted)
        for at = 1, #popped do
            found[#found + 1] = popped[at]
            taken_from[#found] = list
            bytes = bytes - #popped[at]
        end
        taken, count = taken + #popped, count - #popped
        if #popped < wanted then break end
    end
    left = left - taken
    if taken > 0 then
        heads[#heads + 1], heads[#heads + 2] = list, taken
    end
    return taken
end

for first = 1, lists, queues do
    local share = fair and math.ceil(left / queues) or left
    local full = {}
    for list = first, first + queues - 1 do
        if left > 0 and take(list, math.min(share, left)) == share then full[#full + 1] = list end
    end
    for at = 1, #full do
        if left > 0 then take(full[at], left) end
    end
end

local fields, scores = {}, {}
local function register()
    for _, write in ipairs({ { 'HSET', unacked, fields }, { 'ZADD', index, scores } }) do
        local answer = redis.pcall(write[1], write[2], unpack(write[3]))
        if type(answer) == 'table' and answer.err then return answer end
    end
    fields, scores = {}, {}
end

for at = 2, #found do
    local raw = found[at]
    local name = prefix .. string.format('%012.0f', tag)
    tag = tag + 1
    -- Bytes that are no object are wrapped in one, so that a stock worker that restores them finds what it can read.
    local kept = raw
    if string.byte(raw, 1) ~= 123 or string.byte(raw, -1) ~= 125 then
        kept = '{"celeriac-raw": "' .. string.gsub(raw, '.', function(byte) return string.format('%02x', string.byte(byte)) end) .. '"}'
    end
    fields[#fields + 1], fields[#fields + 2] = name, '[' .. kept .. ARGV[8 + (taken_from[at] - 1) % queues]
    scores[#scores + 1], scores[#scores + 2] = now, name
    if #fields >= 2000 or at == #found then
        local refused = register()
        if refused then
            -- Nothing may be out of the lists and not registered.
            for back = #found, 2, -1 do redis.call('RPUSH', KEYS[taken_from[back] + 2], found[back]) end
            return refused
        end
    end
end

if #found == 1 and failed then return failed end
if left > 0 and bytes > 0 then
    -- Reading the lists is what makes the server tell this client of the next change.
    if ARGV[7] == '1' then redis.call('EXISTS', unpack(KEYS, 3)) end
    heads[1] = 1
end
found[1] = heads
return found

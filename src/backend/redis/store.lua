-- Stores results, keeps the state rules of backend/rules.rs, and publishes what it wrote on its key.
-- KEYS: one per result. ARGV: seconds to keep results, seconds to keep failures (0: for ever), one letter per result
-- (E early, F failure, R any other), then the results.
-- Returns index and stored bytes, by turns, of stored results whose state is not to be read here: nothing was written
-- for these.
local call, byte, keys, argv = redis.call, string.byte, KEYS, ARGV
local seconds, failure_seconds, letters = argv[1], argv[2], argv[3]
local EARLY, FAILURE, OPENING_BRACE, MSGPACK_STRING = 69, 70, 123, 160
local unreadable = {}

-- As Celery writes it the state comes first, in JSON and in msgpack. Other JSON is decoded whole.
local function state_of(stored)
  local state = string.match(stored, '^{"status": "([%w_]+)"')
  if state then
    return state
  end
  if byte(stored) == OPENING_BRACE then
    local is_json, meta = pcall(cjson.decode, stored)
    return is_json and type(meta) == 'table' and type(meta.status) == 'string' and meta.status or nil
  end
  local _, last = string.find(stored, '^[\129-\143]\166status')
  local length = last and byte(stored, last + 1)
  if length and length >= MSGPACK_STRING and length < MSGPACK_STRING + 32 then
    return string.sub(stored, last + 2, last + 1 + length - MSGPACK_STRING)
  end
end

local function stays(state, letter)
  return state == 'SUCCESS' or letter == EARLY and (state == 'FAILURE' or state == 'REVOKED')
end

for i = 1, #keys do
  local key, value, letter = keys[i], argv[i + 3], byte(letters, i)
  local expires = letter == FAILURE and failure_seconds or seconds
  local written
  if expires == '0' then
    written = call('SET', key, value, 'NX')
  else
    written = call('SET', key, value, 'NX', 'EX', expires)
  end
  if not written then
    local stored = redis.pcall('GET', key)
    local state = 'PENDING'
    if type(stored) == 'string' and stored ~= '' then
      state = state_of(stored)
    end
    if not state then
      unreadable[#unreadable + 1] = i
      unreadable[#unreadable + 1] = stored
    elseif not stays(state, letter) then
      written = expires == '0' and call('SET', key, value) or call('SET', key, value, 'EX', expires)
    end
  end
  if written then
    call('PUBLISH', key, value)
  end
end
return unreadable

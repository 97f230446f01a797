-- Counts parts of chords, each once, and claims the chords that are complete: the keys and effects of
-- celery/backends/redis.py CHORD_PART_RETURN_LUA, for many parts at a time.
-- KEYS, six per chord: parts, added, size, counted, saved header, claim.
-- ARGV: 1 for ordered, seconds to keep the counters, seconds to keep the header (0: for ever), seconds of a claim; then
-- per chord: the token to claim with, the number of parts, and per part its member, its score and its text.
-- Returns per chord: -1 done before, 0 waiting, 1 claimed, 2 another's claim, or the text of an error; how many parts
-- there are; the other claim's milliseconds.
local call = redis.call
local ordered, expires, header_expires, lease = ARGV[1] == '1', ARGV[2], ARGV[3], ARGV[4]
local at = 5

-- Whether the part was there already, though nobody had noted it as counted: an older worker reported it.
local function add(parts, counted, member, score, text)
  if call('SISMEMBER', counted, member) == 1 then
    return false
  end
  local was_there = false
  if ordered then
    was_there = call('ZADD', parts, score, text) == 0
  else
    call('RPUSH', parts, text)
  end
  call('SADD', counted, member)
  return was_there
end

local function count(first_key, token, first, last)
  local parts, added, size = KEYS[first_key], KEYS[first_key + 1], KEYS[first_key + 2]
  local counted, header, claim = KEYS[first_key + 3], KEYS[first_key + 4], KEYS[first_key + 5]
  if call('GET', claim) == 'done' then
    return {-1, 0, 0}
  end
  local was_there = false
  for i = first, last, 3 do
    was_there = add(parts, counted, ARGV[i], ARGV[i + 1], ARGV[i + 2])
  end
  local ready = ordered and call('ZCARD', parts) or not ordered and call('LLEN', parts)
  if expires ~= '0' then
    for _, key in ipairs({parts, added, size, counted}) do
      call('EXPIRE', key, expires)
    end
    if header_expires ~= '0' then
      call('EXPIRE', header, header_expires)
    end
  end
  local wanted = tonumber(call('GET', size) or nil)
  if not wanted or ready ~= wanted + (tonumber(call('GET', added) or nil) or 0) then
    return {0, ready, 0}
  end
  -- The older worker that counted this part last is publishing the body at this moment, and knows of no claims. It is
  -- given the time of one; if it dies, the chord can be claimed afterwards.
  local mine = was_there and 'older worker' or token
  if call('SET', claim, mine, 'NX', 'EX', lease) and not was_there then
    return {1, ready, 0}
  end
  -- The answer to a claim may have been lost.
  if call('GET', claim) == token then
    call('EXPIRE', claim, lease)
    return {1, ready, 0}
  end
  return {2, ready, call('PTTL', claim)}
end

-- Keys of another type are the trouble of one chord; everything else the server refuses is everybody's.
local answers = {}
for chord = 1, #KEYS / 6 do
  local token, last = ARGV[at], at + 1 + 3 * tonumber(ARGV[at + 1])
  local worked, answer = pcall(count, chord * 6 - 5, token, at + 2, last)
  if not worked then
    local text = type(answer) == 'table' and answer.err or tostring(answer)
    if not string.find(text, 'WRONGTYPE', 1, true) then
      return redis.error_reply(string.match(text, '%-(%u+ .*)') or text)
    end
    answer = {text, 0, 0}
  end
  answers[chord] = answer
  at = last + 1
end
return answers

-- Writes entries anew that are still reserved.
--
-- KEYS: unacked.
-- ARGV: for each entry its tag and its new text.
for at = 1, #ARGV, 2 do
    if redis.call('HEXISTS', KEYS[1], ARGV[at]) == 1 then redis.call('HSET', KEYS[1], ARGV[at], ARGV[at + 1]) end
end
return 1

-- Permits that were not used. KEYS: breaker, window. ARGV: how many, whether a probe was among them.
local started = tonumber(redis.call('HGET', KEYS[2], 'started'))
if started then
  local left = math.max(started - tonumber(ARGV[1]), 0)
  -- One in which nothing started has not begun.
  if left == 0 then redis.call('DEL', KEYS[2]) else redis.call('HSET', KEYS[2], 'started', string.format('%.0f', left)) end
end
if ARGV[2] == '1' then redis.call('HDEL', KEYS[1], 'probe') end
return 0

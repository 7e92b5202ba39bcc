-- How attempts ended: `Breaker::report` for each. KEYS: breaker. ARGV: failures, cooldown_ms, now, then for each attempt
-- 's' (succeeded), 'f' (failed) or a pause in milliseconds. Answer: the last change: 0; 1 (opened) and until when; 2 (closed).
local most, cooldown, now = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local function text(number) return string.format('%.0f', number) end

local change = {0}
for number = 4, #ARGV do
  local report = ARGV[number]
  if report == 's' then
    if redis.call('HEXISTS', KEYS[1], 'open') == 1 then change = {2} end
    redis.call('HDEL', KEYS[1], 'failures', 'open', 'probe')
  elseif report == 'f' then
    local failures = redis.call('HINCRBY', KEYS[1], 'failures', 1)
    local opens
    if redis.call('HEXISTS', KEYS[1], 'open') == 1 then
      opens = redis.call('HEXISTS', KEYS[1], 'probe') == 1
    else
      opens = failures >= most
    end
    if opens then
      redis.call('HSET', KEYS[1], 'open', text(now + cooldown))
      redis.call('HDEL', KEYS[1], 'probe')
      change = {1, now + cooldown}
    end
  else
    local paused = tonumber(redis.call('HGET', KEYS[1], 'paused')) or 0
    redis.call('HSET', KEYS[1], 'paused', text(math.max(paused, now + tonumber(report))))
    redis.call('HDEL', KEYS[1], 'probe')
  end
end
-- Longer than anything in it matters; an endpoint that is removed is forgotten.
if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('PEXPIRE', KEYS[1], text(cooldown + 604800000)) end
return change

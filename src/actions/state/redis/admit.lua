-- Whether attempts at an endpoint may start: `Breaker::admit` and `Window::take` in one step.
-- KEYS: breaker, window. ARGV: now, wanted, most, per_ms, probe_ms. Answer: granted, whether it is a probe, when to ask again or -1.
local now, wanted, most = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local per, probe_ms = tonumber(ARGV[4]), tonumber(ARGV[5])
local function text(number) return string.format('%.0f', number) end

local breaker = redis.call('HMGET', KEYS[1], 'open', 'probe', 'paused')
local open, probing, paused = tonumber(breaker[1]), tonumber(breaker[2]), tonumber(breaker[3])
if paused and now < paused then return {0, 0, paused} end
local probe = false
if open then
  if now < open then return {0, 0, open} end
  if probing and now < probing then return {0, 0, probing} end
  probe, wanted = true, math.min(wanted, 1)
end

local window = redis.call('HMGET', KEYS[2], 'ends', 'started')
local ends, started = tonumber(window[1]) or 0, tonumber(window[2]) or 0
if now >= ends or ends > now + per then ends, started = now + per, 0 end
local granted = math.max(math.min(wanted, most - started), 0)
redis.call('HSET', KEYS[2], 'ends', text(ends), 'started', text(started + granted))
redis.call('PEXPIRE', KEYS[2], text(per + 60000))
if probe and granted > 0 then redis.call('HSET', KEYS[1], 'probe', text(now + probe_ms)) end
-- One that was lost before is forgotten with it.
if probe and granted == 0 then redis.call('HDEL', KEYS[1], 'probe') end
return {granted, (probe and granted > 0) and 1 or 0, granted < wanted and ends or -1}

-- Which events are duplicates. KEYS: one for each event's key, in the order of the events. ARGV: window_ms, then for each event its
-- id and the time of its acceptance. Answer: 1 for each duplicate, else 0.
local window = tonumber(ARGV[1])
-- Events may be read a good while after they were accepted.
local expiry = string.format('%.0f', 2 * window + 60000)
local duplicates = {}
for number = 1, #KEYS do
  local event, at = ARGV[2 * number], tonumber(ARGV[2 * number + 1])
  local first = redis.call('GET', KEYS[number])
  local duplicate = 0
  if first then
    local id, when = string.match(first, '^(%S+) (%S+)$')
    if id ~= event and math.abs(at - tonumber(when)) < window then duplicate = 1 end
    first = id == event
  end
  if duplicate == 0 and not first then
    redis.call('SET', KEYS[number], event .. ' ' .. ARGV[2 * number + 1], 'PX', expiry)
  end
  duplicates[number] = duplicate
end
return duplicates

-- Runs health.lua on each object of objects.json, which were recorded from a running platform or differ from recorded ones
-- as `because` says. It sees what Argo CD lets it see: `obj`, and no library that opens files or runs programs.
local cjson = require("cjson")

local folder = arg[0]:match("^(.*)/test/") or "."

local function read(name)
  local file = assert(io.open(folder .. "/" .. name))
  local text = file:read("a")
  file:close()
  return text
end

-- What has no value in JSON has none in Argo CD's objects.
local function without_null(value)
  if type(value) == "table" then
    for key, inner in pairs(value) do
      value[key] = without_null(inner)
    end
  end
  if value ~= cjson.null then return value end
end

local script, failed, seen, reasons = read("health.lua"), 0, {}, {}
for _, case in ipairs(cjson.decode(read("test/objects.json"))) do
  local sandbox = { obj = without_null(case.object), ipairs = ipairs, pairs = pairs, string = string, table = table }
  local answer = assert(load(script, "health.lua", "t", sandbox))()
  seen[answer.status] = true
  for _, condition in ipairs((case.object.status or {}).conditions or {}) do
    if condition.type == "Ready" then reasons[condition.reason] = true end
  end
  if answer.status ~= case.is or type(answer.message) ~= "string" or answer.message == "" then
    failed = failed + 1
    io.stderr:write(string.format("%s where %s is right, since %s: %s\n", answer.status, case.is, case.because, tostring(answer.message)))
  end
end
for _, state in ipairs({ "Healthy", "Degraded", "Progressing", "Suspended" }) do
  if not seen[state] then
    failed = failed + 1
    io.stderr:write("no object is " .. state .. "\n")
  end
end
-- What a resource may stay in for long, though nothing is wrong with its manifest, and a Secret that Git does not have.
for _, reason in ipairs({ "NoInstances", "AwaitingInstances", "ApprovalRequired", "DatabaseUnreachable", "Observing",
  "HistoryTruncated", "SecretNotFound" }) do
  if not reasons[reason] then
    failed = failed + 1
    io.stderr:write("no object has Ready with the reason " .. reason .. "\n")
  end
end
os.exit(failed == 0 and 0 or 1)

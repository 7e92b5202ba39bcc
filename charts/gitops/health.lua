-- The health of an EventType, Topic, Projection or WebhookAction, for Argo CD. `obj` is the resource as the API server
-- has it; the answer is what Argo CD shows. scripts/argocd-health puts this into argocd-cm.yaml.

local status = obj.status or {}
local conditions = {}
for _, condition in ipairs(status.conditions or {}) do
  conditions[condition.type] = condition
end

local function is(type)
  return conditions[type] ~= nil and conditions[type].status == "True"
end

local function health(state, type, otherwise)
  local condition = conditions[type]
  local message = otherwise
  if condition ~= nil and condition.message ~= nil and condition.message ~= "" then
    message = condition.reason .. ": " .. condition.message
  end
  return { status = state, message = message }
end

if obj.metadata.deletionTimestamp ~= nil then
  return { status = "Progressing", message = "Being deleted" }
end
-- First of all: of a paused resource nobody looks at the generation.
if obj.spec ~= nil and obj.spec.reconciliation == "Paused" then
  return { status = "Suspended", message = "spec.reconciliation is Paused" }
end
-- What is said of an older generation is no answer. -1 and nothing: nobody has looked yet.
local observed = status.observedGeneration
if observed == nil or observed < 0 or observed ~= obj.metadata.generation then
  return { status = "Progressing", message = "Waiting for the controllers to look at this generation" }
end
if is("Stalled") then
  return health("Degraded", "Stalled", "Stalled")
end
if is("Reconciling") then
  return health("Progressing", "Reconciling", "Reconciling")
end
if is("Ready") then
  return health("Healthy", "Ready", "Ready")
end
return health("Progressing", "Ready", "Not Ready yet")

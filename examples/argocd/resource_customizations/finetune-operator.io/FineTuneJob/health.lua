-- Health of a FineTuneJob, from its conditions; kstatus compatible (Stalled is a failure, Reconciling is progress).
-- ArgoCD runs this without Lua's standard libraries.

local status = obj.status or {}
local conditions = {}
for _, condition in ipairs(status.conditions or {}) do
  conditions[condition.type] = condition
end

local function holds(name)
  return conditions[name] ~= nil and conditions[name].status == "True"
end

-- "Reason: message" of a condition; the message alone may be empty.
local function health(verdict, name)
  local condition = conditions[name]
  local text = condition.reason or name
  if condition.message ~= nil and condition.message ~= "" then
    text = text .. ": " .. condition.message
  end
  return { status = verdict, message = text }
end

local function waiting(text)
  return { status = "Progressing", message = text }
end

if obj.metadata.deletionTimestamp ~= nil then
  return waiting("The FineTuneJob is being deleted")
end
-- Conditions of an older spec say nothing about this one. A job that no operator has seen bears -1 and no conditions.
if #(status.conditions or {}) > 0 and status.observedGeneration ~= nil and status.observedGeneration ~= obj.metadata.generation then
  return waiting("Waiting for the operator to see the changed spec")
end
-- Stalled says why in one line; Failed adds the last log lines.
if holds("Stalled") then
  return health("Degraded", "Stalled")
end
if holds("Failed") then
  return health("Degraded", "Failed")
end
if conditions["Ready"] == nil then
  return waiting("Waiting for the operator to see the FineTuneJob")
end
if holds("Suspended") then
  return health("Suspended", "Suspended")
end
if holds("Ready") and not holds("Reconciling") then
  return health("Healthy", "Ready")
end
return health("Progressing", "Ready")

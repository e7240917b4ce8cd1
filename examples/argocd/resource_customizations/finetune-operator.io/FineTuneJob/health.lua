-- Health of a FineTuneJob, from its conditions; kstatus compatible (Stalled is a failure, Reconciling is progress).
-- ArgoCD runs this without Lua's standard libraries.

local conditions = {}
if obj.status ~= nil and obj.status.conditions ~= nil then
  for _, condition in ipairs(obj.status.conditions) do
    conditions[condition.type] = condition
  end
end

local function holds(name)
  return conditions[name] ~= nil and conditions[name].status == "True"
end

-- "Reason: message" of a condition; the message alone may be empty.
local function health(status, name)
  local condition = conditions[name]
  local text = condition.reason or name
  if condition.message ~= nil and condition.message ~= "" then
    text = text .. ": " .. condition.message
  end
  return { status = status, message = text }
end

if conditions["Ready"] == nil then
  return { status = "Progressing", message = "Waiting for the operator to see the FineTuneJob" }
end
-- Conditions of an older spec say nothing about this one.
if obj.status.observedGeneration ~= nil and obj.status.observedGeneration ~= obj.metadata.generation then
  return { status = "Progressing", message = "Waiting for the operator to see the changed spec" }
end
-- Stalled says why in one line; Failed adds the last log lines.
if holds("Stalled") then
  return health("Degraded", "Stalled")
end
if holds("Failed") then
  return health("Degraded", "Failed")
end
if holds("Suspended") then
  return health("Suspended", "Suspended")
end
if holds("Ready") then
  return health("Healthy", "Ready")
end
return health("Progressing", "Ready")

-- Suspend what runs, resume what is suspended. A failed job does neither.
local status = obj.status or {}
for _, condition in ipairs(status.conditions or {}) do
  if condition.type == "Failed" and condition.status == "True" then
    return {}
  end
end

if obj.spec.suspend then
  return { resume = { iconClass = "fa fa-fw fa-play" } }
end
return { suspend = { iconClass = "fa fa-fw fa-pause" } }

"""What a job's status and events say where the API server refused a child, or the spec cannot be read. Pure."""

from __future__ import annotations

import dataclasses
import datetime as dt

from finetune_operator.api import conditions
from finetune_operator.api.status import Condition, FineTuneJobStatus
from finetune_operator.plan import step
from finetune_operator.plan.conditions import remove_condition, set_condition, truncate
from finetune_operator.plan.types import Event, Plan
from finetune_operator.shell.errors import ApiError

_VERBS = {"GET": "read", "POST": "create", "PATCH": "change", "DELETE": "delete"}
_ADVICE = {
    403: "Give the operator that right, or raise the quota or change the policy that says no",
    422: "Change the field of the FineTuneJob that it comes from",
}


def message(error: ApiError) -> str:
    """What was refused, why, and what to do; it is tried again by itself."""
    verb = _VERBS.get(error.request.method, error.request.method)
    kind, _, name = error.request.path.partition("/namespaces/")[2].partition("/")[2].partition("/")
    advice = _ADVICE.get(error.status, "Change what the message names")
    return (
        f"The API server refused to {verb} {kind} {name}".rstrip() + f": {error.message}. {advice}; it is tried again."
    )


def event(error: ApiError) -> Event:
    """The refusal as an event."""
    return Event(type="Warning", reason=error.reason or "Refused", message=message(error))


def explained(planned: Plan, error: ApiError) -> Plan:
    """The plan's status with Ready saying what was refused, as the children do not yet stand as the plan assumed."""
    entries = [_with_message(entry, message(error)) for entry in planned.status.conditions]
    status = planned.status.model_copy(update={"conditions": entries})
    return dataclasses.replace(planned, status=status, events=(*planned.events, event(error)))


def _with_message(condition: Condition, text: str) -> Condition:
    return condition.model_copy(update={"message": truncate(text)}) if condition.type == conditions.READY else condition


def invalid_spec(status: FineTuneJobStatus, generation: int, text: str, now: dt.datetime) -> FineTuneJobStatus:
    """The status of a job whose spec cannot be read: failed, as no plan can be made."""
    entries = remove_condition(status.conditions, conditions.RECONCILING)
    verdicts = [step.false(conditions.READY, conditions.INVALID_SPEC, text)]
    verdicts += [step.true(kind, conditions.INVALID_SPEC, text) for kind in (conditions.FAILED, conditions.STALLED)]
    for verdict in verdicts:
        entries = set_condition(entries, verdict, generation=generation, now=now)
    return status.model_copy(update={"observed_generation": generation, "conditions": entries})

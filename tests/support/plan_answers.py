"""What a test asks of a Plan."""

from __future__ import annotations

from finetune_operator.api.status import Condition
from finetune_operator.plan.conditions import find
from finetune_operator.plan.plan import plan
from finetune_operator.plan.types import Manifest, Plan
from finetune_operator.settings import Settings
from manifest_builders import WorldBuilder


def decide(world: WorldBuilder, settings: Settings | None = None) -> Plan:
    """The Plan for a world."""
    return plan(world.observed(), settings or Settings())


def condition(planned: Plan, type_: str) -> Condition:
    """A condition that must be there."""
    found = find(planned.status.conditions, type_)
    assert found is not None, f"no condition {type_}"
    return found


def says(planned: Plan, type_: str) -> tuple[str, str]:
    """Status and reason of a condition."""
    found = condition(planned, type_)
    return found.status.value, found.reason


def types(planned: Plan) -> list[str]:
    """Types of all conditions, in their order."""
    return [entry.type for entry in planned.status.conditions]


def created(planned: Plan) -> list[tuple[str, str]]:
    """Kind and name of what is made once."""
    return [identity(manifest) for manifest in planned.create]


def applied(planned: Plan) -> list[tuple[str, str]]:
    """Kind and name of what is kept level."""
    return [identity(manifest) for manifest in planned.apply]


def identity(manifest: Manifest) -> tuple[str, str]:
    """Kind and name."""
    return manifest["kind"], manifest["metadata"]["name"]


def told(planned: Plan) -> list[tuple[str, str]]:
    """Type and reason of the events."""
    return [(event.type, event.reason) for event in planned.events]

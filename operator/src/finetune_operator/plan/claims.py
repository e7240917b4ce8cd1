"""Claims that the user names have to exist before anything is created."""

from __future__ import annotations

import datetime as dt

from finetune_operator.api import conditions, names
from finetune_operator.build import inputs
from finetune_operator.plan import instants
from finetune_operator.plan.failure import fail
from finetune_operator.plan.step import Step, false
from finetune_operator.plan.world import World

_RETRY_SECONDS = 15.0
_PATIENCE = dt.timedelta(minutes=10)


def policy(world: World) -> Step | None:
    """Wait some minutes for missing claims: manifests of one folder arrive in any order. Then fail."""
    if world.suspended or _is_past_prepare(world):
        return None
    missing = [claim for claim in _named(world) if ("PersistentVolumeClaim", claim) not in world.observed.children]
    if not missing:
        return None
    message = (
        f"PersistentVolumeClaim {', '.join(missing)} not found in namespace {world.job.namespace}; create it, "
        "or correct storage.claim and the pvc:// sources"
    )
    if world.now - _waiting_since(world) >= _PATIENCE:
        return fail(world, conditions.CLAIM_NOT_FOUND, f"{message}. Waited for 10 minutes.", stage=conditions.PREPARED)
    return Step(ready=false(conditions.READY, conditions.CLAIM_NOT_FOUND, f"{message}."), requeue_after=_RETRY_SECONDS)


def _is_past_prepare(world: World) -> bool:
    # Later the pods themselves tell of a claim that went away.
    started = world.own("Job", names.prepare(world.job.name)) is not None
    return started or world.is_true(conditions.PREPARED)


def _named(world: World) -> list[str]:
    storage = world.spec.storage.claim
    made = names.volume(world.job.name) if storage is None else None
    named = dict.fromkeys([*([storage] if storage else []), *inputs.claims(world.spec)])
    return [claim for claim in named if claim != made]


def _waiting_since(world: World) -> dt.datetime:
    resumed = world.condition(conditions.SUSPENDED)
    since = instants.from_text(resumed.last_transition_time) if resumed else world.started
    return max(since, world.started)

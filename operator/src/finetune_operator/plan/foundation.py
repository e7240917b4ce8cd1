"""What every stage stands on: run.json and the job's volume."""

from __future__ import annotations

from finetune_operator.api import conditions, names
from finetune_operator.build import claim, config_map
from finetune_operator.build.types import Manifest
from finetune_operator.plan.step import Step
from finetune_operator.plan.world import World


def policy(world: World) -> Step:
    """Keep the ConfigMap current, as its certificate is renewed; make the claim once."""
    run_config = config_map.build(world.job, world.settings, world.observed.certificate)
    return Step(apply=(run_config,), create=_claim(world))


def _claim(world: World) -> tuple[Manifest, ...]:
    wanted = world.spec.storage.claim is None
    exists = ("PersistentVolumeClaim", names.volume(world.job.name)) in world.observed.children
    # A claim that goes away later took the work with it: an empty one in its place would hide that.
    if not wanted or exists or world.is_true(conditions.PREPARED):
        return ()
    return (claim.build(world.job, world.settings),)

"""First stage: fetch and check model and datasets."""

from __future__ import annotations

from finetune_operator.api import conditions, names
from finetune_operator.build import prepare_job
from finetune_operator.plan import figures
from finetune_operator.plan.single_job import SingleJob, advance
from finetune_operator.plan.step import Step
from finetune_operator.plan.world import World


def policy(world: World) -> Step | None:
    """Run the prepare Job until Prepared is written; never again after that."""
    if world.is_true(conditions.PREPARED):
        return None
    stage = SingleJob(
        condition=conditions.PREPARED,
        running=conditions.PREPARING,
        doing="fetches and checks the model and the datasets",
        done="the model and the datasets are on the volume and checked",
        name=names.prepare(world.job.name),
        build=lambda: prepare_job.build(world.job, world.settings, has_cache=_has_cache(world)),
        fields=lambda end: {"dataset": figures.dataset(end)},
    )
    return advance(world, stage)


def _has_cache(world: World) -> bool:
    # A pod that mounts a claim which is not there waits for ever; a namespace without the cache does without.
    return ("PersistentVolumeClaim", world.settings.cache.claim) in world.observed.children

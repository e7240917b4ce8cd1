"""Third stage: fold the adapter into the base model."""

from __future__ import annotations

from finetune_operator.api import conditions, names
from finetune_operator.build import merge_job
from finetune_operator.plan import figures
from finetune_operator.plan.single_job import SingleJob, advance
from finetune_operator.plan.step import Step
from finetune_operator.plan.world import World


def policy(world: World) -> Step | None:
    """Run the merge Job, where there is an adapter to merge, until Merged is written."""
    if world.is_true(conditions.MERGED) or not world.spec.wants_merge:
        return None
    stage = SingleJob(
        condition=conditions.MERGED,
        running=conditions.MERGING,
        doing="folds the adapter into the base model",
        done="the merged model is on the volume, and its parity was measured",
        name=names.merge(world.job.name),
        build=lambda: merge_job.build(world.job, world.settings),
        fields=lambda end: {"results": figures.results(world.status.results, end)},
    )
    return advance(world, stage)

"""What is unusual about a job's files and settings and does no harm: said, so that nobody has to wonder."""

from __future__ import annotations

import math
from collections.abc import Iterator

from finetune_operator.api.run import RunConfig
from finetune_trainer.prepare.file_kind import oddities
from finetune_trainer.prepare.job_datasets import datasets_of
from finetune_trainer.prepare.sources import local_files

_FILES = 100
"""Files of a dataset that are looked at; the others will be like them."""
_DEFAULT_EPOCHS = 3


def file_warnings(run: RunConfig) -> Iterator[str]:
    """One line for each kind of oddity of each mounted dataset."""
    for named in datasets_of(run):
        files = local_files(run, named)[:_FILES]
        first = {text: path for path in reversed(files) for text in oddities(path)}
        for text in sorted(first):
            yield f"{named.field}.source: {first[text]} {text}; it is read all the same"


def checkpoint_warnings(run: RunConfig, sequences: int) -> Iterator[str]:
    """A word where training ends before its first checkpoint."""
    steps, every = total_steps(run, sequences), run.spec.checkpoints.steps
    if run.spec.checkpoints.interval.value == "Steps" and every > steps:
        yield (
            f"spec.checkpoints.steps: {every} is more than the {steps} steps of this training, so that a pod that is killed "
            "begins again at step 0; lower it where that matters"
        )


def total_steps(run: RunConfig, sequences: int) -> int:
    """Optimizer steps of the whole training."""
    training, resources = run.spec.training, run.spec.resources
    if training.max_steps is not None:
        return training.max_steps
    micro = training.per_device_batch_size * resources.nodes * max(1, resources.gpus_per_node)
    an_epoch = math.ceil(math.ceil(sequences / micro) / training.gradient_accumulation_steps)
    return math.ceil(an_epoch * float(training.epochs if training.epochs is not None else _DEFAULT_EPOCHS))

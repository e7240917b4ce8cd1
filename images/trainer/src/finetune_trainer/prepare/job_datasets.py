"""The datasets of a job, in the order of their rows."""

from __future__ import annotations

from finetune_operator.api.run import RunConfig
from finetune_trainer.prepare.sources import NamedDataset


def datasets_of(run: RunConfig) -> list[NamedDataset]:
    """Everything that rows come from: the datasets, then the one to evaluate on, if there is one."""
    named = [NamedDataset(f"spec.datasets[{index}]", dataset) for index, dataset in enumerate(run.spec.datasets)]
    evaluation = run.spec.evaluation
    if evaluation is not None and evaluation.dataset is not None:
        named.append(NamedDataset("spec.evaluation.dataset", evaluation.dataset))
    return named

"""What is odd about the rows of a job though it can be trained: told in the log and in report.json."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from finetune_operator.api.run import RunConfig
from finetune_trainer.prepare.oddities import checkpoint_warnings, file_warnings
from finetune_trainer.prepare.parts import Positions
from finetune_trainer.prepare.tally import Tally
from finetune_trainer.store import Table

MOST_TRUNCATED, MOST_REPEATED, MOST_LEAKED = 0.05, 0.01, 0.01
"""Shares of the rows above which it is worth a word."""
FEW_ROWS = 10
"""Below this, nothing but the rows themselves is learnt."""


def warnings_of(
    run: RunConfig, tallies: Sequence[Tally], table: Table, train: Positions, evaluation: Positions, sequences: int
) -> list[str]:
    """One line each: which field, what was found, what to do."""
    lengths = table["length"]
    kept, held_back = train[lengths[train] > 0], evaluation[lengths[evaluation] > 0]
    return [
        *_size_warnings(run, len(kept), sequences),
        *checkpoint_warnings(run, sequences),
        *file_warnings(run),
        *_truncation_warnings(run, tallies),
        *_unlearnt_warnings(table, kept),
        *_special_token_warnings(tallies),
        *_repetition_warnings(table, kept),
        *_leak_warnings(table, kept, held_back),
    ]


def _size_warnings(run: RunConfig, rows: int, sequences: int) -> Iterator[str]:
    if rows < FEW_ROWS:
        yield f"spec.datasets: {rows} rows to train on; fewer than {FEW_ROWS} are learnt by heart rather than from"
    training, resources = run.spec.training, run.spec.resources
    devices = resources.nodes * max(1, resources.gpus_per_node)
    batch = devices * training.per_device_batch_size * training.gradient_accumulation_steps
    if sequences < batch:
        yield (
            f"spec.training: {sequences} sequences are fewer than one global batch of {batch} ({devices} devices x "
            f"perDeviceBatchSize {training.per_device_batch_size} x gradientAccumulationSteps "
            f"{training.gradient_accumulation_steps}), so every epoch is one step on less than a batch; lower either"
        )


def _truncation_warnings(run: RunConfig, tallies: Sequence[Tally]) -> Iterator[str]:
    for tally in tallies:
        if tally.truncated > MOST_TRUNCATED * tally.rows:
            yield (
                f"{tally.spec_field}: {tally.truncated} of {tally.rows} rows ({tally.truncated / tally.rows:.1%}) are longer "
                f"than cutoffLen {run.spec.tokenization.cutoff_len} and were cut; raise tokenization.cutoffLen, or split them"
            )


def _special_token_warnings(tallies: Sequence[Tally]) -> Iterator[str]:
    for tally in tallies:
        if tally.suspects.count:
            listed = ", ".join(tally.suspects.first)
            yield (
                f"{tally.spec_field}: {tally.suspects.count} rows have special tokens in their text, which act as what they "
                f"are, such as the end of a turn ({listed}); take them out unless they are meant"
            )


def _unlearnt_warnings(table: Table, kept: Positions) -> Iterator[str]:
    unlearnt = int((table["trained"][kept] == 0).sum())
    if unlearnt:
        yield (
            f"spec.datasets: {unlearnt} of {len(kept)} rows have nothing left to learn within cutoffLen and are kept as "
            "LLaMA-Factory keeps them; a step that has no other rows has no loss"
        )


def _repetition_warnings(table: Table, kept: Positions) -> Iterator[str]:
    repeated = len(kept) - len(np.unique(table["hash"][kept]))
    if repeated > MOST_REPEATED * len(kept):
        yield (
            f"spec.datasets: {repeated} of {len(kept)} rows ({repeated / len(kept):.1%}) repeat another one token for token; "
            "remove them, unless they are meant to weigh more"
        )


def _leak_warnings(table: Table, kept: Positions, held_back: Positions) -> Iterator[str]:
    leaked = int(np.isin(table["hash"][held_back], table["hash"][kept]).sum())
    if leaked > MOST_LEAKED * len(held_back):
        yield (
            f"spec.evaluation: {leaked} of {len(held_back)} rows ({leaked / len(held_back):.1%}) are trained on as well, so "
            "that the evaluation loss looks better than it is; remove them from the datasets"
        )

"""From the rows of a job's datasets to the sequences that it is trained and evaluated on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune_operator.api.outcome import ExitCode, StageFailure
from finetune_operator.api.run import RunConfig
from finetune_operator.api.tokenization import Packing
from finetune_operator.api.training import Evaluation
from finetune_trainer.prepare.collect import Pace, collect
from finetune_trainer.prepare.job_template import set_up_tokenizer
from finetune_trainer.prepare.journal import Journal
from finetune_trainer.prepare.packing import longest_row
from finetune_trainer.prepare.parts import Positions, tokens_hash, write_part
from finetune_trainer.prepare.report import build_report
from finetune_trainer.prepare.split import split_rows
from finetune_trainer.prepare.tally import Tally, refuse_faults
from finetune_trainer.store import EVALUATION, TRAIN, Table, read_table

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["Tokenised", "set_up_tokenizer", "tokenise"]


@dataclass(frozen=True, slots=True)
class Tokenised:
    """What prepare made of the datasets, beside the files of the store."""

    files: list[str]
    """What ``StoredRow.file`` counts."""
    has_evaluation: bool
    tokens_hash: str
    report: dict[str, Any]


def tokenise(
    run: RunConfig,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    input_hash: str = "",
    pace: Pace | None = None,
) -> Tokenised:
    """Read, check, encode, split and pack, with a tokenizer that is set up; the store's files are left in ``folder``.

    Goes on with what a killed prepare of the same ``input_hash`` left there.

    Raises StageFailure: INVALID_SPEC, SOURCE_UNREACHABLE or INVALID_DATA; OUT_OF_MEMORY where a worker was killed.
    """
    with Journal(folder, input_hash) as journal:
        tallies = collect(run, tokenizer, journal, pace or Pace())
    refuse_faults(tallies)
    table = read_table(folder)
    train, evaluation = _divide(run, tallies, table)
    sequences = [
        write_part(folder / name, order, table["length"], _capacity(run))
        for name, order in ((TRAIN, train), (EVALUATION, evaluation))
        if len(order)
    ]
    report = build_report(run, tallies, table, train, evaluation, sequences[0])
    return Tokenised(journal.files, len(sequences) > 1, tokens_hash(folder), report)


def _capacity(run: RunConfig) -> int | None:
    rules = run.spec.tokenization
    return None if rules.packing is Packing.NONE else longest_row(rules.cutoff_len, packed=True)


def _divide(run: RunConfig, tallies: Sequence[Tally], table: Table) -> tuple[Positions, Positions]:
    """Rows to train and to evaluate on. Dropped rows count for the split, as they do in LLaMA-Factory."""
    count = sum(tally.read for tally in tallies[: len(run.spec.datasets)])
    train, evaluation = np.arange(count), np.arange(count, len(table))
    if run.spec.evaluation is not None and run.spec.evaluation.dataset is None:
        train, evaluation = _split(count, run.spec.evaluation, run.spec.training.seed)
    _refuse_nothing_left(run, tallies, table, train, evaluation)
    return train, evaluation


def _refuse_nothing_left(
    run: RunConfig, tallies: Sequence[Tally], table: Table, train: Positions, evaluation: Positions
) -> None:
    places = "; ".join(place for tally in tallies[: len(run.spec.datasets)] for place in tally.dropped.first[:5])
    if not table["length"][train].any():
        raise StageFailure(ExitCode.INVALID_DATA, f"spec.datasets: no row is left to train on. {places}")
    if not table["trained"][train].any():
        raise StageFailure(
            ExitCode.INVALID_DATA,
            f"spec.datasets: none of the tokens of {int((table['length'][train] > 0).sum())} rows is left to learn within "
            f"cutoffLen {run.spec.tokenization.cutoff_len}; raise tokenization.cutoffLen, or shorten the prompts. {places}",
        )
    if run.spec.evaluation is not None and not table["length"][evaluation].any():
        raise StageFailure(
            ExitCode.INVALID_DATA,
            "spec.evaluation: no row is left to evaluate on; give a larger fraction, or a dataset with usable rows.",
        )


def _split(count: int, evaluation: Evaluation, seed: int) -> tuple[Positions, Positions]:
    field, share = ("rows", evaluation.rows) if evaluation.rows is not None else ("fraction", evaluation.fraction)
    try:
        return split_rows(count, evaluation.rows or float(evaluation.fraction or "0"), seed)
    except ValueError as error:
        raise StageFailure(
            ExitCode.INVALID_DATA,
            f"spec.evaluation.{field}: {share} of {count} rows leaves nothing to train or evaluate on ({error}).",
        ) from error

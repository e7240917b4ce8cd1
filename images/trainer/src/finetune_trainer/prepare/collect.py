"""Reads, checks and encodes every row, in memory that does not grow with them, with all processors."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

from finetune_operator.api.run import RunConfig
from finetune_trainer.prepare.batch_encoder import BatchEncoder
from finetune_trainer.prepare.batches import BATCH_ROWS, Batch, EncodedBatch, batched
from finetune_trainer.prepare.job_datasets import datasets_of
from finetune_trainer.prepare.journal import Journal
from finetune_trainer.prepare.sources import rows_of
from finetune_trainer.prepare.tally import Tally
from finetune_trainer.prepare.workers import Workers, worker_count

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Pace:
    """How the rows are worked through; the tokens are the same at any pace."""

    batch_rows: int = BATCH_ROWS
    own_rows: int = 10_000
    """Rows that this process encodes before it starts workers: in the time that they take to start, it does these."""
    commit_rows: int = 100_000
    commit_tokens: int = 32_000_000
    """A commit comes after either: this much is done again by a prepare that was killed."""
    workers: int = field(default_factory=worker_count)
    """1 stands for no process besides this one."""


SECONDS_A_LINE = 10.0
"""How often the log tells how far it is."""


class _ProgressLine:
    def __init__(self, rows: int) -> None:
        self._begin = self._rows = rows
        self._began = self._said = time.monotonic()

    def advance(self, rows: int) -> None:
        self._rows += rows
        now = time.monotonic()
        if now - self._said >= SECONDS_A_LINE:
            self._said = now
            pace = (self._rows - self._begin) / (now - self._began)
            print(f"prepare: {self._rows} rows read, {pace:.0f} rows/s", flush=True)


def collect(run: RunConfig, tokenizer: PreTrainedTokenizerBase, journal: Journal, pace: Pace) -> list[Tally]:
    """Append the rows of all datasets to the journal; returns what was counted of each dataset.

    Raises StageFailure: SOURCE_UNREACHABLE, INVALID_SPEC, or OUT_OF_MEMORY where a worker was killed.
    """
    tallies = journal.tallies or [Tally(named.field, named.dataset.source) for named in datasets_of(run)]
    done = sum(tally.read for tally in tallies)
    if done:
        print(f"prepare: going on behind the {done} rows that are done", flush=True)
    line = _ProgressLine(done)
    for batch, encoded in _encoded(run, tokenizer, pace, _batches(run, tallies, pace)):
        tallies[batch.dataset].add(batch, encoded)
        journal.append(batch, encoded)
        line.advance(len(batch.rows))
        rows, tokens = journal.uncommitted
        if rows >= pace.commit_rows or tokens >= pace.commit_tokens:
            journal.commit(tallies)
    return tallies


def _batches(run: RunConfig, tallies: list[Tally], pace: Pace) -> Iterator[Batch]:
    """The rows that are not counted yet, dataset by dataset."""
    begun = max((number for number, tally in enumerate(tallies) if tally.read), default=0)
    for number, named in enumerate(datasets_of(run)):
        # Rows are counted in order: with one of a later dataset, all of this one are.
        if number >= begun:
            rows = islice(rows_of(run, named), tallies[number].read, None)
            yield from batched(number, rows, pace.batch_rows)


def _encoded(
    run: RunConfig, tokenizer: PreTrainedTokenizerBase, pace: Pace, batches: Iterator[Batch]
) -> Iterator[tuple[Batch, EncodedBatch]]:
    """Each batch with its tokens: the first ones by this process, the rest by workers if there are any."""
    encoder = BatchEncoder.of(run, tokenizer)
    own = 0
    for batch in batches:
        yield batch, encoder.encode(batch.dataset, batch.rows)
        own += len(batch.rows)
        if own >= pace.own_rows and pace.workers > 1:
            break
    with ExitStack() as stack:
        if (first := next(batches, None)) is not None:
            workers = stack.enter_context(Workers(run, tokenizer, pace.workers))
            yield from workers.encode(_again(first, batches))


def _again(first: Batch, batches: Iterator[Batch]) -> Iterator[Batch]:
    yield first
    yield from batches

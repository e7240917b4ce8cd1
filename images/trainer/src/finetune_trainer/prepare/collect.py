"""Reads, checks and encodes every row; what is wrong is gathered, not raised, so that one pass tells all of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from finetune_operator.api.outcome import ExitCode, StageFailure
from finetune_operator.api.run import RunConfig
from finetune_operator.api.tokenization import Tokenization
from finetune_trainer.prepare.conversation import Conversation, MisorderedRow, RowError
from finetune_trainer.prepare.encoders import EncodedTurn, Encoder, UnstableTemplate
from finetune_trainer.prepare.labels import label_turns
from finetune_trainer.prepare.layouts import conversation_of
from finetune_trainer.prepare.readers import Place, Row
from finetune_trainer.prepare.sources import NamedDataset, rows_of
from finetune_trainer.store import StoredRow

BATCH = 1000
"""Rows that are tokenised at once."""
LISTED = 20
"""Faulty rows that a message spells out; the rest is counted."""


@dataclass(slots=True)
class Collected:
    """The rows of one dataset. ``rows`` has None where a row was dropped, so that positions are those of the file."""

    source: str
    rows: list[StoredRow | None] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    """Rows left out, as place: reason."""
    faults: list[str] = field(default_factory=list)
    """Rows that end the stage, as place: what is wrong."""
    truncated: int = 0
    """Rows that were cut to cutoffLen."""


@dataclass(frozen=True, slots=True)
class Rules:
    """How rows become tokens in this job."""

    tokenization: Tokenization
    longest: int
    """Longest conversation, in tokens."""
    drops_misordered: bool
    """Leave out rows whose turns are out of order, as LLaMA-Factory does, rather than refuse them."""
    closing: int | None = None
    """Token after the last turn of every row, where the template has one."""


class Collector:
    """Encodes datasets one after the other; ``files`` grows with every file that has rows."""

    def __init__(self, run: RunConfig, encoder: Encoder, rules: Rules) -> None:
        self._run = run
        self._encoder = encoder
        self._rules = rules
        self._file_numbers: dict[str, int] = {}

    @property
    def files(self) -> list[str]:
        """Names of the files that rows came from."""
        return list(self._file_numbers)

    def collect(self, named: NamedDataset) -> Collected:
        """Read and encode one dataset."""
        collected = Collected(named.dataset.source)
        for batch in _batches(rows_of(self._run, named)):
            conversations = [self._parse(row, named, collected) for row in batch]
            self._encode(batch, conversations, collected)
        return collected

    def _parse(self, row: Row, named: NamedDataset, collected: Collected) -> Conversation | None:
        try:
            if row.problem is not None:
                raise RowError(row.problem)
            return conversation_of(row.value, named.dataset)
        except RowError as error:
            dropped = isinstance(error, MisorderedRow) and self._rules.drops_misordered
            (collected.dropped if dropped else collected.faults).append(f"{row.place}: {error}")
            return None

    def _encode(self, batch: list[Row], conversations: list[Conversation | None], collected: Collected) -> None:
        encoded = iter(
            self._encoder.encode([conversation for conversation in conversations if conversation is not None])
        )
        for row, conversation in zip(batch, conversations, strict=True):
            collected.rows.append(None if conversation is None else self._stored(row.place, next(encoded), collected))

    def _stored(self, place: Place, turns: list[EncodedTurn] | RowError, collected: Collected) -> StoredRow | None:
        if isinstance(turns, UnstableTemplate):
            raise StageFailure(
                ExitCode.INVALID_SPEC,
                f"spec.tokenization.template: Auto cannot tell the answers apart: {turns} (seen at {place}); name a template.",
            )
        if isinstance(turns, RowError):
            collected.faults.append(f"{place}: {turns}")
            return None
        rules = self._rules
        example = label_turns(turns, rules.tokenization, rules.longest, rules.closing)
        whole = sum(len(prompt) + len(answer) for prompt, answer in turns) + (rules.closing is not None)
        if example.trained == 0:
            limit = self._rules.tokenization.cutoff_len
            collected.dropped.append(f"{place}: none of its {whole} tokens is left to learn within cutoffLen {limit}")
            return None
        collected.truncated += whole > len(example.input_ids)
        return StoredRow(
            np.array(example.input_ids, dtype=np.int32),
            np.array(example.labels, dtype=np.int32),
            self._file_numbers.setdefault(place.file, len(self._file_numbers)),
            place.number if place.is_line else -place.number - 1,
        )


def refuse_faults(collections: Iterable[Collected]) -> None:
    """Raise StageFailure (INVALID_DATA) that lists the faulty rows of all datasets, if there are any."""
    faults = [fault for collected in collections for fault in collected.faults]
    if not faults:
        return
    listed = "\n".join(f"  {fault}" for fault in faults[:LISTED])
    more = f"\n  and {len(faults) - LISTED} more" if len(faults) > LISTED else ""
    rows = "1 row" if len(faults) == 1 else f"{len(faults)} rows"
    raise StageFailure(
        ExitCode.INVALID_DATA,
        f"spec.datasets: {rows} cannot be trained on; correct or remove them:\n{listed}{more}",
        rows=len(faults),
    )


def _batches(rows: Iterator[Row]) -> Iterator[list[Row]]:
    while batch := list(islice(rows, BATCH)):
        yield batch

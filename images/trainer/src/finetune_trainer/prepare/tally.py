"""What is counted of a dataset while its rows go by: memory stays flat, however many of them are at fault."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from finetune_operator.api.outcome import ExitCode, StageFailure
from finetune_trainer.prepare.batches import Batch, EncodedBatch, Note, Verdict

LISTED = 20
"""Faulty rows that a message spells out; the rest is counted."""
MOST_SUSPECTS = 3
"""Rows with special tokens that a warning names; the rest is counted."""
MOST_DROPPED = 10_000
"""Dropped rows that the report names; the rest is counted."""


@dataclass(slots=True)
class Listing:
    """The first of many, and how many there are."""

    limit: int
    count: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, text: str) -> None:
        """Count one, and keep it if there is room."""
        self.count += 1
        if len(self.first) < self.limit:
            self.first.append(text)


@dataclass(slots=True)
class Tally:
    """Counts of one dataset."""

    spec_field: str
    """Field of the spec that names the dataset."""
    source: str
    read: int = 0
    """Rows read; the dataset's part of the store's table is as long."""
    rows: int = 0
    """Rows that are left to train or evaluate on."""
    tokens: int = 0
    trained: int = 0
    truncated: int = 0
    """Rows that were cut to cutoffLen."""
    compatibility: dict[str, int] = field(default_factory=dict)
    """Rows by what LLaMA-Factory's rules did to them."""
    dropped: Listing = field(default_factory=lambda: Listing(MOST_DROPPED))
    """Rows left out, as place: reason."""
    faults: Listing = field(default_factory=lambda: Listing(LISTED))
    """Rows that end the stage, as place: what is wrong."""
    suspects: Listing = field(default_factory=lambda: Listing(MOST_SUSPECTS))
    """Rows with a special token in their text, as place: token."""

    @classmethod
    def load(cls, saved: dict[str, Any]) -> Self:
        """What ``asdict`` made of a tally."""
        listings = {name: Listing(**saved[name]) for name in ("dropped", "faults", "suspects")}
        return cls(**{**saved, **listings})

    def save(self) -> dict[str, Any]:
        """As JSON takes it."""
        return asdict(self)

    def add(self, batch: Batch, encoded: EncodedBatch) -> None:
        """Count a batch. Raises StageFailure where the template does not suit the model."""
        self.read += len(batch.rows)
        self.rows += int((encoded.lengths > 0).sum())
        self.tokens += len(encoded.input_ids)
        self.trained += int(encoded.trained.sum())
        self.truncated += encoded.truncated
        for fault, rows in encoded.faults.items():
            self.compatibility[fault] = self.compatibility.get(fault, 0) + rows
        for note in encoded.notes:
            self._add_note(f"{batch.places[note.index]}", note)

    def _add_note(self, place: str, note: Note) -> None:
        if note.verdict is Verdict.HOPELESS:
            raise StageFailure(
                ExitCode.INVALID_SPEC,
                f"spec.tokenization.template: Auto cannot tell the answers apart: {note.text} (seen at {place}); name a template.",
            )
        listings = {Verdict.DROPPED: self.dropped, Verdict.FAULTY: self.faults, Verdict.SUSPECT: self.suspects}
        listings[note.verdict].add(f"{place}: {note.text}")


def refuse_faults(tallies: Iterable[Tally]) -> None:
    """Raise StageFailure (INVALID_DATA) that lists the faulty rows of all datasets, if there are any."""
    tallies = list(tallies)
    for tally in tallies:
        if not tally.read:
            tally.faults.add(
                f"{tally.spec_field}.source: {tally.source} holds no row, so that no row is left to train on; name a file with rows"
            )
    faults = [tally.faults for tally in tallies]
    count = sum(listing.count for listing in faults)
    if not count:
        return
    named = [fault for listing in faults for fault in listing.first][:LISTED]
    listed = "\n".join(f"  {fault}" for fault in named)
    more = f"\n  and {count - len(named)} more" if count > len(named) else ""
    rows = "1 row" if count == 1 else f"{count} rows"
    raise StageFailure(
        ExitCode.INVALID_DATA,
        f"spec.datasets: {rows} cannot be trained on; correct or remove them:\n{listed}{more}",
        rows=count,
    )

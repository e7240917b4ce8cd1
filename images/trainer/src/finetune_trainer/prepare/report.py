"""report.json: what prepare found in the datasets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from finetune_operator.api.outcome import Figure
from finetune_trainer.prepare.collect import Collected
from finetune_trainer.sequences import IGNORED
from finetune_trainer.store import StoredRow

MOST_DROPPED = 10_000
"""Dropped rows that the report names; the rest is counted."""


def build_report(
    collections: Sequence[Collected], train: Sequence[StoredRow], evaluation: Sequence[StoredRow], sequences: int
) -> dict[str, Any]:
    """The report: totals of what is trained on, dropped rows by place, lengths, and the share of each dataset."""
    dropped = [place for collected in collections for place in collected.dropped]
    return {
        **_totals(train),
        "sequences": sequences,
        "evaluationRows": len(evaluation),
        "dropped": len(dropped),
        "truncated": sum(collected.truncated for collected in collections),
        "lengths": _histogram(train),
        "datasets": [
            {
                "source": collected.source,
                **_totals([row for row in collected.rows if row is not None]),
                "dropped": len(collected.dropped),
                "truncated": collected.truncated,
            }
            for collected in collections
        ],
        "droppedRows": dropped[:MOST_DROPPED],
    }


def figures(report: dict[str, Any]) -> dict[str, Figure]:
    """The figures that the job's status shows."""
    return {
        name: report[name] for name in ("rows", "dropped", "tokens", "trainedTokens", "evaluationRows", "truncated")
    }


def _totals(rows: Sequence[StoredRow]) -> dict[str, int]:
    return {
        "rows": len(rows),
        "tokens": sum(len(row.input_ids) for row in rows),
        "trainedTokens": sum(int((row.labels != IGNORED).sum()) for row in rows),
    }


def _histogram(rows: Sequence[StoredRow]) -> list[dict[str, int]]:
    """Rows by length; each bin reaches up to a power of two, inclusive."""
    bins = Counter(max(16, 1 << (len(row.input_ids) - 1).bit_length()) for row in rows)
    return [{"upTo": limit, "rows": bins[limit]} for limit in sorted(bins)]

"""The pictures of docs/performance.md: a bar a way, a dot a repetition. Equal lines give equal files."""

from __future__ import annotations

import io
from statistics import median
from typing import Any

from report_lines import Line, Table
from report_tables import is_own, title

OWN, OTHER, DOT = "#2a6f97", "#adb5bd", "#212529"
_MEASURES = {
    "train": ("tokens_per_second", "windows", "real tokens a second"),
    "merge": ("seconds", None, "seconds (less is better)"),
    "prepare": ("work_processor_seconds", None, "processor seconds without imports (less is better)"),
    "serve": ("tokens_per_second_at_once", "tokens_per_second_at_once_each", "tokens a second, requests at once"),
}
"""By bench: the figure, where a line holds its repetitions (else each has a line of its own), and its name."""


def drawn(bench: str, table: Table) -> str:
    """The picture of a table, as SVG."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    names, values, repetitions = _bars(bench, table)
    # A salt in place of chance for the ids, and text as text: nothing depends on the time or on fonts of the machine.
    with mpl.rc_context({"svg.hashsalt": "performance", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(8, 0.6 + 0.36 * len(names)), layout="constrained")
        _draw(figure.subplots(), names, values, repetitions, _MEASURES[bench][2])
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return "\n".join(text.rstrip() for text in file.getvalue().splitlines()) + "\n"


def _bars(bench: str, table: Table) -> tuple[list[tuple[str, bool]], list[float], list[list[float]]]:
    figure, each, _ = _MEASURES[bench]
    names, values, repetitions = [], [], []
    for way, lines in table.by_way().items():
        names.append((title(lines[0]), is_own(way)))
        values.append(median(line[figure] for line in lines))
        repetitions.append(_each(lines, figure, each))
    return names, values, repetitions


def _each(lines: list[Line], figure: str, each: str | None) -> list[float]:
    if each is None:
        return [line[figure] for line in lines]
    return [value for line in lines for value in line.get(each, [])]


def _draw(axes: Any, names: list[tuple[str, bool]], values: list[float], each: list[list[float]], label: str) -> None:
    places = range(len(names))
    axes.barh(places, values, color=[OWN if own else OTHER for _, own in names], height=0.7)
    for place, repetitions in zip(places, each, strict=True):
        axes.plot(repetitions, [place] * len(repetitions), ".", color=DOT, markersize=4)
    axes.set_yticks(places, [name for name, _ in names])
    axes.invert_yaxis()
    axes.set_xlabel(label)
    axes.spines[["top", "right"]].set_visible(False)
    for place, value in zip(places, values, strict=True):
        axes.annotate(f" {value:,.0f}" if value >= 100 else f" {value:.1f}", (value, place), va="center")
    axes.margins(x=0.12)

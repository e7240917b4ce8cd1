"""The tables of docs/performance.md, in Markdown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

from report_lines import Line, Table

BENCHES = ("train", "merge", "prepare", "serve")
_NONE = "–"
_PEERS = {"llama-factory": "LLaMA-Factory", "trl": "TRL"}
_PEER_PACKAGES = {"llama-factory": "llamafactory", "trl": "trl"}


def section(bench: str, tables: Sequence[Table], pictures: Sequence[str]) -> str:
    """What stands between a bench's markers: for each work a heading line, a table and a picture."""
    if not tables:
        return f"\nNot measured yet: `python bench/{bench}.py --help`.\n\n"
    parts = [_part(bench, table, picture) for table, picture in zip(tables, pictures, strict=True)]
    return "\n" + "\n".join(parts) + "\n"


def _part(bench: str, table: Table, picture: str) -> str:
    rows = _ROWS[bench](table)
    head = "| " + " | ".join(rows[0]) + " |\n|" + "---|" * len(rows[0]) + "\n"
    body = "".join("| " + " | ".join(row) + " |\n" for row in rows[1:])
    return f"{_heading(bench, table)}\n\n{head}{body}\n![{bench}, {table.key}]({picture})\n"


def _heading(bench: str, table: Table) -> str:
    first = table.lines[0]
    machine = first.get("card") or (f"{first['cores']} cores" if "cores" in first else "H200")
    if first.get("cards", 1) > 1:
        machine = f"a machine with {first['cards']} x {machine}"
    driver = f", driver {first['driver']}" if first.get("driver") else ""
    date = first["at"][:10]
    raw = f"[raw lines](../bench/results/{table.file})"
    return f"**{_TITLES[bench](first)}** — {machine}{driver}, {date}, {raw}:"


def is_own(way: str) -> bool:
    """Whether a way is this project's."""
    return not way.startswith((*_PEERS, "copy", "PEFT", "LLaMA-Factory", "generate"))


def title(line: Line) -> str:
    """A way's name for people."""
    way: str = line["way"]
    if line["bench"] != "train":
        return _OTHER_TITLES.get(way, way)
    for method in ("lora", "fp8"):
        way = way.replace(method, _METHODS[method])
    prefix, _, setting = way.partition(" ")
    if prefix not in _PEERS:
        return f"this trainer: {_capital(way)}"
    version = line.get("versions", {}).get(_PEER_PACKAGES[prefix])
    return f"{_PEERS[prefix]} {version}: {_capital(setting)}" if version else f"{_PEERS[prefix]}: {_capital(setting)}"


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


_METHODS = {"lora": "LoRA", "fp8": "FP8"}
_OTHER_TITLES = {
    "copy": "plain copy of the files",
    "merge": "this merger, the whole stage with its proof",
    "PEFT": "PEFT, merge_and_unload and save_pretrained",
    "prepare": "this prepare stage",
    "LLaMA-Factory": "LLaMA-Factory 0.9.5",
    "server, merged": "this server, merged model",
    "server, adapter": "this server, base model and adapter",
    "generate": "transformers' generate, merged model",
}
_TITLES: dict[str, Callable[[Line], str]] = {
    "train": lambda line: (
        f"{line['shape'].upper()} shape, {line['data']['rows']} rows of {line['data']['median']} tokens (median), at most "
        f"{line['data']['longest']}"
    ),
    "merge": lambda line: f"{line['shape'].upper()} shape, {line['model_bytes'] / 1e9:.1f} GB",
    "prepare": lambda line: (
        f"{line['rows']:,} rows of {line['tokens'] / line['rows']:.0f} tokens, {line['workers']} processes"
    ),
    "serve": lambda line: f"{line['shape'].upper()} shape on {line['device']}, answers of {line['tokens']} tokens",
}


def _train_rows(table: Table) -> list[list[str]]:
    head = ["trainer and setting", "real tokens/s", "spread", "of LLaMA-Factory's best", "first step, s", "peak GiB"]
    return [head, *(_train_row(line, table) for line in table.lines)]


def _train_row(line: Line, table: Table) -> list[str]:
    own = is_own(line["way"])
    pace = f"{line['tokens_per_second']:,.0f}"
    best = _best_peer(line["way"], table)
    return [
        f"**{title(line)}**" if own else title(line),
        f"**{pace}**" if own else pace,
        f"{line['spread']:.1%}" if "spread" in line else _NONE,
        f"{line['tokens_per_second'] / best:.2f}x" if best else _NONE,
        _number(line.get("first_step_seconds"), 1),
        _number(line.get("peak_gib") or line.get("device_peak_gib"), 1),
    ]


def _best_peer(way: str, table: Table) -> float | None:
    """LLaMA-Factory's fastest setting of the same method."""
    method = next((name for name in ("qlora", "lora") if f" {name}" in f" {way}"), None)
    paces = [line["tokens_per_second"] for line in table.lines if line["way"].startswith(f"llama-factory {method}")]
    return max(paces, default=None)


def _merge_rows(table: Table) -> list[list[str]]:
    ways = table.by_way()
    copy = _median(ways["copy"], "seconds") if "copy" in ways else None
    head = ["way", "seconds", "each", "of a plain copy", "files written after, s", "own memory, GiB", "resident, GiB"]
    return [head, *(_merge_row(lines, copy) for lines in ways.values())]


def _merge_row(lines: list[Line], copy: float | None) -> list[str]:
    seconds = _median(lines, "seconds")
    return [
        title(lines[0]),
        f"{seconds:.1f}",
        _each(lines, "seconds", 1),
        f"{seconds / copy:.2f}x" if copy else _NONE,
        _number(lines[-1].get("seconds_until_written"), 1),
        f"{max(line['own_gib'] for line in lines):.2f}",
        f"{max(line['resident_gib'] for line in lines):.2f}",
    ]


def _prepare_rows(table: Table) -> list[list[str]]:
    head = ["way", "seconds", "each", "without imports, s", "of that, processor s", "most GiB"]
    return [head, *(_prepare_row(lines) for lines in table.by_way().values())]


def _prepare_row(lines: list[Line]) -> list[str]:
    return [
        title(lines[0]),
        f"{_median(lines, 'seconds'):.1f}",
        _each(lines, "seconds", 1),
        f"{_median(lines, 'work_seconds'):.1f}",
        f"{_median(lines, 'work_processor_seconds'):.1f}",
        f"{max(line['peak_gib'] for line in lines):.2f}",
    ]


def _serve_rows(table: Table) -> list[list[str]]:
    at_once = table.lines[0]["at_once"]
    head = ["way", "ready, s", "first token, s", "tokens/s", f"tokens/s, {at_once} at once"]
    return [head, *(_serve_row(line) for line in table.lines)]


def _serve_row(line: Line) -> list[str]:
    return [
        title(line),
        _number(line.get("ready_seconds"), 1),
        _number(line["first_token_seconds"], 3),
        _number(line["tokens_per_second"], 1),
        _number(line["tokens_per_second_at_once"], 1),
    ]


_ROWS: dict[str, Callable[[Table], list[list[str]]]] = {
    "train": _train_rows,
    "merge": _merge_rows,
    "prepare": _prepare_rows,
    "serve": _serve_rows,
}


def _number(value: Any, digits: int) -> str:
    return _NONE if value is None else f"{value:,.{digits}f}"


def _median(lines: Sequence[Line], name: str) -> float:
    values: list[float] = [line[name] for line in lines]
    return median(values)


def _each(lines: Sequence[Line], name: str, digits: int) -> str:
    return ", ".join(f"{line[name]:.{digits}f}" for line in lines)

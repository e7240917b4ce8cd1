"""How far a local run is, from the files in its folder."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from finetune_operator.api.run import RunConfig
from finetune_operator.cli.local.folder import is_locked, load_results
from finetune_operator.cli.local.report import result_folder
from finetune_operator.cli.local.stages import stages_of

NOT_FOR_PEOPLE = ("identity",)


def read_log(path: Path) -> list[dict[str, Any]]:
    """Logged steps; a last line that is still being written is left out."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    return list(_parsed(lines))


def _parsed(lines: list[str]) -> Iterator[dict[str, Any]]:
    for line in lines:
        try:
            yield json.loads(line)
        except ValueError:
            continue


def progress(log: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The newest figure of each kind: the lines of a log do not hold all of them."""
    newest: dict[str, Any] = {}
    for entry in log:
        newest.update(entry)
    if not newest:
        return {}
    shown = {"step": f"{newest['current_steps']}/{newest['total_steps']}"}
    names = {"loss": "loss", "eval_loss": "evaluation loss", "epoch": "epoch", "remaining_time": "time left"}
    return shown | {name: newest[key] for key, name in names.items() if key in newest}


def overview(config: RunConfig) -> dict[str, Any]:
    """State of a run as JSON."""
    results = load_results(config)
    left = [stage.name for stage in stages_of(config.spec) if stage.name not in results]
    return {
        "job": config.name,
        "folder": config.root,
        "method": config.spec.method.value,
        "base": config.spec.model.source,
        "running": is_locked(Path(config.root)),
        "stage": left[0] if left else None,
        "progress": progress(read_log(config.paths.trainer_log)),
        "model": None if left else str(result_folder(config)),
        "stages": results,
    }


def overview_lines(config: RunConfig) -> Iterator[str]:
    """State of a run for a person."""
    state = overview(config)
    yield f"Name:      {state['job']} (local run in {state['folder']})"
    yield f"Model:     {state['base']}"
    yield f"Method:    {state['method']}"
    yield f"Status:    {_status(state)}"
    if state["progress"]:
        yield "Progress:  " + ", ".join(f"{name} {value}" for name, value in state["progress"].items())
    for stage, figures in state["stages"].items():
        shown = (f"{name} {value}" for name, value in figures.items() if name not in NOT_FOR_PEOPLE)
        yield f"{stage + ':':<11}" + ", ".join(shown)
    yield f"Next:      {_next(state)}"


def _status(state: dict[str, Any]) -> str:
    if state["stage"] is None:
        return "finished"
    return f"{state['stage']} runs" if state["running"] else f"stopped before the end of {state['stage']}"


def _next(state: dict[str, Any]) -> str:
    if state["stage"] is None:
        return f"`finetune chat {state['folder']}` talks to it"
    return "wait for it" if state["running"] else "the same `finetune run` goes on where it stopped"

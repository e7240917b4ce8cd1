"""What ``finetune run`` says about a finished job."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from finetune_operator.api.run import RunConfig
from finetune_operator.cli.local.folder import load_results


def summary(config: RunConfig) -> dict[str, Any]:
    """Everything about a finished job as JSON."""
    return {
        "job": config.name,
        "folder": config.root,
        "model": str(result_folder(config)),
        "stages": load_results(config),
        "failed": None,
    }


def result_folder(config: RunConfig) -> Path:
    """The model that came out: merged, tuned, or the adapter."""
    if config.spec.wants_merge:
        return config.paths.merged
    return config.paths.adapter if config.spec.is_adapter else config.paths.model


def closing_lines(config: RunConfig) -> Iterator[str]:
    """Where the results lie and what to do with them."""
    yield f"  model    {result_folder(config)}"
    yield f"  report   {config.paths.report}"
    if config.paths.loss_plot.exists():
        yield f"  loss     {config.paths.loss_plot}"
    yield f"  chat     finetune chat {config.root}"

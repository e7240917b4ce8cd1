"""What the command line and the environment add to the files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from finetune_operator.api.source import Scheme

WANDB_PROJECT = "llamafactory"
"""Project that LLaMA-Factory reports to where none is named."""
MLFLOW_EXPERIMENT = "Default"
"""And MLflow's own experiment."""
_YES = ("1", "true", "y")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to convert."""

    dataset_dir: str | None = None
    """Folder with dataset_info.json, for all files; None goes by each file's dataset_dir."""
    hub: Scheme = Scheme.HUGGING_FACE
    """Hub that names without a folder of their own are looked up on."""
    placeholders: Mapping[str, str] = field(default_factory=dict)
    """Text for {{key}} in rows."""
    gpus: int | None = None
    """GPUs for each node; None goes by the files."""
    nodes: int = 1
    wandb_project: str = WANDB_PROJECT
    mlflow_uri: str | None = None
    mlflow_experiment: str = MLFLOW_EXPERIMENT


def is_yes(text: str | None) -> bool:
    """Whether an environment variable is switched on, as LLaMA-Factory reads it."""
    return (text or "").lower() in _YES

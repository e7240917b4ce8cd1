"""The folder that the engine loads, named after the job: `transformers serve` calls a model by the path it was given."""

from __future__ import annotations

from pathlib import Path

from finetune_operator.api.outcome import ExitCode, StageFailure
from finetune_operator.api.run import RunConfig

ADAPTER_CONFIG = "adapter_config.json"
_TOKENIZER_MARK = "tokenizer_config.json"
_TOKENIZER = (
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.model",
    "chat_template*",
)


def make_served_folder(run: RunConfig, scratch: Path) -> Path:
    """Make ``scratch/<job's name>``: a link to the model, or the adapter put together with what it lacks of its base model.

    Raises StageFailure (MODEL_UNUSABLE) where the model is not there.
    """
    source = run.paths.served_model(run.spec)
    served = scratch / run.name
    if source == run.paths.adapter:
        _put_together(source, run.paths.base_model, served)
    else:
        _require(source / "config.json")
        served.symlink_to(source)
    return served


def _put_together(adapter: Path, base: Path, served: Path) -> None:
    """Link the adapter's files and, where it has none of that name, the base model's: transformers loads them as one."""
    _require(adapter / ADAPTER_CONFIG)
    _require(base / "config.json")
    served.mkdir()
    _link(adapter, served)
    # Files of two tokenizers must not be mixed: the adapter's is the one it was trained with.
    _link(base, served, leave=_TOKENIZER if (adapter / _TOKENIZER_MARK).exists() else ())


def _link(source: Path, target: Path, leave: tuple[str, ...] = ()) -> None:
    for path in source.iterdir():
        if not (target / path.name).exists() and not any(path.match(pattern) for pattern in leave):
            (target / path.name).symlink_to(path.resolve())


def _require(path: Path) -> None:
    if not path.is_file():
        raise StageFailure(
            ExitCode.MODEL_UNUSABLE,
            f"{path} is missing: there is no trained model to serve; look at the job's Trained and Merged conditions.",
        )

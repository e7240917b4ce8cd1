"""The base model without its weights: built on the meta device, where even hundreds of gigabytes take a moment and no memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Shapes = Mapping[str, tuple[int, ...]]


def build_skeleton(folder: Path, problems: list[str]) -> PreTrainedModel | None:
    """The model that config.json describes; None, and why, where transformers cannot build it."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        with torch.device("meta"):
            model: PreTrainedModel = AutoModelForCausalLM.from_config(
                AutoConfig.from_pretrained(folder, trust_remote_code=False)
            )
    # Each architecture refuses what it does not take in its own way.
    except Exception as error:
        cause = (str(error).splitlines() or [""])[0]
        problems.append(
            f"transformers cannot build the model from config.json ({type(error).__name__}: {cause}); copy the model "
            "again, or use one that this version of transformers knows"
        )
        return None
    return model


def mismatches(model: PreTrainedModel, shapes: Shapes) -> Iterator[str]:
    """Where the weights are not those of the model that config.json describes.

    transformers would fill in what is missing with random numbers, and training would begin from those.
    """
    wanted = {_bare(name, model.base_model_prefix): tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {_bare(name, model.base_model_prefix): shape for name, shape in shapes.items()}
    other = sorted(name for name in wanted.keys() & found.keys() if wanted[name] != found[name])
    if other:
        name = other[0]
        yield (
            f"the weights do not fit config.json: {len(other)} tensors have another shape, such as {name}, found "
            f"{list(found[name])}, expected {list(wanted[name])}; copy config.json and weights from one model"
        )
    # Names of a scheme that transformers converts while it loads are no faults: only gaps in a series are.
    missing = sorted(_gaps(wanted, found)) + _missing_head(model, wanted, found)
    if missing:
        yield (
            f"the weights lack {len(missing)} tensors that config.json asks for, such as {missing[0]}; copy config.json and "
            "weights from one model"
        )
    surplus = sorted(_gaps(found, wanted))
    if surplus:
        yield (
            f"the weights have {len(surplus)} tensors that config.json does not ask for, such as {surplus[0]}; copy "
            "config.json and weights from one model"
        )


def _bare(name: str, prefix: str) -> str:
    return name.removeprefix(f"{prefix}.") if prefix else name


def _series(name: str) -> str:
    return ".".join("*" if part.isdigit() else part for part in name.split("."))


def _gaps(names: Shapes, others: Shapes) -> Iterator[str]:
    """Names that the others lack though they have members of the same series, such as another layer's."""
    known = {_series(name) for name in others}
    return (name for name in names if name not in others and "*" in _series(name) and _series(name) in known)


def _missing_head(model: PreTrainedModel, wanted: Shapes, found: Shapes) -> list[str]:
    if getattr(model.config.get_text_config(), "tie_word_embeddings", False):
        return []
    return [name for name in ("lm_head.weight",) if name in wanted and name not in found]

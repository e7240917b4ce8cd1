"""Reads the headers of safetensors files: names and shapes of all tensors, without their data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from finetune_operator.api.weights import SHARD

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
_PICKLES = frozenset({".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".npy", ".npz"})
"""Suffixes of files that can run code when they are loaded."""
_EMBEDDINGS = (
    "embed_tokens.weight",
    "wte.weight",
    "word_embeddings.weight",
    "embed_in.weight",
    "tok_embeddings.weight",
)


class WeightsError(Exception):
    """The weights cannot be used; ``problems`` says why, one sentence each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


def read_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor of the model. Raises WeightsError with everything that is wrong with the files."""
    if (folder / INDEX).is_file():
        return _indexed_shapes(folder)
    if (folder / SINGLE).is_file():
        problems: list[str] = []
        shapes = _file_shapes(folder / SINGLE, problems)
        if problems:
            raise WeightsError(problems)
        return shapes
    pickled = sorted(path.name for path in folder.iterdir() if path.suffix in _PICKLES)
    found = f"found only {', '.join(pickled[:3])}, which can run code when loaded" if pickled else "found no weights"
    raise WeightsError([f"{SINGLE} is missing ({found}); convert the weights to safetensors"])


def file_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor of one file. Raises WeightsError."""
    problems: list[str] = []
    shapes = _file_shapes(path, problems)
    if problems:
        raise WeightsError(problems)
    return shapes


def embedding_rows(shapes: Mapping[str, tuple[int, ...]]) -> int | None:
    """Rows of the input embedding, or None where no tensor has a name that is known for it."""
    return next((shape[0] for name, shape in shapes.items() if name.endswith(_EMBEDDINGS)), None)


def _indexed_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    try:
        index = json.loads((folder / INDEX).read_bytes())
        weight_map: dict[str, str] = dict(index["weight_map"])
        # transformers loads no index without it, whatever it holds.
        dict(index["metadata"])
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsError([f"{INDEX} is damaged ({error!r}); copy the model again"]) from error
    problems: list[str] = []
    shapes: dict[str, tuple[int, ...]] = {}
    if other := sorted({str(name) for name in weight_map.values() if not SHARD.fullmatch(str(name))}):
        raise WeightsError([f"{INDEX} names {other[0]!r}, expected safetensors files beside it; copy the model again"])
    for name in sorted(set(weight_map.values())):
        held = _file_shapes(folder / name, problems)
        promised = {tensor for tensor, file in weight_map.items() if file == name}
        if held and (missing := sorted(promised - held.keys())):
            problems.append(
                f"{name} lacks {len(missing)} tensors that {INDEX} promises, such as {missing[0]}; copy it again"
            )
        shapes |= held
    if problems:
        raise WeightsError(problems)
    return shapes


def _file_shapes(path: Path, problems: list[str]) -> dict[str, tuple[int, ...]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 - not a dict
    except FileNotFoundError:
        problems.append(f"{path.name} is missing; copy the model again")
    except (SafetensorError, OSError) as error:
        problems.append(f"{path.name} is not a whole safetensors file ({error}); copy it again")
    return {}

"""Which tensors the merged model holds, in which number format, and in which file."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from finetune_merger.adapter import Adapter
from finetune_merger.checkpoint import FLOATS, FORMATS, SINGLE_FILE, Checkpoint
from finetune_operator.api.delivery import MergeDtype
from finetune_operator.api.outcome import ExitCode, StageFailure

_UNITS = {"MB": 10**6, "GB": 10**9}
_FORMATS = {MergeDtype.BF16: "BF16", MergeDtype.FP16: "F16", MergeDtype.FP32: "F32"}


@dataclass(frozen=True, slots=True)
class Slot:
    """One tensor of the merged model."""

    name: str
    source: str
    """Tensor of the base model that it is made from: its own name, or that of the one it was tied to."""
    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Bytes of the tensor."""
        return math.prod(self.shape) * FORMATS[self.dtype].itemsize


@dataclass(frozen=True, slots=True)
class Layout:
    """The merged model's files."""

    files: Mapping[str, Sequence[Slot]]
    unties: bool
    """The adapter changes one side of tied embeddings: both are written, and the configuration must no longer tie them."""

    @property
    def size(self) -> int:
        """Bytes of all tensors."""
        return sum(slot.size for slots in self.files.values() for slot in slots)


def lay_out(
    base: Checkpoint, adapter: Adapter, ties: Mapping[str, str], dtype: MergeDtype, max_shard_size: str
) -> Layout:
    """Plan the merged model. ``ties`` maps a tensor's name to that of the one it shares its values with.

    Raises StageFailure (MODEL_UNUSABLE) where the adapter does not fit the base model, with everything that does not fit.
    """
    touched = adapter.touched
    untied = {
        alias: source for alias, source in ties.items() if alias not in base.tensors and touched & {alias, source}
    }
    slots = [
        Slot(name, source, _format(base.tensors[source].dtype, dtype), base.tensors[source].shape)
        for name, source in [*((name, name) for name in base.tensors), *untied.items()]
    ]
    _check_fit(base, adapter, slots)
    return Layout(_files(slots, _bytes(max_shard_size)), unties=bool(untied))


def _format(stored: str, wanted: MergeDtype) -> str:
    return _FORMATS.get(wanted, stored) if stored in FLOATS else stored


def _check_fit(base: Checkpoint, adapter: Adapter, slots: Iterable[Slot]) -> None:
    shapes = {slot.name: slot.shape for slot in slots}
    wanted: dict[str, tuple[int, ...]] = {name: update.shape for name, update in adapter.updates.items()}
    wanted |= {name: tuple(tensor.shape) for name, tensor in adapter.replacements.items()}
    problems = [f"{name} is not in the base model" for name in wanted if name not in shapes]
    problems += [
        f"{name} is {shapes[name]} in the base model and {shape} in the adapter"
        for name, shape in wanted.items()
        if name in shapes and shapes[name] != shape
    ]
    problems += [
        f"{slot.name} is stored as {slot.dtype}, not as one of {', '.join(FLOATS)}"
        for slot in slots
        if slot.name in wanted and slot.dtype not in FLOATS
    ]
    if problems:
        raise StageFailure(
            ExitCode.MODEL_UNUSABLE,
            f"the adapter does not fit the base model in {base.folder}: {'; '.join(problems[:5])}"
            f"{f' and {len(problems) - 5} more' if len(problems) > 5 else ''}. "
            "Merge with the model that the adapter was trained on, or serve it un-merged.",
        )


def _files(slots: Sequence[Slot], limit: int) -> dict[str, list[Slot]]:
    """Fill files in order, none over the limit unless one tensor alone is."""
    shards: list[list[Slot]] = [[]]
    filled = 0
    for slot in slots:
        if shards[-1] and filled + slot.size > limit:
            shards.append([])
            filled = 0
        shards[-1].append(slot)
        filled += slot.size
    if len(shards) == 1:
        return {SINGLE_FILE: shards[0]}
    return {f"model-{number:05d}-of-{len(shards):05d}.safetensors": shard for number, shard in enumerate(shards, 1)}


def _bytes(size: str) -> int:
    return int(size[:-2]) * _UNITS[size[-2:]]

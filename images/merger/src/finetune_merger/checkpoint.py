"""A Hugging Face model folder in safetensors, read tensor by tensor so that no file is ever held in memory."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from safetensors import SafetensorError, safe_open

from finetune_merger.rows import CPU, Rows
from finetune_operator.api.outcome import ExitCode, StageFailure
from finetune_operator.api.weights import SHARD

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"

FORMATS = {
    "BOOL": torch.bool, "U8": torch.uint8, "I8": torch.int8, "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2, "F8_E8M0": torch.float8_e8m0fnu, "U16": torch.uint16, "I16": torch.int16,
    "F16": torch.float16, "BF16": torch.bfloat16, "U32": torch.uint32, "I32": torch.int32, "F32": torch.float32,
    "U64": torch.uint64, "I64": torch.int64, "F64": torch.float64, "C64": torch.complex64,
}  # fmt: skip
"""Number formats of tensors, as safetensors names them."""

FLOATS = {name: FORMATS[name] for name in ("F32", "F16", "BF16")}
"""Number formats that an adapter can be folded into."""


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """What a header says of one tensor."""

    file: str
    dtype: str
    shape: tuple[int, ...]
    start: int = 0
    """Its first byte in the file."""

    @property
    def size(self) -> int:
        """Bytes of the tensor."""
        return math.prod(self.shape) * FORMATS[self.dtype].itemsize


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Every tensor of a model folder, by name, in the order of its files."""

    folder: Path
    tensors: dict[str, TensorInfo]
    device: torch.device = CPU
    """Where tensors are put that are read."""

    @classmethod
    def open(cls, folder: Path, device: torch.device = CPU) -> Checkpoint:
        """Read the headers. Raises StageFailure (MODEL_UNUSABLE) where the folder is no safetensors model."""
        tensors: dict[str, TensorInfo] = {}
        for file in _files(folder):
            try:
                tensors.update(_header(folder, file))
            except (OSError, SafetensorError, KeyError) as error:
                raise StageFailure(
                    ExitCode.MODEL_UNUSABLE,
                    f"{folder / file}: not a readable safetensors file ({error}); fetch the model again.",
                ) from error
        return cls(folder, tensors, device)

    @contextmanager
    def view(self, name: str) -> Iterator[Rows]:
        """A lazy view of one tensor in one of FLOATS: ``view[a:b]`` reads rows a to b."""
        info = self.tensors[name]
        with self._open(info.file) as file:
            yield Rows(file.fileno(), info.start, FLOATS[info.dtype], info.shape, self.device)

    def load(self, name: str) -> torch.Tensor:
        """One whole tensor."""
        info = self.tensors[name]
        with self._open(info.file) as file:
            # As one row, for a tensor may have no dimension.
            rows = Rows(file.fileno(), info.start, FORMATS[info.dtype], (1, *info.shape), self.device)
            return rows[0:1].view(info.shape)

    def _open(self, file: str) -> IO[bytes]:
        return (self.folder / file).open("rb")

    def config(self) -> dict[str, Any]:
        """config.json. Raises StageFailure (MODEL_UNUSABLE) where it is missing or no JSON object."""
        path = self.folder / "config.json"
        try:
            parsed: dict[str, Any] = dict(json.loads(path.read_bytes()))
        except (OSError, ValueError, TypeError) as error:
            raise StageFailure(
                ExitCode.MODEL_UNUSABLE, f"{path}: not a model configuration ({error}); fetch the model again."
            ) from error
        return parsed


def _files(folder: Path) -> list[str]:
    index = folder / INDEX_FILE
    if index.exists():
        return _named(index)
    if (folder / SINGLE_FILE).exists():
        return [SINGLE_FILE]
    raise StageFailure(
        ExitCode.MODEL_UNUSABLE,
        f"{folder}: found neither {INDEX_FILE} nor {SINGLE_FILE}; merging needs a base model in safetensors.",
    )


def _named(index: Path) -> list[str]:
    try:
        names = [str(name) for name in json.loads(index.read_bytes())["weight_map"].values()]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StageFailure(
            ExitCode.MODEL_UNUSABLE, f"{index}: not an index ({error!r}); fetch the model again."
        ) from error
    if other := sorted(name for name in names if not SHARD.fullmatch(name)):
        raise StageFailure(
            ExitCode.MODEL_UNUSABLE,
            f"{index}: names {other[0]!r}, expected safetensors files beside it; fetch the model again.",
        )
    # Numbered in the model's order; an index names its tensors in the alphabet's.
    return sorted(set(names))


def _header(folder: Path, file: str) -> dict[str, TensorInfo]:
    with safe_open(folder / file, framework="pt") as opened:
        starts = _starts(folder / file)
        views = {name: opened.get_slice(name) for name in opened.offset_keys()}
        return {
            name: TensorInfo(file, view.get_dtype(), tuple(view.get_shape()), starts[name])
            for name, view in views.items()
        }


def _starts(path: Path) -> dict[str, int]:
    """First byte of each tensor of a file that the library has checked: it does not tell them."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    return {name: 8 + length + entry["data_offsets"][0] for name, entry in header.items() if name != "__metadata__"}

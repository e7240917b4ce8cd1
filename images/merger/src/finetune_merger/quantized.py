"""The base model as QLoRA trained on it: its linear layers quantised by bitsandbytes and made dense again."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from finetune_merger.checkpoint import Checkpoint, TensorInfo
from finetune_merger.rows import RowReader, spans
from finetune_operator.api.method import Quantization

_GROUP = 64
"""Weights that share a scale: the default of bitsandbytes' Params4bit, with which transformers loads."""
_NESTED_GROUP = 256
"""Scales that share a scale, where they are quantised as well (bitsandbytes.functional.quantize_4bit)."""
_BLOCK = 1 << 20
"""Elements quantised at a time."""


@dataclass(frozen=True, slots=True)
class Dequantized:
    """The tensors of a base model with the values that they have in QLoRA's forward pass.

    Every value is bitsandbytes' own: each tensor is quantised and made dense by its functions, a block of rows at a time.
    """

    base: Checkpoint
    names: frozenset[str]
    """Tensors that are quantised."""
    quantization: Quantization

    @property
    def folder(self) -> Path:
        """Folder of the base model."""
        return self.base.folder

    @property
    def device(self) -> torch.device:
        """Where tensors are put that are read."""
        return self.base.device

    @property
    def tensors(self) -> dict[str, TensorInfo]:
        """The base model's tensors; those of 8 bits come in fp32."""
        return self.base.tensors

    @contextmanager
    def view(self, name: str) -> Iterator[RowReader]:
        """A lazy view of one tensor: ``view[a:b]`` gives rows a to b."""
        with self.base.view(name) as rows:
            if name not in self.names:
                yield rows
            elif self.quantization.bits == 8:
                yield _EightBit(rows)
            else:
                yield _quantized(rows, self.base.tensors[name].shape, self.quantization)

    def load(self, name: str) -> torch.Tensor:
        """One whole tensor."""
        if name not in self.names:
            return self.base.load(name)
        with self.view(name) as rows:
            return rows[:]


@dataclass(frozen=True, slots=True)
class _EightBit:
    """LLM.int8() (arXiv 2208.07339): a scale for each row, taken of the weights in fp16."""

    rows: RowReader

    def __getitem__(self, wanted: slice, /) -> torch.Tensor:
        functional = _bitsandbytes()
        whole, scales, _ = functional.int8_vectorwise_quant(self.rows[wanted].half())
        dense: torch.Tensor = functional.int8_vectorwise_dequant(whole, scales)
        return dense


@dataclass(frozen=True, slots=True)
class _FourBit:
    """NF4 or FP4 (arXiv 2305.14314): a scale for every 64 weights, counted through all rows."""

    packed: torch.Tensor
    """Two weights a byte, (weights / 2,)."""
    scales: torch.Tensor
    """(groups,), as they are after their own quantisation."""
    shape: tuple[int, ...]
    dtype: torch.dtype
    kind: str

    def __getitem__(self, wanted: slice, /) -> torch.Tensor:
        functional = _bitsandbytes()
        first, last, _ = wanted.indices(self.shape[0])
        width = math.prod(self.shape[1:])
        # Rows need not begin with a group.
        start = first * width // _GROUP * _GROUP
        stop = min(-(-last * width // _GROUP) * _GROUP, self.shape[0] * width)
        state = functional.QuantState(
            absmax=self.scales[start // _GROUP : -(-stop // _GROUP)],
            shape=(stop - start,),
            dtype=self.dtype,
            blocksize=_GROUP,
            quant_type=self.kind,
        )
        dense: torch.Tensor = functional.dequantize_4bit(self.packed[start // 2 : (stop + 1) // 2], state)
        return dense.view(-1)[first * width - start : last * width - start].view(last - first, *self.shape[1:])


def _quantized(rows: RowReader, shape: tuple[int, ...], quantization: Quantization) -> _FourBit:
    functional = _bitsandbytes()
    kind = quantization.type.value.lower()
    # As many rows at a time as hold whole groups.
    together = _GROUP // math.gcd(_GROUP, math.prod(shape[1:]))
    packed, scales = [], []
    for start, stop in spans((-(-shape[0] // together), together, *shape[1:]), _BLOCK):
        block = rows[start * together : min(stop * together, shape[0])]
        bits, state = functional.quantize_4bit(block.contiguous(), blocksize=_GROUP, quant_type=kind)
        packed.append(bits.view(-1))
        scales.append(state.absmax)
        dtype = block.dtype
    whole = torch.cat(scales)
    if quantization.double_quantization:
        offset = whole.mean()
        nested = functional.quantize_blockwise(whole - offset, blocksize=_NESTED_GROUP)
        whole = functional.dequantize_blockwise(*nested) + offset
    return _FourBit(torch.cat(packed), whole, shape, dtype, kind)


def _bitsandbytes() -> Any:
    # Imported late: it is slow to import, and most jobs do without. It warns of kernels that are not needed here.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    from bitsandbytes import functional

    return functional

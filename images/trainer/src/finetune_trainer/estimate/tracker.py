"""Follows every tensor of a computation that is only acted out, and knows how much would be alive at the worst moment."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from finetune_trainer.estimate.parts import Part

_MOVING = (Part.ACTIVATIONS, Part.LOGITS)


class MemoryTracker(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of the storages that operations make, until Python and autograd let go of them.

    Used with FakeTensorMode, where tensors have shapes and life spans but no numbers. A storage belongs to the part that
    is current when it is made; tensors whose last dimension is ``vocabulary`` are logits.
    """

    def __init__(self, vocabulary: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._vocabulary = vocabulary
        self._part = Part.ACTIVATIONS
        self._alive: dict[int, tuple[Any, Part, int]] = {}
        self.now: Counter[Part] = Counter()
        """What is alive."""
        self._bytes = 0
        self.peaks: dict[str, Mapping[Part, int]] = {}
        """What was alive when most was, by phase."""
        self.moving_peaks: dict[str, Mapping[Part, int]] = {}
        """What was alive when most was of what comes and goes: activations and logits."""
        self.begin("start")

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = operation(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, Tensor):
                self._see(leaf)
        return made

    def begin(self, phase: str) -> None:
        """Keep the peaks of what follows apart. A phase is longer, not different, in a model with more layers."""
        self._phase, self._most, self._most_moving = phase, 0, 0

    @contextmanager
    def counting_as(self, part: Part) -> Iterator[None]:
        """What is made meanwhile belongs to ``part``."""
        before, self._part = self._part, part
        try:
            yield
        finally:
            self._part = before

    def assign(self, tensor: Tensor, part: Part) -> None:
        """Count a tensor under ``part``, whether it is known already or not."""
        key = id(tensor.untyped_storage())
        if key not in self._alive:
            with self.counting_as(part):
                self._see(tensor)
            return
        reference, before, size = self._alive[key]
        self._alive[key] = (reference, part, size)
        self.now[before] -= size
        self.now[part] += size

    def _see(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = id(storage)
        if key in self._alive:
            return
        part, size = self._part_of(tensor), storage.nbytes()
        self._alive[key] = (weakref.ref(storage, lambda _: self._forget(key)), part, size)
        self.now[part] += size
        self._bytes += size
        if self._bytes > self._most:
            self._most, self.peaks[self._phase] = self._bytes, dict(self.now)
        moving = sum(self.now[kind] for kind in _MOVING)
        if moving > self._most_moving:
            self._most_moving, self.moving_peaks[self._phase] = moving, dict(self.now)

    def _forget(self, key: int) -> None:
        _, part, size = self._alive.pop(key)
        self.now[part] -= size
        self._bytes -= size

    def _part_of(self, tensor: Tensor) -> Part:
        is_logits = tensor.dim() > 1 and tensor.shape[-1] == self._vocabulary and self._part is Part.ACTIVATIONS
        return Part.LOGITS if is_logits and torch.is_floating_point(tensor) else self._part

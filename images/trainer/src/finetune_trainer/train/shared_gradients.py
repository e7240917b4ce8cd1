"""Several processes that each update a part of the weights (ZeRO's stage 2, arXiv 1910.02054, by whole tensors).

A gradient is sent to the process that updates its weight while the backward pass goes on, in bf16 as it was made, and is
added up there in float32: each number is rounded once, as on one GPU. Moments and remainders exist once in all.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed, nn

from finetune_trainer.train.gradient_sums import GradientSums

_PIECE = 32 << 20
"""Numbers that are sent at a time: the owner holds one piece from every process."""
_AT_ONCE = 4
"""Pieces under way: the next is made while one travels."""
_ROUND = 64 << 20
"""Numbers of one process that are given back at a time."""


def owners(sizes: Sequence[int], processes: int) -> list[int]:
    """The process that updates each tensor: the largest first, each to the one that has least so far."""
    held = [0] * processes
    found = [0] * len(sizes)
    for number in sorted(range(len(sizes)), key=lambda number: -sizes[number]):
        owner = held.index(min(held))
        found[number] = owner
        held[owner] += sizes[number]
    return found


def exchange_bytes(processes: int) -> int:
    """Memory of the pieces that are under way at a time."""
    return (_AT_ONCE + 1) * _PIECE * torch.bfloat16.itemsize * processes


@dataclass(frozen=True, slots=True)
class _Piece:
    """Part of a gradient that is on its way to its owner."""

    work: Any
    sent: Tensor
    received: list[Tensor] | None
    """One from each process, at the owner."""
    total: Tensor | None
    """Where the owner wants their mean."""


class SharedGradients(GradientSums):
    """Gives each process the mean, over all processes, of the gradients of the parameters that it owns."""

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        super().__init__(parameters)
        self._processes, self._rank = distributed.get_world_size(), distributed.get_rank()
        found = owners([parameter.numel() for parameter in self.parameters], self._processes)
        self._owners = dict(zip(self.parameters, found, strict=True))
        # About as they are made, and the same in all processes, whichever of two is ready first in one of them.
        self._order = tuple(reversed(self.parameters))
        self._made: set[nn.Parameter] = set()
        self._sent = 0
        self._under_way: deque[_Piece] = deque()
        self._given: list[Any] = []
        self._rounds = tuple(_rounds(self._owners, self._processes))

    @property
    def rounds(self) -> Sequence[Sequence[nn.Parameter]]:
        """Some parameters of every process."""
        return self._rounds

    def owns(self, parameter: nn.Parameter) -> bool:
        """Whether it is this process that updates the parameter."""
        return self._owners[parameter] == self._rank

    @contextmanager
    def taking(self, *, is_last: bool, is_only: bool) -> Iterator[None]:
        """As alone; in a step's last pass, gradients are sent to their owners as they are made."""
        if not is_last:
            with super().taking(is_last=False, is_only=False):
                yield
            return
        if self._sent:
            raise RuntimeError("the gradients of this step have been sent already; a step has one last pass")
        with self._watching(self._send_those_made):
            yield
        while self._sent < len(self._order):
            self._send_next()
        while self._under_way:
            self._settle(self._under_way.popleft())

    def gradient(self, parameter: nn.Parameter) -> Tensor | None:
        """The mean, of a parameter that this process owns."""
        return self._sums.get(parameter)

    def over_processes(self, squares: Tensor) -> Tensor:
        """Their sum."""
        distributed.all_reduce(squares)
        return squares

    def give_back(self, updated: Sequence[nn.Parameter]) -> None:
        """Send those that this process owns to all others, and begin to receive the rest."""
        others = [rank for rank in range(self._processes) if rank != self._rank]
        exchanged = [
            distributed.P2POp(distributed.isend, parameter.data, other)
            if self.owns(parameter)
            else distributed.P2POp(distributed.irecv, parameter.data, self._owners[parameter])
            for parameter in updated
            for other in (others if self.owns(parameter) else others[:1])
        ]
        self._given += distributed.batch_isend_irecv(exchanged) if exchanged else []

    def clear(self) -> None:
        """Forget the means, and wait for the parameters."""
        for work in self._given:
            work.wait()
        self._given.clear()
        self._made.clear()
        self._sent = 0
        super().clear()

    def _send_those_made(self, parameter: Tensor) -> None:
        assert isinstance(parameter, nn.Parameter)  # noqa: S101  # the hook's promise
        self._made.add(parameter)
        while self._sent < len(self._order) and self._order[self._sent] in self._made:
            self._send_next()

    def _send_next(self) -> None:
        parameter = self._order[self._sent]
        self._sent += 1
        gradient = self._taken(parameter).view(-1)
        total: Tensor | None = None
        if self.owns(parameter):
            self._sums[parameter] = torch.empty_like(parameter, dtype=torch.float32)
            total = self._sums[parameter].view(-1)
        for start in range(0, len(gradient), _PIECE):
            span = slice(start, start + _PIECE)
            self._send(gradient[span], None if total is None else total[span], self._owners[parameter])

    def _send(self, piece: Tensor, total: Tensor | None, owner: int) -> None:
        received = None if total is None else [torch.empty_like(piece) for _ in range(self._processes)]
        work = distributed.gather(piece, received, dst=owner, async_op=True)
        self._under_way.append(_Piece(work, piece, received, total))
        if len(self._under_way) > _AT_ONCE:
            self._settle(self._under_way.popleft())

    def _settle(self, piece: _Piece) -> None:
        piece.work.wait()
        if piece.received is not None and piece.total is not None:
            first, *others = piece.received
            piece.total.copy_(first)
            for other in others:
                piece.total.add_(other)
            piece.total.div_(self._processes)

    def _taken(self, parameter: nn.Parameter) -> Tensor:
        """This process's gradient, sums of earlier passes included, in the parameter's format."""
        if parameter.grad is not None and parameter in self._sums:
            self._add(parameter)
        found = self._sums.pop(parameter, parameter.grad)
        parameter.grad = None
        return torch.zeros_like(parameter) if found is None else found.to(parameter.dtype).contiguous()


def _rounds(owned: dict[nn.Parameter, int], processes: int) -> Iterator[list[nn.Parameter]]:
    bunches: list[list[list[nn.Parameter]]] = [
        list(_bunches([parameter for parameter, owner in owned.items() if owner == process]))
        for process in range(processes)
    ]
    for round_ in itertools.zip_longest(*bunches, fillvalue=[]):
        yield [parameter for bunch in round_ for parameter in bunch]


def _bunches(parameters: Sequence[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    bunch: list[nn.Parameter] = []
    for parameter in parameters:
        bunch.append(parameter)
        if sum(each.numel() for each in bunch) >= _ROUND:
            yield bunch
            bunch = []
    if bunch:
        yield bunch

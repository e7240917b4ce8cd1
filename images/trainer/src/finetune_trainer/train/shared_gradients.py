"""Several processes that each update a part of the weights (ZeRO's stage 2, arXiv 1910.02054, by whole tensors).

Gradients are sent to the processes that update their weights while the backward pass goes on, in bf16 as they were made, and
are added up there in float32: each number is rounded once, as on one GPU. Moments and remainders exist once in all.
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

_EXCHANGED = 512 << 20
"""Numbers that an owner receives in a round, from all processes. Few and large: products that run on all of a GPU's
processors are held up for as long as the exchange takes some of them, so that it had better use all links at once."""
_AT_ONCE = 1
"""Rounds under way: gradients of the next are made meanwhile."""
_RETURNED = 64 << 20
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


def exchange_bytes() -> int:
    """Memory of what is under way at a time: as much as an owner receives, and as much again to be sent."""
    return 2 * (_AT_ONCE + 1) * _EXCHANGED * torch.bfloat16.itemsize


@dataclass(frozen=True, slots=True)
class _Piece:
    """Part of a gradient that is to go to its owner."""

    gradient: Tensor
    owner: int
    total: Tensor | None
    """Where the owner wants the sum."""


@dataclass(frozen=True, slots=True)
class _Round:
    """Pieces under way."""

    works: list[Any]
    sent: list[_Piece]
    received: list[tuple[Tensor, Tensor]]
    """At an owner: a row from each process, and where their sum belongs."""


class SharedGradients(GradientSums):
    """Gives each process the sum, over all processes, of the gradients of the parameters that it owns."""

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        super().__init__(parameters)
        self._processes, self._rank = distributed.get_world_size(), distributed.get_rank()
        self._others = [rank for rank in range(self._processes) if rank != self._rank]
        found = owners([parameter.numel() for parameter in self.parameters], self._processes)
        self._owners = dict(zip(self.parameters, found, strict=True))
        # About as they are made, and the same in all processes, whichever of two is ready first in one of them.
        self._order = tuple(reversed(self.parameters))
        self._made: set[nn.Parameter] = set()
        self._sent = 0
        self._waiting: list[_Piece] = []
        self._under_way: deque[_Round] = deque()
        self._given: list[Any] = []
        self._rounds = tuple(_rounds(self._owners, self._processes))

    @property
    def scale(self) -> float:
        """What makes the sum a mean."""
        return 1 / self._processes

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
            self._queue_next()
        self._exchange()
        while self._under_way:
            self._settle(self._under_way.popleft())

    def gradient(self, parameter: nn.Parameter) -> Tensor | None:
        """The sum, of a parameter that this process owns."""
        return self._sums.get(parameter)

    def over_processes(self, squares: Tensor) -> Tensor:
        """Their sum."""
        distributed.all_reduce(squares)
        return squares

    def give_back(self, updated: Sequence[nn.Parameter]) -> None:
        """Send those that this process owns to all others, and begin to receive the rest."""
        exchanged = [
            distributed.P2POp(distributed.isend, parameter.data, other)
            if self.owns(parameter)
            else distributed.P2POp(distributed.irecv, parameter.data, self._owners[parameter])
            for parameter in updated
            for other in (self._others if self.owns(parameter) else self._others[:1])
        ]
        self._given += distributed.batch_isend_irecv(exchanged) if exchanged else []

    def clear(self) -> None:
        """Forget the sums, and wait for the parameters."""
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
            self._queue_next()

    def _queue_next(self) -> None:
        parameter = self._order[self._sent]
        self._sent += 1
        gradient, owner, total = self._taken(parameter).view(-1), self._owners[parameter], None
        if self.owns(parameter):
            self._sums[parameter] = torch.empty_like(parameter, dtype=torch.float32)
            total = self._sums[parameter].view(-1)
        most = max(1, _EXCHANGED // self._processes)
        for start in range(0, len(gradient), most):
            span = slice(start, start + most)
            self._waiting.append(_Piece(gradient[span], owner, None if total is None else total[span]))
            if sum(len(piece.gradient) for piece in self._waiting if piece.owner == owner) >= most:
                self._exchange()

    def _exchange(self) -> None:
        """Begin to send what waits, in both directions at once."""
        received, exchanged = [], []
        for piece in self._waiting:
            if piece.total is None:
                exchanged.append(distributed.P2POp(distributed.isend, piece.gradient, piece.owner))
                continue
            rows = piece.gradient.new_empty(self._processes, len(piece.gradient))
            rows[self._rank] = piece.gradient
            exchanged += [distributed.P2POp(distributed.irecv, rows[other], other) for other in self._others]
            received.append((rows, piece.total))
        works = distributed.batch_isend_irecv(exchanged) if exchanged else []
        self._under_way.append(_Round(works, self._waiting, received))
        self._waiting = []
        if len(self._under_way) > _AT_ONCE:
            self._settle(self._under_way.popleft())

    def _settle(self, round_: _Round) -> None:
        for work in round_.works:
            work.wait()
        for rows, total in round_.received:
            torch.sum(rows, 0, dtype=torch.float32, out=total)

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
        if sum(each.numel() for each in bunch) >= _RETURNED:
            yield bunch
            bunch = []
    if bunch:
        yield bunch

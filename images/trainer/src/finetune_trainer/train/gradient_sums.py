"""Gradients of several passes, added up in float32 where the parameters, and so their gradients, are bf16."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn


class GradientSums:
    """Takes each gradient away as soon as it is made: beside the sums, no more than a layer's are ever there."""

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self.parameters = tuple(parameters)
        self._sums: dict[nn.Parameter, Tensor] = {}

    @property
    def scale(self) -> float:
        """What gradients are to be multiplied by."""
        return 1.0

    @property
    def rounds(self) -> Sequence[Sequence[nn.Parameter]]:
        """The parameters in the order in which they are to be updated; after each round, ``give_back`` is called."""
        return (self.parameters,)

    @contextmanager
    def taking(self, *, is_last: bool, is_only: bool) -> Iterator[None]:
        """While this lasts, backward passes add to the sums instead of to ``grad``, but for a step's only pass."""
        if is_only:
            yield
            return
        with self._watching(self._add):
            yield

    @contextmanager
    def _watching(self, made: object) -> Iterator[None]:
        hooks = [
            parameter.register_post_accumulate_grad_hook(made)  # type: ignore[no-untyped-call]
            for parameter in self.parameters
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def owns(self, parameter: nn.Parameter) -> bool:
        """Whether it is this process that updates the parameter."""
        return True

    def gradient(self, parameter: nn.Parameter) -> Tensor | None:
        """The sum, or the gradient of a single pass."""
        return self._sums.get(parameter, parameter.grad)

    def over_processes(self, squares: Tensor) -> Tensor:
        """The sum over all processes of what each has for the parameters that it owns."""
        return squares

    def give_back(self, updated: Sequence[nn.Parameter]) -> None:
        """Begin to bring parameters to the processes that did not update them."""

    def clear(self) -> None:
        """Forget the sums, and wait for what was begun."""
        self._sums.clear()

    def _add(self, parameter: Tensor) -> None:
        assert isinstance(parameter, nn.Parameter) and parameter.grad is not None  # noqa: S101, PT018  # the hook's promise
        if parameter in self._sums:
            self._sums[parameter].add_(parameter.grad)
        else:
            self._sums[parameter] = parameter.grad.float()
        parameter.grad = None

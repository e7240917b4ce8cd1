"""Gradients of several passes, added up in float32 where the parameters, and so their gradients, are bf16."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn


class GradientSums:
    """Takes each gradient away as soon as it is made: beside the sums, no more than a layer's are ever there."""

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self._parameters = tuple(parameters)
        self._sums: dict[nn.Parameter, Tensor] = {}

    @contextmanager
    def adding(self) -> Iterator[None]:
        """While this lasts, backward passes add to the sums instead of to ``grad``."""
        hooks = [
            parameter.register_post_accumulate_grad_hook(self._add)  # type: ignore[no-untyped-call]
            for parameter in self._parameters
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def gradient(self, parameter: nn.Parameter) -> Tensor | None:
        """The sum, or the gradient of a single pass."""
        return self._sums.get(parameter, parameter.grad)

    def clear(self) -> None:
        """Forget the sums."""
        self._sums.clear()

    def _add(self, parameter: Tensor) -> None:
        assert isinstance(parameter, nn.Parameter) and parameter.grad is not None  # noqa: S101, PT018  # the hook's promise
        if parameter in self._sums:
            self._sums[parameter].add_(parameter.grad)
        else:
            self._sums[parameter] = parameter.grad.float()
        parameter.grad = None

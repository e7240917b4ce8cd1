"""The engine for CPUs, small models and a first look: `transformers serve`, in this process and behind the guard."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from fastapi import HTTPException
from transformers.cli.serve import Serve

from finetune_operator.api.bounded import LimitReached, bounded
from finetune_server.guard import Guard

STOP_SECONDS = 1
"""How long requests under way may go on after SIGTERM."""
RENDER_SECONDS = 5.0
"""Of computing, for a conversation to become tokens."""


class GuardedServe(Serve):  # type: ignore[misc]
    """`transformers serve` with the guard around its application.

    ``Serve`` loads the model, builds the application and, when told not to block, calls ``start_server`` to run it.
    """

    def __init__(self, model: str, device: str, host: str, port: int, read_key: Callable[[], str | None]) -> None:
        self._model, self._read_key = model, read_key
        super().__init__(force_model=model, device=device, host=host, port=port, non_blocking=True)

    def start_server(self) -> None:
        """Serve until SIGTERM or SIGINT."""
        self._answer_to_plain_name()
        loaded = self._model_manager.loaded_models[self._model]
        loaded.processor.apply_chat_template = _within_limits(loaded.processor.apply_chat_template)
        logging.getLogger("uvicorn.access").addFilter(lambda record: "GET /health" not in record.getMessage())
        config = self.server.config
        config.app = Guard(config.app, self._model, self._read_key)
        # Taking the model apart at the end takes seconds, and the process is about to go.
        config.lifespan = "off"
        config.timeout_graceful_shutdown = STOP_SECONDS
        self.server.run()

    def _answer_to_plain_name(self) -> None:
        """Have answers bear the name that requests do: `transformers serve` makes it name@main."""
        manager = self._model_manager
        manager.loaded_models[self._model] = manager.loaded_models.pop(manager.process_model_name(self._model))
        manager.process_model_name = lambda name: name


def _within_limits(render: Callable[..., Any]) -> Callable[..., Any]:
    """Rendering that ends: a template may wait for one client's message to loop for ever, in front of all the others."""

    def limited(*arguments: Any, **options: Any) -> Any:
        try:
            # Other threads generate meanwhile, and would fail in this one's place.
            with bounded(RENDER_SECONDS, of_memory=False):
                return render(*arguments, **options)
        except LimitReached as error:
            raise HTTPException(400, f"the model's chat template does not come to an end: {error}") from error

    return limited

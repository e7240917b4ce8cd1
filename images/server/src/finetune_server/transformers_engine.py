"""The engine for CPUs, small models and a first look: `transformers serve`, in this process and behind the guard."""

from __future__ import annotations

import logging
from collections.abc import Callable

from transformers.cli.serve import Serve

from finetune_server.guard import Guard

STOP_SECONDS = 1
"""How long requests under way may go on after SIGTERM."""


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

"""The guard inside vLLM: `vllm serve --middleware finetune_server.vllm_guard.VllmGuard`.

vLLM's own key guards /v1 alone: /invocations, /tokenize, /pause, /update_weights and more answer everybody.
"""

from __future__ import annotations

import os

from starlette.types import ASGIApp

from finetune_operator.api.run import RunConfig
from finetune_server.guard import Guard
from finetune_server.key import read_api_key

NAME = f"{__name__}.VllmGuard"
RUN_VARIABLE = "FINETUNE_GUARDED_RUN"
"""run.json itself, since vLLM calls the middleware with nothing but the application. It holds no secrets."""


class VllmGuard(Guard):
    """The guard, made of what the environment says. vLLM's figures stay open: Prometheus has no key, and they name no text."""

    open_routes = Guard.open_routes | {("GET", "/metrics")}

    def __init__(self, app: ASGIApp) -> None:
        run = RunConfig.model_validate_json(os.environ[RUN_VARIABLE], by_alias=True, by_name=False)
        super().__init__(app, run.name, lambda: read_api_key(run))

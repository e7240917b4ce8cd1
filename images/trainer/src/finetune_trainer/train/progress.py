"""Tells the operator how far training is, by the protocol of Kubeflow Trainer's runtime status.

A POST of {"trainerStatus": {...}} with a service account's token. Reporting never holds training up nor ends it.
"""

from __future__ import annotations

import json
import math
import os
import ssl
import threading
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path
from typing import Any, Self

from finetune_operator.api import progress as names
from finetune_trainer.train.entry import Entry
from finetune_trainer.train.say import say

URL_VARIABLE = "KUBEFLOW_TRAINER_SERVER_URL"
CA_VARIABLE = "KUBEFLOW_TRAINER_SERVER_CA_CERT"
TOKEN_VARIABLE = "KUBEFLOW_TRAINER_SERVER_TOKEN"  # noqa: S105 - the name of a variable that holds a path

SECONDS_BETWEEN_POSTS = 2.0
SECONDS_TO_POST = 5.0


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where to report. CA and token are read anew for every post: the kubelet replaces both."""

    url: str
    ca: Path | None
    token: Path

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Self | None:
        """The endpoint that the operator set, or None where there is none."""
        url, ca, token = (environment.get(name) for name in (URL_VARIABLE, CA_VARIABLE, TOKEN_VARIABLE))
        return cls(url, Path(ca) if ca else None, Path(token)) if url and token else None

    def post(self, status: Mapping[str, Any]) -> None:
        """Send one status. Raises OSError where it cannot be sent (HTTP errors are among them)."""
        request = urllib.request.Request(  # noqa: S310 - the operator's own address
            self.url,
            data=json.dumps({"trainerStatus": status}).encode(),
            headers={"Authorization": f"Bearer {self.token.read_text().strip()}", "Content-Type": "application/json"},
            method="POST",
        )
        context = ssl.create_default_context(cafile=str(self.ca)) if self.ca and self.url.startswith("https") else None
        # A proxy in the environment is for the world, never for the operator.
        handlers = [urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)]
        with urllib.request.build_opener(*handlers).open(request, timeout=SECONDS_TO_POST):
            pass


def status_of(entry: Entry, metrics: Mapping[str, float]) -> dict[str, Any]:
    """The protocol's status: percentage, seconds left, and the newest value of every metric."""
    return {
        "lastUpdatedTime": entry.time.astimezone(UTC).isoformat(timespec="milliseconds"),
        "progressPercentage": min(100, math.floor(entry.percent)),
        "estimatedRemainingSeconds": round(entry.seconds_left),
        "metrics": [{"name": name, "value": f"{value:.6g}"} for name, value in metrics.items()],
    }


class ProgressReporter:
    """Posts the newest status from a thread of its own; statuses that come faster are skipped."""

    def __init__(self, endpoint: Endpoint, seconds_between: float = SECONDS_BETWEEN_POSTS) -> None:
        self._endpoint = endpoint
        self._seconds_between = seconds_between
        self._newest: dict[str, Any] | None = None
        self._metrics: dict[str, float] = {}
        self._wake = threading.Condition()
        self._closing = threading.Event()
        self._failing = False
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)
        self._thread.start()

    def offer(self, entry: Entry) -> None:
        """Hand over what is known now; returns at once."""
        self._metrics |= _metrics(entry)
        with self._wake:
            self._newest = status_of(entry, self._metrics)
            self._wake.notify()

    @property
    def pending(self) -> bool:
        """Whether a status waits to be sent."""
        return self._newest is not None

    def close(self) -> None:
        """Send what has not been sent yet, and end. Takes no longer than two posts may."""
        self._closing.set()
        with self._wake:
            self._wake.notify()
        self._thread.join(timeout=2 * SECONDS_TO_POST)

    def _run(self) -> None:
        while (status := self._next()) is not None:
            self._send(status)
            self._closing.wait(self._seconds_between)

    def _next(self) -> dict[str, Any] | None:
        with self._wake:
            self._wake.wait_for(lambda: self._newest is not None or self._closing.is_set())
            status, self._newest = self._newest, None
            return status

    def _send(self, status: dict[str, Any]) -> None:
        try:
            self._endpoint.post(status)
        except (OSError, ValueError) as error:
            # Once, not every two seconds: the log belongs to the training.
            if not self._failing:
                say(f"progress cannot be reported ({error}); training goes on")
            self._failing = True
        else:
            self._failing = False


def _metrics(entry: Entry) -> dict[str, float]:
    values = {
        names.CURRENT_STEP: entry.step,
        names.TOTAL_STEPS: entry.total_steps,
        names.LOSS: entry.loss,
        names.EVAL_LOSS: entry.eval_loss,
        names.LEARNING_RATE: entry.learning_rate,
        names.EPOCH: entry.epoch,
        names.TOKENS_PER_SECOND: entry.tokens_per_second,
        names.TFLOPS_PER_SECOND: entry.tflops_per_second,
        names.SHARE_OF_LIMIT: entry.share_of_limit,
        names.DATA_WAIT_SHARE: entry.data_wait_share,
    }
    return {name: value for name, value in values.items() if value is not None}

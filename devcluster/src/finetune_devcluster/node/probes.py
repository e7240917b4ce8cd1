"""Startup, readiness and liveness probes of one run of a container."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Self

from finetune_devcluster.node.settings import Object

Check = Callable[[Object, float], Awaitable[str | None]]
"""Performs a probe's handler within a number of seconds; None when it succeeded, else why not."""


@dataclass(frozen=True)
class ProbeSettings:
    """Defaults: https://kubernetes.io/docs/concepts/configuration/liveness-readiness-startup-probes/"""

    action: Object
    initial_delay: float
    period: float
    timeout: float
    success_threshold: int
    failure_threshold: int

    @classmethod
    def of(cls, probe: Object) -> Self:
        return cls(
            action=probe,
            initial_delay=probe.get("initialDelaySeconds") or 0,
            period=probe.get("periodSeconds") or 10,
            timeout=probe.get("timeoutSeconds") or 1,
            success_threshold=probe.get("successThreshold") or 1,
            failure_threshold=probe.get("failureThreshold") or 3,
        )


class Verdict:
    """Turns single results into the probe's verdict: it changes after so many equal results in a row."""

    def __init__(self, settings: ProbeSettings, initial: bool | None) -> None:
        self._settings = settings
        self._run = 0
        self._last: bool | None = None
        self.value = initial

    def add(self, success: bool) -> bool:
        """Takes one result; whether the threshold for it has been reached."""
        self._run = self._run + 1 if success == self._last else 1
        self._last = success
        needed = self._settings.success_threshold if success else self._settings.failure_threshold
        if self._run < needed:
            return False
        self.value = success
        return True


@dataclass
class ProbeListener:
    """What the probes report. `unhealthy` gets the probe's kind and the reason of each failure."""

    started: Callable[[], None]
    ready: Callable[[bool], None]
    unhealthy: Callable[[str, str], None]
    restart: Callable[[str, Object], None]


async def run(container: Object, check: Check, listener: ProbeListener) -> None:
    """Probes until cancelled; without a probe the container is started and ready at once."""
    if probe := container.get("startupProbe"):
        await _until_started(probe, check, listener)
    listener.started()
    readiness, liveness = container.get("readinessProbe"), container.get("livenessProbe")
    if not readiness:
        listener.ready(True)
    async with asyncio.TaskGroup() as group:
        if readiness:
            group.create_task(_readiness(readiness, check, listener))
        if liveness:
            group.create_task(_liveness(liveness, check, listener))


async def _until_started(probe: Object, check: Check, listener: ProbeListener) -> None:
    settings = ProbeSettings.of(probe)
    verdict = Verdict(settings, initial=None)
    await asyncio.sleep(settings.initial_delay)
    while verdict.value is None:
        failure = await check(settings.action, settings.timeout)
        if failure is not None:
            listener.unhealthy("Startup", failure)
        verdict.add(failure is None)
        if verdict.value is None:
            await asyncio.sleep(settings.period)
    if not verdict.value:
        listener.restart("startup", probe)
        await asyncio.Event().wait()  # cancelled when the container has ended


async def _readiness(probe: Object, check: Check, listener: ProbeListener) -> None:
    settings = ProbeSettings.of(probe)
    verdict = Verdict(settings, initial=False)
    await asyncio.sleep(settings.initial_delay)
    while True:
        failure = await check(settings.action, settings.timeout)
        if failure is not None:
            listener.unhealthy("Readiness", failure)
        if verdict.add(failure is None):
            listener.ready(failure is None)
        await asyncio.sleep(settings.period)


async def _liveness(probe: Object, check: Check, listener: ProbeListener) -> None:
    settings = ProbeSettings.of(probe)
    verdict = Verdict(settings, initial=True)
    await asyncio.sleep(settings.initial_delay)
    while verdict.value:
        failure = await check(settings.action, settings.timeout)
        if failure is not None:
            listener.unhealthy("Liveness", failure)
        verdict.add(failure is None)
        if verdict.value:
            await asyncio.sleep(settings.period)
    listener.restart("liveness", probe)

"""One container of a pod: started, probed, restarted, stopped."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import time
import uuid
from typing import TYPE_CHECKING

from finetune_devcluster.node import actions, clock, logs, probes
from finetune_devcluster.node.api import API_FAILURES
from finetune_devcluster.node.backoff import Backoff
from finetune_devcluster.node.container_process import ContainerProcess, LaunchSpec, StartError
from finetune_devcluster.node.environment import ConfigError
from finetune_devcluster.node.grace import Grace, wait_within
from finetune_devcluster.node.settings import Object
from finetune_devcluster.node.states import ContainerRecord, Running, Terminated, Waiting, restarts
from finetune_devcluster.node.status import CONTAINER_ID_SCHEME

if TYPE_CHECKING:
    from finetune_devcluster.node.pod_context import PodContext

logger = logging.getLogger(__name__)

NEVER_STARTED = "1970-01-01T00:00:00Z"
MAX_MESSAGE_BYTES = 4096
FALLBACK_LINES, FALLBACK_BYTES = 80, 2048
_CONFIG_RETRY_SECONDS = 1.0
_HOOK_SECONDS = 60.0


class ContainerRunner:
    """Runs the container until it has ended for good; what happens is kept in `record`."""

    def __init__(self, context: PodContext, record: ContainerRecord) -> None:
        self._context = context
        self.record = record
        self._stopping = asyncio.Event()
        self._kill = asyncio.Event()
        self._graces: list[Grace] = []

    async def run(self) -> None:
        backoff = Backoff()
        while not self._stopping.is_set():
            began = time.monotonic()
            ended = await self._run_once()
            if ended is None or self._stopping.is_set() or not restarts(self.record.restart_policy, ended.exit_code):
                break
            await self._wait_for_restart(ended, backoff.after_run(time.monotonic() - began))
        self.record.done = True
        self._context.changed()

    def stop(self, grace: Grace) -> None:
        """Asks the container to end within the grace period; `run` returns when it has."""
        self._graces.append(grace)
        self._stopping.set()
        self._kill.set()

    async def _wait_for_restart(self, ended: Terminated, delay: float) -> None:
        name = self.record.name
        message = f"back-off {delay:g}s restarting failed container={name} pod={self._context.name}"
        self.record.last = ended
        self.record.state = Waiting("CrashLoopBackOff", message)
        self._context.event("BackOff", f"Back-off restarting failed container {name}", warning=True)
        self._context.changed()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay):
                await self._stopping.wait()
        if self._stopping.is_set():
            self.record.state = ended
        else:
            self.record.restart_count += 1

    async def _run_once(self) -> Terminated | None:
        """One run; None when the container was stopped before it could be configured."""
        spec = await self._configure()
        if spec is None:
            return None
        if not self._stopping.is_set():
            self._kill.clear()
            self._graces.clear()
        identity = self.record.container_id = f"{CONTAINER_ID_SCHEME}://{uuid.uuid4().hex}"
        try:
            process = await self._context.start(self.record, spec)
        except StartError as error:
            self._context.event("Failed", f"Error: {error}", warning=True)
            ended = Terminated(
                128, "StartError", NEVER_STARTED, clock.rfc3339(), message=str(error), container_id=identity
            )
        else:
            started_at = clock.rfc3339()
            self.record.state = Running(started_at)
            self._context.event("Started", f"Container started: {self.record.name}")
            self._context.changed()
            ended = self._terminated(await self._supervise(process), started_at, identity)
        self.record.started = self.record.probe_ready = False
        self.record.state = ended
        self._context.changed()
        return ended

    async def _configure(self) -> LaunchSpec | None:
        while not self._stopping.is_set():
            try:
                return await self._context.launch_spec(self.record)
            except ConfigError as error:
                self.record.state = Waiting("CreateContainerConfigError", str(error))
                self._context.event("Failed", f"Error: {error}", warning=True)
                self._context.changed()
            except API_FAILURES as error:
                self.record.state = Waiting("CreateContainerConfigError", f"API server: {error}")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CONFIG_RETRY_SECONDS):
                    await self._stopping.wait()
        return None

    async def _supervise(self, process: ContainerProcess) -> int:
        """Exit code of the run that has just begun."""
        ended: asyncio.Task[int] = asyncio.create_task(process.wait())
        try:
            await self._watch(process, ended)
            if not ended.done():
                await self._terminate(process, ended)
        finally:
            # Whatever happens here: no process outlives its container. Nothing happens to one that has ended.
            process.send(signal.SIGKILL)
        return await ended

    async def _watch(self, process: ContainerProcess, ended: asyncio.Task[int]) -> None:
        """Probes the container until it has ended or has to."""
        killed = asyncio.create_task(self._kill.wait())
        probing = asyncio.create_task(self._probe(process))
        try:
            await asyncio.wait({ended, killed}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            killed.cancel()
            probing.cancel()
        for outcome in await asyncio.gather(probing, killed, return_exceptions=True):
            if isinstance(outcome, Exception):
                logger.error("container %s: probing broke off", self.record.name, exc_info=outcome)

    async def _terminate(self, process: ContainerProcess, ended: asyncio.Task[int]) -> None:
        self._context.event("Killing", f"Stopping container {self.record.name}")
        if hook := (self.record.spec.get("lifecycle") or {}).get("preStop"):
            stopping = asyncio.create_task(self._hook("PreStop", hook, process, self._grace_left()))
            if not await wait_within(stopping, self._grace_left):
                stopping.cancel()
        process.send(signal.SIGTERM)
        await wait_within(ended, self._grace_left)

    def _grace_left(self) -> float:
        return min(grace.left for grace in self._graces)

    async def _hook(self, kind: str, hook: Object, process: ContainerProcess, seconds: float) -> bool:
        failure = await actions.perform(hook, self._target(process), seconds)
        if failure is not None:
            self._context.event(f"Failed{kind}Hook", f"{kind}Hook failed: {failure}", warning=True)
        return failure is None

    def _target(self, process: ContainerProcess) -> actions.Target:
        return actions.Target(process, self.record.spec, self._context.pod_ip)

    async def _probe(self, process: ContainerProcess) -> None:
        hook = (self.record.spec.get("lifecycle") or {}).get("postStart")
        if hook and not await self._hook("PostStart", hook, process, _HOOK_SECONDS):
            self._restart("postStart hook", {})
            return
        target = self._target(process)
        await probes.run(
            self.record.spec,
            lambda action, timeout: actions.perform(action, target, timeout),
            probes.ProbeListener(self._started, self._ready, self._unhealthy, self._restart),
        )

    def _started(self) -> None:
        self.record.started = True
        self._context.changed()

    def _ready(self, ready: bool) -> None:
        if self.record.probe_ready != ready:
            self.record.probe_ready = ready
            self._context.changed()

    def _unhealthy(self, kind: str, why: str) -> None:
        self._context.event("Unhealthy", f"{kind} probe failed: {why}", warning=True)

    def _restart(self, what: str, probe: Object) -> None:
        if self._stopping.is_set():
            return
        self._context.event("Killing", f"Container {self.record.name} failed {what}, will be restarted")
        self._graces.append(Grace(probe.get("terminationGracePeriodSeconds") or self._context.grace_seconds))
        self._kill.set()

    def _terminated(self, exit_code: int, started_at: str, identity: str) -> Terminated:
        return Terminated(
            exit_code=exit_code,
            reason="Completed" if exit_code == 0 else "Error",
            started_at=started_at,
            finished_at=clock.rfc3339(),
            message=self._termination_message(exit_code),
            container_id=identity,
        )

    def _termination_message(self, exit_code: int) -> str:
        file = self._context.termination_log(self.record)
        message = file.read_bytes()[:MAX_MESSAGE_BYTES].decode(errors="replace") if file.exists() else ""
        policy = self.record.spec.get("terminationMessagePolicy")
        if message or exit_code == 0 or policy != "FallbackToLogsOnError":
            return message
        return logs.last_output(self._context.log_file(self.record), FALLBACK_LINES, FALLBACK_BYTES)

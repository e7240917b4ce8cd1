"""The life of one pod, from the sandbox to the deletion of the object."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
from datetime import UTC, datetime

from finetune_devcluster.node import clock
from finetune_devcluster.node.api import API_FAILURES, ApiError
from finetune_devcluster.node.container import ContainerRunner
from finetune_devcluster.node.grace import Grace
from finetune_devcluster.node.node_context import NodeContext
from finetune_devcluster.node.pod_context import PodContext
from finetune_devcluster.node.processes import CommandError
from finetune_devcluster.node.projected import VolumeError
from finetune_devcluster.node.recovery import resume_records
from finetune_devcluster.node.settings import Object
from finetune_devcluster.node.states import ContainerRecord, Role
from finetune_devcluster.node.status import PodFacts
from finetune_devcluster.node.status_writer import StatusWriter

logger = logging.getLogger(__name__)

_SET_UP_RETRY_SECONDS = 1.0
_DELETE_RETRY_SECONDS = 1.0
_REFRESH_RETRY_SECONDS = 5.0


class PodWorker:
    """Told of every change of the object; `run` ends when the object is gone and nothing of the pod is left."""

    def __init__(self, node: NodeContext, pod: Object) -> None:
        self.context = PodContext(node, pod)
        self.records = resume_records(pod)
        self._runners: dict[str, ContainerRunner] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._stop = asyncio.Event()
        self._stopped = False
        self._gone = asyncio.Event()
        self._abandoned = False
        self._grace: Grace | None = None
        self._failure: tuple[str, str] | None = None
        self._references_changed = asyncio.Event()
        self._started_at = (pod.get("status") or {}).get("startTime") or clock.rfc3339()
        self._writer = StatusWriter(self.context, self._facts)
        self._final = (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")
        if self._final:  # ended in an earlier life of the node: its status stays what it is
            self._writer.silence()
        self.update(pod)

    def update(self, pod: Object) -> None:
        """The object has changed."""
        old, self.context.pod = self.context.pod, pod
        if old["metadata"] != pod["metadata"]:
            self._references_changed.set()
        self.context.changed()
        if pod["metadata"].get("deletionTimestamp"):
            self._end_within(pod["metadata"].get("deletionGracePeriodSeconds") or 0)

    def references_changed(self) -> None:
        """A ConfigMap or Secret of the pod's namespace has changed."""
        self._references_changed.set()

    def removed(self) -> None:
        """The object is gone, for example deleted by force."""
        self._gone.set()
        self._end_within(0)

    def abandon(self) -> None:
        """The node ends: kill the pod and leave the object as it is for the node's next life."""
        self._abandoned = True
        self._writer.silence()
        self.removed()

    def _end_within(self, seconds: float) -> None:
        if self._grace:
            self._grace.shorten(seconds)
        else:
            self._grace = Grace(seconds)
        self._stop.set()

    async def run(self) -> None:
        writing = asyncio.create_task(self._writer.run())
        try:
            if not self._final:
                await self._run_containers()
            await self.context.close()
            self.context.changed()
            await self._stop.wait()
            self._stopped = True
            if not self._gone.is_set():
                await self._writer.flush()
                await self._delete_object()
                await self._gone.wait()  # its logs can be read until then: a finalizer may keep the object
        finally:
            writing.cancel()
            await self._clean_up()

    async def _clean_up(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        await self.context.close()
        self.context.node.events.forget(self.context.uid)
        if not self._abandoned:
            shutil.rmtree(self.context.folder, ignore_errors=True)

    async def _run_containers(self) -> None:
        living = asyncio.create_task(self._live())
        stopping = asyncio.create_task(self._stop.wait())
        deadline = asyncio.create_task(self._deadline())
        try:
            await asyncio.wait({living, stopping, deadline}, return_when=asyncio.FIRST_COMPLETED)
            if deadline.done():
                self._failure = (
                    "DeadlineExceeded",
                    "Pod was active on the node longer than the specified deadline",
                )
                self._grace = self._grace or Grace(self.context.grace_seconds)
        finally:
            for task in (living, stopping, deadline):
                task.cancel()
            outcome = (await asyncio.gather(living, stopping, deadline, return_exceptions=True))[0]
        if isinstance(outcome, Exception):
            raise outcome
        await self._stop_all()

    async def _deadline(self) -> None:
        seconds = self.context.pod["spec"].get("activeDeadlineSeconds")
        if seconds is None:
            await asyncio.Event().wait()
        elapsed = (datetime.now(UTC) - clock.parse(self._started_at)).total_seconds()
        await asyncio.sleep(max(seconds - elapsed, 0))

    async def _live(self) -> None:
        await self._set_up()
        async with asyncio.TaskGroup() as group:
            refreshing = group.create_task(self._refresh_volumes())
            if await self._run_init_containers():
                await self._run_main_containers()
            refreshing.cancel()

    async def _set_up(self) -> None:
        while True:
            try:
                await self.context.open()
                self.context.changed()
                await self.context.mount_volumes()
                return
            except (VolumeError, *API_FAILURES) as error:
                self.context.event("FailedMount", f"MountVolume.SetUp failed: {error}", warning=True)
            except (CommandError, RuntimeError) as error:
                self.context.event("FailedCreatePodSandBox", str(error), warning=True)
            await self._wait_for_references(_SET_UP_RETRY_SECONDS)

    async def _wait_for_references(self, seconds: float | None) -> None:
        # Not wait_for: on Python 3.11 it loses a cancellation that comes together with the event, and a pod that is deleted
        # while its volumes are refreshed would never end (python/cpython#81839, mended in 3.12).
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._references_changed.wait()
        self._references_changed.clear()

    async def _refresh_volumes(self) -> None:
        seconds = self.context.volumes.seconds_to_refresh
        while True:
            await self._wait_for_references(seconds)
            try:
                await self.context.volumes.refresh()
                seconds = self.context.volumes.seconds_to_refresh
            except (VolumeError, *API_FAILURES) as error:
                # The files stay as they were, as the kubelet leaves them.
                logger.info("pod %s: volumes not refreshed: %s", self.context.name, error)
                seconds = _REFRESH_RETRY_SECONDS

    async def _run_init_containers(self) -> bool:
        """Whether all of them succeeded; a sidecar counts once it has started."""
        for record in self.records:
            if record.role is Role.SIDECAR:
                self._start(record)
                await self._until_started(record)
            elif record.role is Role.INIT:
                await self._start(record)
                if not record.ready:
                    return False
        return True

    async def _until_started(self, record: ContainerRecord) -> None:
        while not record.started:
            await asyncio.sleep(0.05)

    async def _run_main_containers(self) -> None:
        main = [record for record in self.records if record.role is Role.MAIN and not record.done]
        await asyncio.gather(*[self._start(record) for record in main])

    def _start(self, record: ContainerRecord) -> asyncio.Future[None]:
        runner = self._runners[record.name] = ContainerRunner(self.context, record)
        task = self._tasks[record.name] = asyncio.create_task(runner.run())
        # Shielded: the pod's end stops containers by signals, not by cancelling who watches them.
        return asyncio.shield(task)

    async def _stop_all(self) -> None:
        """Main containers first, then sidecars in reverse order, all within the one grace period."""
        main = [record.name for record in self.records if record.role is not Role.SIDECAR]
        sidecars = [record.name for record in reversed(self.records) if record.role is Role.SIDECAR]
        for names in [main, *([name] for name in sidecars)]:
            running = [name for name in names if name in self._tasks]
            for name in running:
                self._runners[name].stop(self._grace or Grace(self.context.grace_seconds))
            await asyncio.gather(*[self._tasks[name] for name in running])

    def _facts(self) -> PodFacts:
        return PodFacts(
            records=self.records,
            pod_ip=self.context.pod_ip or None,
            host_ip=self.context.node.settings.host_ip,
            started_at=self._started_at,
            sandbox_ready=self.context.is_open,
            failure=self._failure,
            stopped=self._stopped,
        )

    async def _delete_object(self) -> None:
        metadata = self.context.pod["metadata"]
        path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"
        body = {"gracePeriodSeconds": 0, "preconditions": {"uid": metadata["uid"]}}
        while not self._gone.is_set():
            try:
                await self.context.node.api.delete(path, body)
                return
            except ApiError as error:
                if error.status in (404, 409):
                    return
                logger.warning("pod %s: not deleted: %s", self.context.name, error)
            except API_FAILURES as error:
                logger.info("pod %s: not deleted yet: %r", self.context.name, error)
            await asyncio.sleep(_DELETE_RETRY_SECONDS)

"""The process node: everything that runs, and how it starts and ends."""

from __future__ import annotations

import asyncio
import logging
import shutil

from finetune_devcluster.node import services
from finetune_devcluster.node.api import Api
from finetune_devcluster.node.devices import GpuPool
from finetune_devcluster.node.events import EventRecorder
from finetune_devcluster.node.hosts import HostsFiles
from finetune_devcluster.node.informer import Informer
from finetune_devcluster.node.kubelet_api import KubeletApi
from finetune_devcluster.node.network import AddressPool, Network
from finetune_devcluster.node.node_context import NodeContext
from finetune_devcluster.node.pod_worker import PodWorker
from finetune_devcluster.node.processes import ProcessRegistry
from finetune_devcluster.node.provisioner import Provisioner
from finetune_devcluster.node.proxy import ServiceProxy
from finetune_devcluster.node.registration import Registration
from finetune_devcluster.node.settings import Object, Settings

logger = logging.getLogger(__name__)

_WORKER_RETRY_SECONDS = 1.0


class Agent:
    def __init__(self, settings: Settings, api: Api) -> None:
        self._settings = settings
        self._workers: dict[str, PodWorker] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._names_changed = asyncio.Event()
        self._proxy = ServiceProxy()
        self._provisioner = Provisioner(api, settings.claims_dir)
        self._informers(api)
        self._node = NodeContext(
            settings=settings,
            api=api,
            network=Network(settings.pod_cidr, settings.service_cidr),
            addresses=AddressPool(settings.pod_cidr),
            registry=ProcessRegistry(settings.processes_dir),
            events=EventRecorder(api, settings.node_name),
            hosts=HostsFiles(self._service_names),
            gpus=GpuPool(settings.gpus),
            api_address=self._api_address,
        )
        self._kubelet_api = KubeletApi(settings, self._find, lambda: list(self._pods.objects.values()))

    def _informers(self, api: Api) -> None:
        selector = f"spec.nodeName={self._settings.node_name}"
        self._pods = Informer(api, "/api/v1/pods", self._pod_changed, field_selector=selector)
        self._services = Informer(api, "/api/v1/services", self._service_changed)
        self._slices = Informer(api, "/apis/discovery.k8s.io/v1/endpointslices", self._service_changed)
        self._others = [
            Informer(api, "/api/v1/configmaps", self._reference_changed),
            Informer(api, "/api/v1/secrets", self._reference_changed),
            Informer(api, "/api/v1/persistentvolumeclaims", self._claim_changed),
            Informer(api, "/api/v1/persistentvolumes", self._provisioner.volume_changed),
        ]

    async def run(self) -> None:
        """Runs until cancelled; then kills every pod and takes the network away."""
        self._node.registry.kill_leftovers()
        await self._node.network.prepare()
        try:
            await self._kubelet_api.start()
            async with asyncio.TaskGroup() as group:
                for informer in (self._services, self._slices, *self._others):
                    group.create_task(informer.run())
                group.create_task(self._provisioner.run())
                group.create_task(self._publish_services())
                await self._services.synced.wait()
                await self._slices.synced.wait()
                group.create_task(self._pods.run())
                await self._pods.synced.wait()
                self._remove_old_folders()
                group.create_task(Registration(self._node.api, self._settings).run())
        finally:
            await self._shut_down()

    async def _shut_down(self) -> None:
        for worker in self._workers.values():
            worker.abandon()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        await self._proxy.close()
        await self._kubelet_api.stop()
        await self._node.network.remove()

    def _remove_old_folders(self) -> None:
        """Folders of pods that were deleted while the node was away."""
        for folder in self._settings.pods_dir.iterdir():
            if folder.name not in self._workers:
                shutil.rmtree(folder, ignore_errors=True)

    def _pod_changed(self, pod: Object, deleted: bool) -> None:
        uid = pod["metadata"]["uid"]
        worker = self._workers.get(uid)
        if deleted:
            if worker:
                worker.removed()
        elif worker:
            worker.update(pod)
        else:
            self._start_worker(uid, pod)

    def _start_worker(self, uid: str, pod: Object) -> None:
        worker = self._workers[uid] = PodWorker(self._node, pod)
        self._tasks[uid] = asyncio.create_task(self._run_worker(uid, worker))

    async def _run_worker(self, uid: str, worker: PodWorker) -> None:
        failed = False
        try:
            await worker.run()
        except Exception:  # one pod's trouble must not end the others
            logger.exception("pod %s: worker broke off, starting it again", worker.context.name)
            failed = True
            await asyncio.sleep(_WORKER_RETRY_SECONDS)
        del self._workers[uid], self._tasks[uid]
        if failed and (pod := self._pods.objects.get(uid)):
            self._start_worker(uid, pod)

    def _find(self, namespace: str, name: str) -> PodWorker | None:
        for worker in self._workers.values():
            if worker.context.name == f"{namespace}/{name}":
                return worker
        return None

    def _reference_changed(self, item: Object, _: bool) -> None:
        for worker in self._workers.values():
            if worker.context.pod["metadata"]["namespace"] == item["metadata"]["namespace"]:
                worker.references_changed()

    def _claim_changed(self, claim: Object, deleted: bool) -> None:
        self._provisioner.claim_changed(claim, deleted)
        self._reference_changed(claim, deleted)

    def _service_changed(self, _: Object, __: bool) -> None:
        self._names_changed.set()

    def _service_names(self) -> list[services.ServiceName]:
        return services.names(self._services.objects.values(), self._slices.objects.values())

    def _api_address(self) -> tuple[str, int]:
        for service in self._services.objects.values():
            if service["metadata"]["namespace"] == "default" and service["metadata"]["name"] == "kubernetes":
                return service["spec"]["clusterIP"], service["spec"]["ports"][0]["port"]
        return str(self._settings.service_cidr.network_address + 1), 443

    async def _publish_services(self) -> None:
        while True:
            await self._names_changed.wait()
            self._names_changed.clear()
            await self._proxy.update(services.backends(self._services.objects.values(), self._slices.objects.values()))
            self._node.hosts.update()

"""One pod while it runs: its folder, sandbox, volumes, and what its containers need of them."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from finetune_devcluster.layout import project_root
from finetune_devcluster.node import container_process, sandbox
from finetune_devcluster.node.container_process import ContainerProcess, LaunchSpec
from finetune_devcluster.node.devices import GPU_RESOURCE
from finetune_devcluster.node.environment import (
    arguments,
    base_environment,
    container_environment,
    with_path_prefix,
)
from finetune_devcluster.node.hosts import PodNames, hostname_of
from finetune_devcluster.node.lookup import environment_sources
from finetune_devcluster.node.mounts import container_mounts, project_folders, termination_log_path
from finetune_devcluster.node.node_context import NodeContext
from finetune_devcluster.node.sandbox import Sandbox
from finetune_devcluster.node.settings import Object
from finetune_devcluster.node.states import ContainerRecord
from finetune_devcluster.node.volumes import PodVolumes, Volume
from finetune_operator.api.device import CPU, DEVICE_VARIABLE


class PodContext:
    """`pod` is replaced as the object changes; `dirty` is set when the status may have to be written again."""

    def __init__(self, node: NodeContext, pod: Object) -> None:
        self.node = node
        self.pod = pod
        self.dirty = asyncio.Event()
        self.pod_ip = ""
        self._sandbox: Sandbox | None = None
        self.mounted: dict[str, Volume] = {}
        self.folder = node.settings.pods_dir / self.uid
        self.volumes = PodVolumes(node.api, self.folder / "volumes", self.with_addresses)

    @property
    def uid(self) -> str:
        return str(self.pod["metadata"]["uid"])

    @property
    def name(self) -> str:
        return f"{self.pod['metadata']['namespace']}/{self.pod['metadata']['name']}"

    @property
    def grace_seconds(self) -> float:
        return float(self.pod["spec"].get("terminationGracePeriodSeconds", 30))

    @property
    def own_network(self) -> bool:
        return not self.pod["spec"].get("hostNetwork")

    @property
    def is_open(self) -> bool:
        return self._sandbox is not None

    @property
    def sandbox(self) -> Sandbox:
        """Raises RuntimeError before `open`."""
        if self._sandbox is None:
            raise RuntimeError(f"pod {self.name} has no sandbox")
        return self._sandbox

    @property
    def _hosts_file(self) -> Path:
        return self.folder / "hosts"

    def changed(self) -> None:
        self.dirty.set()

    def event(self, reason: str, message: str, *, warning: bool = False) -> None:
        self.node.events.emit(self.pod, reason, message, warning=warning)

    def with_addresses(self) -> Object:
        """The pod as field references see it: its status may not have reached the API server yet."""
        host = self.node.settings.host_ip
        addresses = {
            "podIP": self.pod_ip,
            "podIPs": [{"ip": self.pod_ip}],
            "hostIP": host,
            "hostIPs": [{"ip": host}],
        }
        return {**self.pod, "status": {**(self.pod.get("status") or {}), **addresses}}

    async def open(self) -> None:
        """Makes the sandbox with its network; does nothing when it is there.

        Raises CommandError or RuntimeError when it can not be made.
        """
        if self.is_open:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        holder = await sandbox.start(self.node.registry, f"sandbox of {self.name}", own_network=self.own_network)
        try:
            await self._connect(holder)
        except BaseException:
            await holder.end()
            raise
        self._sandbox = holder
        self._write_files()

    async def _connect(self, holder: Sandbox) -> None:
        if not self.own_network:
            self.pod_ip = self.node.settings.host_ip
            return
        self.pod_ip = self.pod_ip or self.node.addresses.take()
        await self.node.network.connect(self.uid, holder.pid, self.pod_ip)

    def _write_files(self) -> None:
        self.node.hosts.add(self._hosts_file, PodNames.of(self.pod, self.pod_ip))
        (self.folder / "hostname").write_text(hostname_of(self.pod) + "\n")
        # Without a name server look-ups fail at once and do not wait for one that pods can not reach.
        (self.folder / "resolv.conf").write_text("# The process node has no DNS: see /etc/hosts.\n")

    async def close(self) -> None:
        """Takes the sandbox down, and with it every process, mount and interface that is left of the pod."""
        holder, self._sandbox = self._sandbox, None
        if holder:
            await holder.end()
        self.node.hosts.remove(self._hosts_file)
        self.node.gpus.give_back(self.uid)
        if self.pod_ip and self.own_network:
            await self.node.network.disconnect(self.uid)
            self.node.addresses.give_back(self.pod_ip)

    async def mount_volumes(self) -> None:
        """Raises VolumeError while a volume can not be set up."""
        self.mounted = await self.volumes.set_up(self.sandbox)

    async def launch_spec(self, record: ContainerRecord) -> LaunchSpec:
        """Raises ConfigError while something that the container's spec names is missing."""
        container, settings = record.spec, self.node.settings
        prefix = str(settings.path_prefix)
        base = base_environment(os.environ, prefix, hostname_of(self.pod), self.node.api_address())
        base |= self._gpu_environment(container)
        sources = await environment_sources(self.node.api, self.pod["metadata"]["namespace"], container)
        variables = container_environment(self.with_addresses(), container, base, sources)
        variables = with_path_prefix(variables, prefix)
        return LaunchSpec(
            argv=arguments(container, variables),
            env=variables,
            working_dir=container.get("workingDir") or "/",
            hostname=hostname_of(self.pod),
            mounts=container_mounts(container, self.mounted, self._files(record), variables),
        )

    def _gpu_environment(self, container: Object) -> dict[str, str]:
        if GPU_RESOURCE not in ((container.get("resources") or {}).get("limits") or {}):
            return {}
        gpus = self.node.gpus.take(self.uid, container)
        # The node offers GPUs that it does not have; the project's images then compute on the CPU.
        return {"NVIDIA_VISIBLE_DEVICES": ",".join(map(str, gpus)), DEVICE_VARIABLE: CPU}

    def _files(self, record: ContainerRecord) -> dict[str, Path]:
        """The node's own files by where the container sees them."""
        message = self.termination_log(record)
        message.parent.mkdir(parents=True, exist_ok=True)
        message.touch()
        message.chmod(0o666)
        return {
            "/etc/hosts": self._hosts_file,
            "/etc/hostname": self.folder / "hostname",
            "/etc/resolv.conf": self.folder / "resolv.conf",
            termination_log_path(record.spec): message,
            **project_folders((project_root(), Path(sys.prefix), Path(sys.base_prefix))),
        }

    async def start(self, record: ContainerRecord, spec: LaunchSpec) -> ContainerProcess:
        """Raises StartError when the container's command can not be run."""
        what = f"container {record.name} of {self.name}"
        return await container_process.start(self.sandbox, spec, self.log_file(record), self.node.registry, what)

    def termination_log(self, record: ContainerRecord) -> Path:
        return self.folder / "containers" / record.name / f"{record.restart_count}.termination-log"

    def log_file(self, record: ContainerRecord, *, previous: bool = False) -> Path:
        return log_file(self.folder, record.name, record.restart_count - (1 if previous else 0))


def log_file(pod_folder: Path, container: str, restart_count: int) -> Path:
    return pod_folder / "logs" / container / f"{restart_count}.log"

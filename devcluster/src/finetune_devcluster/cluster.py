"""One cluster: a control plane and, if wanted, a process node or a real one in a network namespace of their own."""

import shutil
import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from finetune_devcluster import binaries, components, credentials, host, leftovers, network, processes
from finetune_devcluster.api_client import ApiClient
from finetune_devcluster.components import NODE, Component, Credentials
from finetune_devcluster.errors import DevclusterError
from finetune_devcluster.kubelet import machine
from finetune_devcluster.kubelet.node import KubeletNode
from finetune_devcluster.kubelet.place import Place
from finetune_devcluster.layout import Layout, default_home
from finetune_devcluster.locks import exclusive
from finetune_devcluster.network import Network
from finetune_devcluster.progress import say

START_SECONDS = 120
STOP_SECONDS = 10
LOG_LINES = 20


@dataclass(frozen=True)
class ComponentState:
    """What `devcluster status` says of one component; `pid` is None while it is down."""

    name: str
    pid: int | None
    address: str
    log: Path


class Cluster:
    """`with Cluster("mine") as cluster: cluster.kubectl("get", "nodes")`

    `up` and `down` may be called in any state, also after a call that was killed half-way.
    """

    def __init__(
        self,
        name: str = "default",
        root: Path | None = None,
        *,
        node: bool = True,
        kubelet: bool = False,
        gpus: int = 0,
        images: Path | None = None,
    ) -> None:
        self.layout = Layout((root or default_home()).resolve(), name)
        # With a real kubelet there is no process node.
        self.node = node and not kubelet
        self.kubelet = kubelet
        self.gpus = gpus
        # The folder with the programs of the images, where they are not this environment's
        self.images = images

    @property
    def kubeconfig(self) -> Path:
        return self.layout.kubeconfig

    @property
    def namespace(self) -> str:
        return network.namespace_name(self.layout.name)

    def __enter__(self) -> "Cluster":
        try:
            return self.up()
        except BaseException:
            self.down()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()

    def up(self) -> "Cluster":
        """Start what does not run yet and wait until all of it serves."""
        host.require_root()
        host.require_programs()
        programs = binaries.ensure()
        if self.kubelet:
            host.require_node_programs()
            binaries.ensure_node()
        with self._locked():
            self.layout.make_folders()
            self._refuse_another_node()
            if self.kubelet and not processes.running(self.layout.pid_file(components.KUBELET)):
                machine.require_no_other_kubelet()
            self._start(network.ensure(self.layout.name, self.layout.state), programs)
        return self

    def down(self, *, keep_state: bool = False) -> None:
        """End every process of the cluster and remove its network; the state folder too unless it is kept."""
        host.require_root()
        host.require_programs()
        with self._locked():
            self._stop()
            network.remove(self.layout.name, self.layout.state)
            leftovers.unmount_below(self.layout.state)
            machine.restore(Place(self.layout))
            if not keep_state and self.layout.state.exists():
                shutil.rmtree(self.layout.state)
            self.layout.lock.unlink()

    def status(self) -> list[ComponentState]:
        """What each component does; empty where the cluster does not exist."""
        joined = network.find(self.layout.name, self.layout.state)
        if joined is None:
            return []
        states = []
        for name, address in components.addresses(joined).items():
            pid_file, log_file = self.layout.pid_file(name), self.layout.log_file(name)
            # A control plane without a node is whole; one without a scheduler is not.
            if name in components.CONTROL_PLANE or pid_file.exists():
                found = processes.running(pid_file)
                states.append(ComponentState(name, found.pid if found else None, address, log_file))
        return states

    def kubectl(
        self,
        *arguments: str,
        input: str | None = None,  # noqa: A002 - named as in subprocess.run
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl as the cluster's administrator; the caller looks at `returncode`."""
        command = [str(binaries.ensure() / "kubectl"), *arguments]
        environment = self.client_environment()
        return subprocess.run(command, input=input, env=environment, capture_output=True, text=True)

    def client_environment(self) -> dict[str, str]:
        """The environment for a client of this cluster."""
        if not self.kubeconfig.exists():
            raise DevclusterError(
                f"{self.kubeconfig}: no such file; start the cluster with `devcluster up --name {self.layout.name}`"
            )
        return host.environment_without_proxies() | {"KUBECONFIG": str(self.kubeconfig)}

    def _locked(self) -> AbstractContextManager[None]:
        return exclusive(self.layout.lock, f"with the cluster {self.layout.name}")

    def _start(self, joined: Network, programs: Path) -> None:
        api = ApiClient(joined.cluster_ip, components.API_SERVER_PORT, self.layout.certificates)
        wanted = [*components.CONTROL_PLANE, *self._node_components()]
        if not all(processes.running(self.layout.pid_file(name)) for name in wanted):
            self._start_missing(joined, programs, api)
        self._await("the API server", api.is_ready)
        self._await("the default service account", api.has_default_service_account)
        if self._node_components():
            kubelet = (joined.cluster_ip, components.KUBELET_PORT)
            # A node that has died a moment ago still counts as ready: its port is the proof.
            self._await("the node", lambda: api.node_is_ready(components.NODE_NAME) and network.answers(*kubelet))
        if self.kubelet:
            self._furnish(KubeletNode(self.layout, joined))

    def _furnish(self, node: KubeletNode) -> None:
        if self.gpus:
            self._start_daemon(node.device_plugin(binaries.ensure_node(), self.gpus))
        node.furnish(self.kubectl, self.gpus)

    def _node_components(self) -> tuple[str, ...]:
        if self.kubelet:
            return components.KUBELET_NODE
        return (NODE,) if self.node else ()

    def _refuse_another_node(self) -> None:
        """Both would be the Node of the same name."""
        others = {NODE, components.KUBELET} - set(self._node_components())
        for name in sorted(others):
            if processes.running(self.layout.pid_file(name)) and self._node_components():
                raise DevclusterError(
                    f"the cluster {self.layout.name} runs with another kind of node ({name}): "
                    f"end it first with `devcluster down --name {self.layout.name}`"
                )

    def _start_missing(self, joined: Network, programs: Path, api: ApiClient) -> None:
        for pid_file in self.layout.pid_files():
            if not processes.running(pid_file):
                pid_file.unlink()
        issued = credentials.issue(self.layout, joined)
        self._start_daemon(components.etcd(self.layout, programs))
        self._start_daemon(components.api_server(joined, programs, issued))
        # The controller manager gives up when the API server does not answer within 10 s.
        self._await("the API server", api.is_ready)
        self._start_daemon(components.controller_manager(self.layout, programs, issued))
        self._start_daemon(components.scheduler(self.layout, programs))
        if self.node:
            self._start_daemon(components.process_node(self.layout, joined, issued, self.gpus, self.images))
        if self.kubelet:
            self._start_kubelet_node(KubeletNode(self.layout, joined), issued)

    def _start_kubelet_node(self, node: KubeletNode, issued: Credentials) -> None:
        programs = binaries.ensure_node()
        node.write_configuration(issued)
        self._start_daemon(node.containerd())
        self._await("containerd", node.containerd_answers)
        node.import_own_images(programs)
        for daemon in node.daemons(programs):
            self._start_daemon(daemon)

    def _start_daemon(self, component: Component) -> None:
        pid_file = self.layout.pid_file(component.name)
        if processes.running(pid_file):
            return
        say(f"starting {component.name}")
        program = network.inside(self.namespace, *component.program)
        environment = host.environment_without_proxies()
        processes.start_daemon(program, pid_file, self.layout.log_file(component.name), environment)

    def _await(self, what: str, condition: Callable[[], bool]) -> None:
        """Wait for the condition; raises DevclusterError as soon as a component has died."""

        def holds() -> bool:
            self._require_alive()
            return condition()

        if not processes.wait_until(holds, START_SECONDS):
            raise DevclusterError(f"{what} was not ready within {START_SECONDS} s; the logs are in {self.layout.logs}")

    def _require_alive(self) -> None:
        for pid_file in self.layout.pid_files():
            if not processes.running(pid_file):
                raise DevclusterError(self._obituary(pid_file.stem))

    def _obituary(self, component: str) -> str:
        log = self.layout.log_file(component)
        last = log.read_text(errors="replace").splitlines()[-LOG_LINES:] if log.exists() else []
        return "\n".join([f"{component} died; the last {len(last)} lines of {log}:", *last])

    def _stop(self) -> None:
        """Each before what it needs: a component that loses its server waits for it instead of ending."""
        # An `up` that was killed may have left one on its way.
        processes.await_launches(self.layout.pids)
        for name in reversed(components.START_ORDER):
            identity = processes.running(self.layout.pid_file(name))
            if identity:
                processes.stop(identity, STOP_SECONDS)
        # Another folder's cluster of the same name may own the namespace.
        owned = network.find(self.layout.name, self.layout.state)
        # Again until there are none: one may have started another while it was looked for.
        while found := leftovers.processes(owned, self.layout.node_state):
            processes.kill(found)
        for pid_file in self.layout.pid_files():
            pid_file.unlink()

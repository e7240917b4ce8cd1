"""What all pods of the node share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from finetune_devcluster.node.api import Api
from finetune_devcluster.node.devices import GpuPool
from finetune_devcluster.node.events import EventRecorder
from finetune_devcluster.node.hosts import HostsFiles
from finetune_devcluster.node.network import AddressPool, Network
from finetune_devcluster.node.processes import ProcessRegistry
from finetune_devcluster.node.settings import Settings


@dataclass(frozen=True)
class NodeContext:
    """`api_address` gives the ClusterIP and port of the service `kubernetes`."""

    settings: Settings
    api: Api
    network: Network
    addresses: AddressPool
    registry: ProcessRegistry
    events: EventRecorder
    hosts: HostsFiles
    gpus: GpuPool
    api_address: Callable[[], tuple[str, int]]

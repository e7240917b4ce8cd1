"""The pods' network: a bridge in the node's network namespace and a veth pair for each pod."""

from __future__ import annotations

import contextlib
import hashlib
from ipaddress import IPv4Network

from finetune_devcluster.node.processes import CommandError, program, run_command

BRIDGE = "pods0"


class AddressPool:
    """Hands out pod addresses in turn, so that an address is not used again soon after its pod has gone."""

    def __init__(self, network: IPv4Network) -> None:
        self._network = network
        self._used: set[int] = set()
        self._next = 2  # 0 is the network, 1 the bridge

    def take(self) -> str:
        """A free address.

        Raises RuntimeError when there is none.
        """
        last = self._network.num_addresses - 2
        for _ in range(last):
            candidate, self._next = self._next, self._next + 1 if self._next < last else 2
            if candidate not in self._used:
                self._used.add(candidate)
                return str(self._network.network_address + candidate)
        raise RuntimeError(f"pod network {self._network}: all {len(self._used)} addresses are in use")

    def give_back(self, address: str) -> None:
        hosts = self._network.network_address
        self._used.discard(int.from_bytes(_packed(address)) - int(hosts))


def _packed(address: str) -> bytes:
    return bytes(int(part) for part in address.split("."))


class Network:
    def __init__(self, pods: IPv4Network, services: IPv4Network) -> None:
        self._pods = pods
        self._services = services
        self._gateway = str(pods.network_address + 1)

    async def prepare(self) -> None:
        """Makes the bridge, and makes every ClusterIP a local address, so that the proxy can listen on it."""
        with contextlib.suppress(CommandError):  # absent unless an earlier life of the node made it
            await run_command(program("ip"), "link", "del", BRIDGE)
        await _ip(
            # With a hardware address of its own: a bridge that has none takes a pod's, another one when that pod
            # goes, and until they notice all pods send to one that is gone.
            f"link add {BRIDGE} address {_hardware_address(self._gateway)} type bridge",
            f"addr add {self._gateway}/{self._pods.prefixlen} dev {BRIDGE}",
            f"link set {BRIDGE} up",
            f"route replace local {self._services} dev lo",
            "link set lo up",
        )

    async def remove(self) -> None:
        await _ip(f"route del local {self._services} dev lo", f"link del {BRIDGE}")

    async def connect(self, pod_uid: str, sandbox_pid: int, address: str) -> None:
        """Gives the network namespace of the sandbox process its interface, address and default route."""
        outside = veth_name(pod_uid)
        await _ip(
            f"link add {outside} type veth peer name eth0 netns {sandbox_pid}",
            f"link set {outside} master {BRIDGE} up",
        )
        await _ip(
            "link set lo up",
            f"addr add {address}/{self._pods.prefixlen} dev eth0",
            "link set eth0 up",
            f"route add default via {self._gateway}",
            inside=sandbox_pid,
        )

    async def disconnect(self, pod_uid: str) -> None:
        with contextlib.suppress(CommandError):  # the kernel may have removed it with the namespace
            await run_command(program("ip"), "link", "del", veth_name(pod_uid))


def veth_name(pod_uid: str) -> str:
    """A name within the 15 bytes that the kernel allows."""
    return "pod" + hashlib.sha256(pod_uid.encode()).hexdigest()[:12]


def _hardware_address(address: str) -> str:
    """A locally administered one, made from the IPv4 address."""
    return ":".join(f"{byte:02x}" for byte in b"\x02\x00" + _packed(address))


async def _ip(*lines: str, inside: int | None = None) -> None:
    enter = [] if inside is None else [program("nsenter"), f"--net=/proc/{inside}/ns/net"]
    await run_command(*enter, program("ip"), "-batch", "-", stdin="\n".join(lines) + "\n")

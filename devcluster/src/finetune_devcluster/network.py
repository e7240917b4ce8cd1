"""One network namespace a cluster, joined to the host by a pair of virtual Ethernet devices.

The host's end is named `ftc-N` and carries the cluster's state folder as its alias: what exists, and whose it
is, is read from the kernel and never from a record that could be wrong.
"""

import json
import socket
import subprocess
from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path
from typing import Any

from finetune_devcluster.errors import DevclusterError
from finetune_devcluster.locks import exclusive

# All users of this machine choose from the same numbers, so the lock is the machine's.
LOCK_FILE = Path("/run/finetune-devcluster.lock")
NAMESPACES = Path("/run/netns")
NUMBERS = range(1, 251)
LINK_PREFIX = "ftc-"
CLUSTER_LINK = "eth0"


@dataclass(frozen=True)
class Network:
    """The namespace `namespace` and its joint with the host, number `number`."""

    namespace: str
    number: int

    @property
    def subnet(self) -> IPv4Network:
        return subnet(self.number)

    @property
    def host_link(self) -> str:
        return f"{LINK_PREFIX}{self.number}"

    @property
    def host_ip(self) -> str:
        return str(self.subnet[1])

    @property
    def cluster_ip(self) -> str:
        return str(self.subnet[2])

    def pids(self) -> list[int]:
        """The processes that run in the namespace."""
        return _pids(self.namespace)


def subnet(number: int) -> IPv4Network:
    return IPv4Network(f"10.201.{number}.0/30")


def namespace_name(cluster: str) -> str:
    return f"ftc-{cluster}"


def inside(namespace: str, *command: str) -> list[str]:
    """The command that runs `command` in the namespace; nsenter becomes it, so the pid stays the same."""
    return ["nsenter", f"--net={NAMESPACES / namespace}", "--", *command]


def choose_number(links: Collection[str], networks: Collection[IPv4Network]) -> int:
    """The first number whose link name and subnet are both free."""
    for number in NUMBERS:
        wanted = subnet(number)
        if f"{LINK_PREFIX}{number}" not in links and not any(wanted.overlaps(taken) for taken in networks):
            return number
    raise DevclusterError(
        f"no free cluster number in {NUMBERS.start}..{NUMBERS[-1]}: every link {LINK_PREFIX}N or subnet "
        "10.201.N.0/30 is in use; `ip link` shows them, end clusters with `devcluster down --name NAME`"
    )


def find(cluster: str, owner: Path) -> Network | None:
    """The network of the cluster whose state folder is `owner`, if it stands."""
    for link in _links():
        number = _number(link)
        if number is not None and link.get("ifalias") == str(owner):
            return Network(namespace_name(cluster), number)
    return None


def answers(address: str, port: int) -> bool:
    """Whether something accepts connections there."""
    try:
        with socket.create_connection((address, port), timeout=1):
            return True
    except OSError:
        return False


def ensure(cluster: str, owner: Path) -> Network:
    """Find or make the network; raises DevclusterError where another folder's cluster has this name."""
    with exclusive(LOCK_FILE, "making or removing a network"):
        existing = find(cluster, owner)
        if existing:
            return existing
        namespace = namespace_name(cluster)
        _remove_unfinished(namespace)
        if (NAMESPACES / namespace).exists():
            raise DevclusterError(
                f"network namespace {namespace} exists and is not of {owner}: choose another --name, or end "
                "the other cluster (the alias that `ip link` shows begins with its DEVCLUSTER_HOME)"
            )
        return _make(namespace, owner)


def remove(cluster: str, owner: Path) -> None:
    """Remove the namespace and both ends of the link; nothing to do where there is none."""
    with exclusive(LOCK_FILE, "making or removing a network"):
        _remove_unfinished(namespace_name(cluster))
        network = find(cluster, owner)
        if network is None:
            return
        # The link first: the kernel frees a namespace, and what is in it, some time after its last user.
        _ip("link", "delete", network.host_link)
        if (NAMESPACES / network.namespace).exists():
            _ip("netns", "delete", network.namespace)


def _make(namespace: str, owner: Path) -> Network:
    network = Network(namespace, choose_number([link["ifname"] for link in _links()], _used_networks()))
    host = IPv4Interface((network.host_ip, 30))
    peer = IPv4Interface((network.cluster_ip, 30))
    _ip("netns", "add", namespace)
    _ip("link", "add", network.host_link, "type", "veth", "peer", "name", CLUSTER_LINK, "netns", namespace)
    _ip("address", "add", str(host), "dev", network.host_link)
    _ip("link", "set", network.host_link, "up")
    _ip("-netns", namespace, "link", "set", "lo", "up")
    _ip("-netns", namespace, "address", "add", str(peer), "dev", CLUSTER_LINK)
    _ip("-netns", namespace, "link", "set", CLUSTER_LINK, "up")
    _ip("-netns", namespace, "route", "add", "default", "via", network.host_ip)
    # Last of all: a link without an alias is one whose making was interrupted.
    _ip("link", "set", "dev", network.host_link, "alias", str(owner))
    return network


def _remove_unfinished(namespace: str) -> None:
    """Remove what a killed `up` left half-made; the caller holds the lock, so nobody is making a link now."""
    for link in _links():
        if _number(link) is not None and "ifalias" not in link:
            _ip("link", "delete", link["ifname"])
    if (NAMESPACES / namespace).exists() and not _pids(namespace) and not _has_link(namespace):
        _ip("netns", "delete", namespace)


def _pids(namespace: str) -> list[int]:
    if not (NAMESPACES / namespace).exists():
        return []
    return [int(pid) for pid in _ip("netns", "pids", namespace).split()]


def _has_link(namespace: str) -> bool:
    return any(link["ifname"] == CLUSTER_LINK for link in _links("-netns", namespace))


def _number(link: dict[str, Any]) -> int | None:
    prefix, _, number = link["ifname"].partition("-")
    return int(number) if f"{prefix}-" == LINK_PREFIX and number.isdecimal() else None


def _links(*options: str) -> list[dict[str, Any]]:
    links: list[dict[str, Any]] = json.loads(_ip(*options, "-json", "link", "show") or "[]")
    return links


def _used_networks() -> list[IPv4Network]:
    """The subnets that the host's routes and addresses name.

    Wide routes (a VPN's 10.0.0.0/8, the default) are left out: the narrower 10.201.N.0/30 goes before them.
    """
    routes = json.loads(_ip("-json", "-4", "route", "show", "table", "all") or "[]")
    networks = [IPv4Network(route["dst"], strict=False) for route in routes if route["dst"][0].isdigit()]
    return [network for network in networks if network.prefixlen >= 16]


def _ip(*arguments: str) -> str:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    if done.returncode != 0:
        raise DevclusterError(f"`ip {' '.join(arguments)}` failed: {done.stderr.strip()}")
    return done.stdout

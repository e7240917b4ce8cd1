"""The pods' /etc/hosts: there is no DNS server, so every name a pod may look up stands there."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from finetune_devcluster.node.services import ServiceName
from finetune_devcluster.node.settings import Object

_HEAD = """\
# Kept up to date by the process node: it stands for the cluster's DNS.
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
"""
_DOMAIN = "cluster.local"


@dataclass(frozen=True)
class PodNames:
    address: str
    namespace: str
    hostname: str
    subdomain: str = ""
    aliases: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, pod: Object, address: str) -> PodNames:
        spec, metadata = pod["spec"], pod["metadata"]
        aliases = [(entry["ip"], " ".join(entry["hostnames"])) for entry in spec.get("hostAliases") or []]
        hostname = hostname_of(pod)
        return cls(address, metadata["namespace"], hostname, spec.get("subdomain") or "", tuple(aliases))


def hostname_of(pod: Object) -> str:
    """As the kubelet cuts it: at most 63 characters, not ending in a separator."""
    name = pod["spec"].get("hostname") or pod["metadata"]["name"]
    return str(name)[:63].rstrip("-.")


def render(pod: PodNames, names: Iterable[ServiceName]) -> str:
    own = pod.hostname
    if pod.subdomain:
        own = f"{pod.hostname}.{pod.subdomain}.{pod.namespace}.svc.{_DOMAIN} {own}"
    lines = [f"{pod.address}\t{own}"]
    lines += [f"{address}\t{hostnames}" for address, hostnames in pod.aliases]
    lines += [f"{name.address}\t{' '.join(_forms(name, pod.namespace))}" for name in names]
    return _HEAD + "\n".join(lines) + "\n"


def _forms(name: ServiceName, namespace: str) -> list[str]:
    first = f"{name.hostname}.{name.service}" if name.hostname else name.service
    base = f"{first}.{name.namespace}"
    forms = [f"{base}.svc.{_DOMAIN}", f"{base}.svc", base]
    return [*forms, first] if name.namespace == namespace else forms


class HostsFiles:
    """All pods' files; `current` gives the names that exist now."""

    def __init__(self, current: Callable[[], list[ServiceName]]) -> None:
        self._current = current
        self._files: dict[Path, PodNames] = {}

    def add(self, file: Path, pod: PodNames) -> None:
        self._files[file] = pod
        write_in_place(file, render(pod, self._current()))

    def remove(self, file: Path) -> None:
        self._files.pop(file, None)

    def update(self) -> None:
        names = self._current()
        for file, pod in self._files.items():
            write_in_place(file, render(pod, names))


def write_in_place(file: Path, text: str) -> None:
    """Keeps the inode, since the file is bound into containers, and never shows an empty file."""
    data = text.encode()
    if file.exists() and file.read_bytes() == data:
        return
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        os.pwrite(descriptor, data, 0)
        os.ftruncate(descriptor, len(data))
    finally:
        os.close(descriptor)

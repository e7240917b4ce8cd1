"""What Services and EndpointSlices mean: which addresses are forwarded where, and which names exist."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from finetune_devcluster.node.settings import Object

Address = tuple[str, int]


@dataclass(frozen=True)
class ServiceName:
    """One address under a service's name, or under `hostname` in a headless service's subdomain."""

    address: str
    service: str
    namespace: str
    hostname: str | None = None


def backends(services: Iterable[Object], slices: Iterable[Object]) -> dict[Address, list[Address]]:
    """Ready endpoints of each TCP port of each ClusterIP; an address without any is left out."""
    by_service = _slices_by_service(slices)
    found: dict[Address, list[Address]] = {}
    for service in services:
        own = by_service.get(_key(service), [])
        for port in service["spec"].get("ports") or []:
            endpoints = list(_endpoints(own, port.get("name") or ""))
            if port.get("protocol", "TCP") == "TCP" and endpoints:
                found |= {(address, port["port"]): endpoints for address in _cluster_ips(service)}
    return found


def names(services: Iterable[Object], slices: Iterable[Object]) -> list[ServiceName]:
    """All names that pods can resolve, sorted; those of headless services stand for their ready endpoints."""
    by_service = _slices_by_service(slices)
    found: set[ServiceName] = set()
    for service in services:
        namespace, name = _key(service)
        addresses = _cluster_ips(service)
        if not addresses:
            addresses = _ready_addresses(by_service.get((namespace, name), []))
        found |= {ServiceName(address, name, namespace) for address in addresses}
        for endpoint in _ready_entries(by_service.get((namespace, name), [])):
            if hostname := endpoint.get("hostname"):
                found |= {ServiceName(address, name, namespace, hostname) for address in endpoint["addresses"]}
    return sorted(found, key=lambda entry: (entry.namespace, entry.service, entry.hostname or "", entry.address))


def _key(item: Object) -> tuple[str, str]:
    return item["metadata"]["namespace"], item["metadata"]["name"]


def _cluster_ips(service: Object) -> list[str]:
    return [ip for ip in service["spec"].get("clusterIPs") or [] if ip not in ("", "None") and ":" not in ip]


def _slices_by_service(slices: Iterable[Object]) -> dict[tuple[str, str], list[Object]]:
    found: dict[tuple[str, str], list[Object]] = {}
    for item in slices:
        service = (item["metadata"].get("labels") or {}).get("kubernetes.io/service-name")
        if service and item.get("addressType") == "IPv4":
            found.setdefault((item["metadata"]["namespace"], service), []).append(item)
    return found


def _ready_entries(slices: list[Object]) -> Iterator[Object]:
    for item in slices:
        for endpoint in item.get("endpoints") or []:
            # Absent means ready: https://kubernetes.io/docs/concepts/services-networking/endpoint-slices/
            if (endpoint.get("conditions") or {}).get("ready", True):
                yield endpoint


def _ready_addresses(slices: list[Object]) -> list[str]:
    return [address for endpoint in _ready_entries(slices) for address in endpoint["addresses"]]


def _endpoints(slices: list[Object], port_name: str) -> Iterator[Address]:
    for item in slices:
        ports = [port["port"] for port in item.get("ports") or [] if (port.get("name") or "") == port_name]
        for address in _ready_addresses([item]):
            for port in ports:
                yield address, port

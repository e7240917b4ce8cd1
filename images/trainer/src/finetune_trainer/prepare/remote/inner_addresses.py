"""Addresses that only the node reaches, and no hub has a reason to send anybody to: the cloud's metadata with its credentials."""

from __future__ import annotations

import ipaddress
import socket
from typing import Any

_METADATA = frozenset(map(ipaddress.ip_address, ("fd00:ec2::254", "100.100.100.200", "192.0.0.192")))
"""Metadata services that are not at a link-local address: of AWS over IPv6, Alibaba and Oracle."""


class InnerAddress(Exception):
    """A hub led to such an address. The message says to which."""


def watch_redirects() -> None:
    """Have every request of huggingface_hub looked at before it is sent, those that it is redirected to included."""
    from huggingface_hub import get_session

    hooks = get_session().event_hooks["request"]
    if refuse_inner not in hooks:
        hooks.append(refuse_inner)


def refuse_inner(request: Any) -> None:
    """Raise InnerAddress where the request's host is, or resolves to, such an address."""
    host = request.url.host
    if any(address.is_link_local or address in _METADATA for address in _addresses(host)):
        raise InnerAddress(f"it leads to {host}, an address of the node's own, which is never asked")


def _addresses(host: str) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return []  # told by the connection that will not come about, or a proxy resolves it
    addresses = [ipaddress.ip_address(str(each[4][0]).partition("%")[0]) for each in found]
    return [getattr(address, "ipv4_mapped", None) or address for address in addresses]

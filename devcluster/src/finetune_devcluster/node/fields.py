"""Field references of the downward API: what a container may learn about its own pod."""

from __future__ import annotations

import os
import re
from typing import Any

from finetune_devcluster.node import quantity
from finetune_devcluster.node.settings import Object

_MAP_FIELD = re.compile(r"^metadata\.(labels|annotations)\['(.+)'\]$")


class FieldError(Exception):
    """A fieldRef or resourceFieldRef names something that the node does not know."""


def field_value(pod: Object, path: str) -> str:
    """Value of a `fieldRef`; the pod's status must hold its addresses.

    Raises FieldError for a path that is not part of the downward API.
    """
    if match := _MAP_FIELD.match(path):
        return str((pod["metadata"].get(match[1]) or {}).get(match[2], ""))
    if path in ("metadata.labels", "metadata.annotations"):
        return _render_map(pod["metadata"].get(path.partition(".")[2]) or {})
    if path in ("status.podIPs", "status.hostIPs"):
        return ",".join(entry["ip"] for entry in _lookup(pod, path) or [])
    if path not in _SCALARS:
        raise FieldError(f"fieldRef {path!r} is not known; expected one of {sorted(_SCALARS)}, labels or annotations")
    return str(_lookup(pod, path) or "")


_SCALARS = {
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.podIP",
    "status.hostIP",
}


def _lookup(pod: Object, path: str) -> Any:
    value: Any = pod
    for part in path.split("."):
        value = value.get(part) or {}
    return value


def _render_map(entries: dict[str, str]) -> str:
    escaped = {
        key: value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") for key, value in entries.items()
    }
    return "\n".join(f'{key}="{escaped[key]}"' for key in sorted(escaped))


def resource_value(pod: Object, container: Object, reference: Object) -> str:
    """Value of a `resourceFieldRef`, in units of its divisor; a limit that is not set is what the node has.

    Raises FieldError for a resource that containers do not have.
    """
    section, _, resource = reference["resource"].partition(".")
    name = reference.get("containerName")
    if name:
        container = _container(pod, name)
    resources = container.get("resources") or {}
    amount = (resources.get(section) or {}).get(resource)
    if section not in ("limits", "requests") or not resource:
        raise FieldError(f"resourceFieldRef {reference['resource']!r}: expected limits.NAME or requests.NAME")
    if amount is None:
        amount = _default(section, resource)
    return str(quantity.in_units(amount, reference.get("divisor") or "1"))


def _container(pod: Object, name: str) -> Object:
    spec = pod["spec"]
    for container in [*(spec.get("initContainers") or []), *spec["containers"]]:
        if container["name"] == name:
            found: Object = container
            return found
    raise FieldError(f"resourceFieldRef: the pod has no container {name!r}")


def _default(section: str, resource: str) -> str:
    if section == "limits" and resource == "cpu":
        return str(os.cpu_count() or 1)
    if section == "limits" and resource == "memory":
        return str(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return "0"

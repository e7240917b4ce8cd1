"""What kube-linter, kubescape and their like look for in a pod, as plain functions over the manifest."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

Pod = dict[str, Any]
"""The spec of a pod."""
Check = Callable[[Pod], bool]


def containers(pod: Pod) -> list[dict[str, Any]]:
    return [*pod.get("initContainers", []), *pod["containers"], *pod.get("ephemeralContainers", [])]


def _every(holds: Callable[[dict[str, Any]], bool]) -> Check:
    return lambda pod: all(holds(container) for container in containers(pod))


def _security(container: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = container.get("securityContext", {})
    return found


def _limits(container: dict[str, Any], which: str) -> dict[str, Any]:
    found: dict[str, Any] = container.get("resources", {}).get(which, {})
    return found


def _is_pinned(image: str) -> bool:
    tag = image.rpartition("/")[2].partition(":")[2]
    return "@sha256:" in image or (tag != "" and tag != "latest")


CHECKS: dict[str, Check] = {
    "no namespace of the host": lambda pod: not any(pod.get(name) for name in ("hostNetwork", "hostPID", "hostIPC")),
    "no path of the host": lambda pod: not any("hostPath" in volume for volume in pod.get("volumes", [])),
    "no port of the host": _every(lambda c: not any("hostPort" in port for port in c.get("ports", []))),
    "not as root": lambda pod: pod["securityContext"].get("runAsNonRoot") is True,
    "seccomp RuntimeDefault": lambda pod: pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"},
    "not privileged": _every(lambda c: not _security(c).get("privileged")),
    "no escalation": _every(lambda c: _security(c).get("allowPrivilegeEscalation") is False),
    "no capability": _every(lambda c: _security(c)["capabilities"] == {"drop": ["ALL"]}),
    "a root file system that cannot be written": _every(lambda c: _security(c).get("readOnlyRootFilesystem") is True),
    "no user 0": lambda pod: pod["securityContext"].get("runAsUser") != 0,
    "no /proc unmasked": _every(lambda c: "procMount" not in _security(c)),
    "no sysctls": lambda pod: "sysctls" not in pod["securityContext"],
    "cpu and memory requested": _every(lambda c: {"cpu", "memory"} <= _limits(c, "requests").keys()),
    "memory limited": _every(lambda c: "memory" in _limits(c, "limits")),
    "an image of a version": _every(lambda c: _is_pinned(c["image"])),
    "no secret in the environment": _every(
        lambda c: "envFrom" not in c and not any("secretKeyRef" in e.get("valueFrom", {}) for e in c.get("env", []))
    ),
    "no shell": _every(
        lambda c: not {"sh", "bash", "/bin/sh", "/bin/bash", "-c"} & {*c.get("command", ()), *c.get("args", ())}
    ),
    "no socket of the container runtime": lambda pod: (
        "docker.sock" not in str(pod) and "containerd.sock" not in str(pod)
    ),
    "secrets for the pod's own group only": lambda pod: all(
        volume["secret"].get("defaultMode") == 0o440 for volume in pod.get("volumes", []) if "secret" in volume
    ),
}
TOKENLESS = "no token of the API server"


def mounts_no_token(pod: Pod) -> bool:
    return pod.get("automountServiceAccountToken") is False


def pods_of(manifests: list[dict[str, Any]]) -> Iterator[tuple[str, Pod]]:
    """Name and spec of every pod and pod template."""
    for manifest in manifests:
        name = f"{manifest['kind']}/{manifest['metadata']['name']}"
        if manifest["kind"] == "Pod":
            yield name, manifest["spec"]
        elif "template" in manifest.get("spec", {}):
            yield name, manifest["spec"]["template"]["spec"]

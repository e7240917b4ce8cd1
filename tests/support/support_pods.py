"""Pods for tests: their manifests, and kubectl in one namespace of a cluster."""

import contextlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_devcluster import Cluster
from support_wait import eventually

Object = dict[str, Any]


@dataclass(frozen=True)
class Space:
    """One Kubernetes namespace of the cluster."""

    cluster: Cluster
    name: str

    def kubectl(self, *arguments: str, **options: str) -> str:
        done = self.cluster.kubectl("-n", self.name, *arguments, **options)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def apply(self, *manifests: Object) -> None:
        items = {"apiVersion": "v1", "kind": "List", "items": list(manifests)}
        self.kubectl("apply", "-f", "-", input=json.dumps(items))

    def get(self, kind: str, name: str) -> Object:
        found: Object = json.loads(self.kubectl("get", kind, name, "-o", "json"))
        return found

    def names(self, kind: str) -> list[str]:
        return [name.partition("/")[2] for name in self.kubectl("get", kind, "-o", "name").split()]

    def create(self) -> None:
        """Makes the namespace and waits for its service account, without which the API server refuses pods."""
        assert self.cluster.kubectl("create", "namespace", self.name).returncode == 0
        eventually(lambda: "default" in self.names("serviceaccount"))

    def phase(self, pod: str) -> str:
        return str(self.get("pod", pod)["status"].get("phase"))

    def container(self, pod: str) -> Object:
        """Status of the pod's first container; empty until the node has looked at the pod."""
        return dict((self.get("pod", pod)["status"].get("containerStatuses") or [{}])[0])

    def restarts(self, pod: str) -> int:
        return int(self.container(pod).get("restartCount", 0))

    def await_phase(self, pod: str, phase: str) -> None:
        self.kubectl("wait", f"--for=jsonpath={{.status.phase}}={phase}", f"pod/{pod}", "--timeout=180s")

    def events(self, pod: str) -> str:
        return self.kubectl("get", "events", f"--field-selector=involvedObject.name={pod}")

    def log(self, pod: str, *options: str) -> str:
        return self.kubectl("logs", pod, *options)

    def output(self, *manifests: Object) -> str:
        """The log of the last of the manifests, a pod, once it has succeeded."""
        name = manifests[-1]["metadata"]["name"]
        self.apply(*manifests)
        self.await_phase(name, "Succeeded")
        return self.log(name)

    def token_review(self, token: str, audience: str) -> Object:
        spec = {"token": token, "audiences": [audience]}
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": spec}
        answer: Object = json.loads(self.kubectl("create", "-o", "json", "-f", "-", input=json.dumps(review)))
        return answer["status"]


def python(script: str, **container: Any) -> Object:
    return {"name": "main", "image": "none", "command": ["python", "-u", "-c", script], **container}


def pod(name: str, *containers: Object, **spec: Any) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"restartPolicy": "Never", "containers": list(containers), **spec},
    }


def config_map(name: str, **data: str) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def job(name: str, container: Object, **spec: Any) -> Object:
    template = {"spec": {"restartPolicy": "Never", "containers": [container], **spec}}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {"backoffLimit": 0, "template": template},
    }


def claim(name: str) -> Object:
    spec = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": spec}


def service(name: str) -> Object:
    spec = {"selector": {"app": name}, "ports": [{"port": 80, "targetPort": "web"}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


def processes_with(marker: str) -> dict[int, str]:
    """Processes of this machine whose command line holds the marker: their network namespace by pid."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            # A process may end while it is looked at.
            with contextlib.suppress(OSError):
                if marker.encode() in (folder / "cmdline").read_bytes():
                    found[int(folder.name)] = os.readlink(folder / "ns" / "net")
    return found


def network_namespaces() -> set[str]:
    found = set()
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                found.add(os.readlink(folder / "ns" / "net"))
    return found

"""One Kubernetes namespace with FineTuneJobs in it, in a control plane without a node: the test plays the kubelet."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import dataclass
from typing import Any

from finetune_devcluster import Cluster
from finetune_operator.api import names
from finetune_operator.api.outcome import TerminationMessage
from operator_process import apply
from support_wait import eventually

CHILDREN = "jobs,deployments,services,configmaps,persistentvolumeclaims,pods"
Manifest = dict[str, Any]


@dataclass(frozen=True)
class Space:
    """A Kubernetes namespace of the test's own."""

    cluster: Cluster
    name: str

    def kubectl(self, *arguments: str) -> str:
        done = self.cluster.kubectl("-n", self.name, *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def get(self, kind: str, name: str) -> Manifest:
        found: Manifest = json.loads(self.kubectl("get", kind, name, "-o", "json"))
        return found

    def exists(self, kind: str, name: str) -> bool:
        return self.cluster.kubectl("-n", self.name, "get", kind, name).returncode == 0

    def items(self, kinds: str, *options: str) -> list[Manifest]:
        found: list[Manifest] = json.loads(self.kubectl("get", kinds, "-o", "json", *options))["items"]
        return found

    def children(self) -> dict[str, str]:
        """Every child and pod of every FineTuneJob, with its UID."""
        found = self.items(CHILDREN, "-l", names.JOB_NAME_LABEL)
        return {f"{item['kind']}/{item['metadata']['name']}": item["metadata"]["uid"] for item in found}

    def versions(self) -> dict[str, str]:
        """Every object that the operator writes, with its resource version. Claims and pods are others' to write, too."""
        found = self.items("finetunejobs,jobs,deployments,services,configmaps")
        found += self.items("events", "--field-selector=involvedObject.kind=FineTuneJob")
        return {f"{item['kind']}/{item['metadata']['name']}": item["metadata"]["resourceVersion"] for item in found}

    def condition(self, job: str, kind: str) -> Manifest:
        found = self.get("finetunejob", job).get("status", {}).get("conditions", [])
        return next((entry for entry in found if entry["type"] == kind), {})

    def reason(self, job: str) -> str:
        return str(self.condition(job, "Ready").get("reason", ""))

    def await_reason(self, job: str, reason: str) -> None:
        eventually(lambda: self.reason(job) == reason, message=f"{job} is {reason}")

    def pod_of(self, job: str) -> str:
        """Name of the one pod of a batch Job."""
        pods = eventually(
            lambda: self.items("pods", "-l", f"batch.kubernetes.io/job-name={job}"), message=f"pod of {job}"
        )
        return str(pods[0]["metadata"]["name"])

    def end_pod(self, pod: str, exit_code: int, message: str) -> None:
        """Play the kubelet: the pod's container ended so."""
        now = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        container = self.get("pod", pod)["spec"]["containers"][0]["name"]
        ended = {"exitCode": exit_code, "reason": "Error", "message": message, "startedAt": now, "finishedAt": now}
        status = {
            "phase": "Failed" if exit_code else "Succeeded",
            "startTime": now,
            "containerStatuses": [
                {
                    "name": container,
                    "image": "x",
                    "imageID": "x",
                    "ready": False,
                    "restartCount": 0,
                    "state": {"terminated": ended},
                }
            ],
        }
        self.kubectl("patch", "pod", pod, "--subresource=status", "--type=merge", "-p", json.dumps({"status": status}))

    def finish_prepare(self, job: str) -> None:
        figures = {"rows": 12, "dropped": 0, "tokens": 3000, "trainedTokens": 1000}
        self.end_pod(self.pod_of(names.prepare(job)), 0, TerminationMessage("Succeeded", "", figures).encode().decode())


def manifest(space: Space, name: str, **spec: Any) -> Manifest:
    return {
        "apiVersion": "finetune-operator.io/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": name, "namespace": space.name},
        "spec": {
            "model": {"source": "hf://org/tiny"},
            "datasets": [{"source": "hf://org/chat"}],
            "method": "LoRA",
            "storage": {"retention": "Delete"},
            **spec,
        },
    }


def create(space: Space, name: str, **spec: Any) -> None:
    apply(space.cluster, manifest(space, name, **spec))

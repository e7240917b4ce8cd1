"""Lives of FineTuneJobs on a control plane without a node, recorded stage by stage as GitOps tools see them."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import argocd
from finetune_operator.api import names
from job_space import Manifest, Space
from support_wait import eventually

NODE = "played"


@dataclass(frozen=True)
class Moment:
    """The job in one stage."""

    job: Manifest
    """Live, with managedFields."""
    synced: Manifest
    """What the same manifest from git, synced again, would make of it."""
    applied: Manifest
    """The same by `kubectl apply` without the server's help."""


@dataclass
class Recorder:
    """Plays git, and the kubelet of one node."""

    space: Space
    moments: dict[str, Moment] = field(default_factory=dict)

    def make_node(self) -> None:
        # Pods that are bound to a node that does not exist are deleted after a while
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}}
        done = self.space.cluster.kubectl("create", "-f", "-", input=json.dumps(node))
        assert done.returncode == 0 or "AlreadyExists" in done.stderr, done.stderr

    def record(self, manifest: Manifest, stage: str, name: str = "") -> Moment:
        """Wait for the stage, and keep the job as it is then, under ``name`` if that is not the stage's own."""
        job = manifest["metadata"]["name"]
        self.space.await_reason(job, stage)
        self.moments[name or stage] = moment = eventually(lambda: self._moment(manifest), message=f"{job} holds still")
        return moment

    def _moment(self, manifest: Manifest) -> Moment | None:
        """None where the operator wrote between the first look and the last."""
        before = self._live(manifest)
        synced = argocd.predicted(self.space.cluster, manifest)
        applied = argocd.predicted_by_kubectl(self.space.cluster, manifest)
        after = self._live(manifest)
        still = before["metadata"]["resourceVersion"] == after["metadata"]["resourceVersion"]
        return Moment(job=after, synced=synced, applied=applied) if still else None

    def _live(self, manifest: Manifest) -> Manifest:
        name = manifest["metadata"]["name"]
        found: Manifest = json.loads(
            self.space.kubectl("get", "finetunejob", name, "-o", "json", "--show-managed-fields")
        )
        return found

    def run(self, pod: str, *, ready: bool = True) -> None:
        """The pod runs on the node."""
        target = {"apiVersion": "v1", "kind": "Node", "name": NODE}
        binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": pod}, "target": target}
        path = f"/api/v1/namespaces/{self.space.name}/pods/{pod}/binding"
        done = self.space.cluster.kubectl("create", "--raw", path, "-f", "-", input=json.dumps(binding))
        assert done.returncode == 0 or "already assigned" in done.stderr, done.stderr
        container = self.space.get("pod", pod)["spec"]["containers"][0]["name"]
        now = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        state = {"name": container, "image": "x", "imageID": "x", "ready": ready, "restartCount": 0}
        status = {
            "phase": "Running",
            "startTime": now,
            "conditions": [{"type": "Ready", "status": str(ready), "lastTransitionTime": now}],
            "containerStatuses": [state | {"state": {"running": {"startedAt": now}}}],
        }
        self._patch_status(pod, status)

    def _patch_status(self, pod: str, status: Manifest) -> None:
        patch = json.dumps({"status": status})
        self.space.kubectl("patch", "pod", pod, "--subresource=status", "--type=strategic", "-p", patch)

    def play(self, manifest: Manifest, stage: str, child: str, exit_code: int) -> None:
        """Run the one pod of a batch Job, record the stage, and end it."""
        pod = self.space.pod_of(child)
        self.run(pod)
        self.record(manifest, stage)
        self.space.end_pod(pod, exit_code, json.dumps({"reason": "Succeeded", "message": "", "figures": {}}))

    def fail_prepare(self, job: str, why: str) -> None:
        """The prepare pod finds wrong data."""
        words = json.dumps({"reason": "InvalidData", "message": why})
        self.space.end_pod(self.space.pod_of(names.prepare(job)), 65, words)

    def serving_pod(self, job: str) -> str:
        pods = eventually(lambda: self._live_serving_pods(job), message=f"serving pod of {job}")
        return pods[0]

    def _live_serving_pods(self, job: str) -> list[str]:
        found = self.space.items("pods", "-l", f"{names.JOB_NAME_LABEL}={job},{names.STAGE_LABEL}=serve")
        return [pod["metadata"]["name"] for pod in found if "deletionTimestamp" not in pod["metadata"]]


def whole_life(recorder: Recorder, manifest: Manifest, start_operator: Callable[[], None]) -> None:
    """From a manifest in git to a served model, with an attempt that fails on the way; suspended and resumed at the end."""
    job, space = manifest["metadata"]["name"], recorder.space
    argocd.sync(space.cluster, manifest)
    recorder.moments["unseen"] = eventually(lambda: recorder._moment(manifest), message="nobody writes")
    start_operator()
    recorder.record(manifest, "Queued")
    recorder.make_node()
    recorder.play(manifest, "Preparing", names.prepare(job), 0)
    recorder.play(manifest, "Training", names.train(job, 0), 1)
    recorder.record(manifest, "Retrying")
    recorder.play(manifest, "Training", names.train(job, 1), 0)
    recorder.play(manifest, "Merging", names.merge(job), 0)
    pod = recorder.serving_pod(job)
    recorder.run(pod, ready=False)
    recorder.record(manifest, "Deploying")
    recorder.run(pod)
    recorder.record(manifest, "Serving")


def suspended_life(recorder: Recorder, manifest: Manifest) -> None:
    """A served job that is suspended in git."""
    suspended = edited(manifest, suspend=True)
    argocd.sync(recorder.space.cluster, suspended)
    recorder.record(suspended, "Suspended")


def failed_life(recorder: Recorder, manifest: Manifest) -> None:
    """A job whose prepare pod finds wrong data."""
    argocd.sync(recorder.space.cluster, manifest)
    recorder.fail_prepare(manifest["metadata"]["name"], "rows.jsonl:3: messages is empty")
    recorder.record(manifest, "Failed")


def completed_life(recorder: Recorder, manifest: Manifest) -> None:
    """A job that is done when it is trained."""
    argocd.sync(recorder.space.cluster, manifest)
    job, space = manifest["metadata"]["name"], recorder.space
    for child in (names.prepare(job), names.train(job, 0)):
        space.end_pod(space.pod_of(child), 0, json.dumps({"reason": "Succeeded", "message": "", "figures": {}}))
    recorder.record(manifest, "Completed")


def edited(manifest: Manifest, **spec: Any) -> Manifest:
    """The manifest with fields of its spec changed, as by a commit."""
    return {**manifest, "spec": {**manifest["spec"], **spec}}

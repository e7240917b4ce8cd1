"""Drives FineTuneJobs in a cluster with an operator: apply, observe, delete, and kill what runs them."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kubernetes import client, config

from finetune_devcluster import Cluster, binaries
from finetune_devcluster.layout import project_root
from finetune_devcluster.node.processes import kill, records_in
from finetune_operator.api.manifest_yaml import load_all
from real_cluster import Site
from support_wait import eventually

GROUP, VERSION, PLURAL = "finetune-operator.io", "v1alpha1", "finetunejobs"
Manifest = dict[str, Any]


def tiny_job(name: str, method: str = "LoRA", *, steps: int = 30, serve: bool = True) -> Manifest:
    """A FineTuneJob on the tiny model that runs through all its stages in about a minute."""
    manifest: Manifest = load_all((project_root() / "examples/demo/tiny-lora.yaml").read_text())[0]
    manifest["metadata"]["name"] = name
    spec = manifest["spec"]
    spec["model"]["source"] = "pvc://models/tiny-qwen2"
    spec["method"] = method
    spec["training"]["maxSteps"] = steps
    spec["logging"]["steps"] = 2
    if method == "Full":
        del spec["lora"]
    if not serve:
        del spec["serving"]
    return manifest


class Driver:
    """One namespace of a cluster, seen as its user sees it."""

    def __init__(self, cluster: Cluster | Site, namespace: str = "default") -> None:
        self.cluster = cluster
        self.namespace = namespace
        api = config.new_client_from_config(str(cluster.kubeconfig))
        self.custom = client.CustomObjectsApi(api)
        self.batch = client.BatchV1Api(api)
        self.core = client.CoreV1Api(api)

    def apply(self, manifest: Manifest) -> None:
        done = self.cluster.kubectl("--namespace", self.namespace, "apply", "-f", "-", input=json.dumps(manifest))
        assert done.returncode == 0, done.stderr

    def kubectl(self, *arguments: str) -> str:
        done = self.cluster.kubectl("--namespace", self.namespace, *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def status(self, job: str) -> Manifest:
        found = self.custom.get_namespaced_custom_object(GROUP, VERSION, self.namespace, PLURAL, job)
        return dict(found.get("status") or {})

    def condition(self, job: str, kind: str) -> Manifest:
        for condition in self.status(job).get("conditions", []):
            if condition["type"] == kind:
                return dict(condition)
        return {}

    def stage(self, job: str) -> str:
        """What the STATUS column shows."""
        return str(self.condition(job, "Ready").get("reason", ""))

    def await_stage(self, job: str, *stages: str, timeout: float = 300) -> None:
        eventually(lambda: self._reached(job, stages), timeout, f"{job} reaches {stages}")

    def _reached(self, job: str, stages: tuple[str, ...]) -> bool:
        now = self.stage(job)
        assert now != "Failed" or "Failed" in stages, self.condition(job, "Failed")
        return now in stages

    def await_condition(self, job: str, kind: str, timeout: float = 300) -> Manifest:
        eventually(lambda: self._is_true(job, kind), timeout, f"{job} is {kind}")
        return self.condition(job, kind)

    def _is_true(self, job: str, kind: str) -> bool:
        failed = self.condition(job, "Failed")
        assert kind == "Failed" or failed.get("status") != "True", failed
        return self.condition(job, kind).get("status") == "True"

    def delete(self, job: str) -> None:
        self.custom.delete_namespaced_custom_object(GROUP, VERSION, self.namespace, PLURAL, job)

    def children(self, job: str) -> list[str]:
        """Everything in the namespace that belongs to the job, pods included."""
        kinds = "jobs,deployments,services,configmaps,persistentvolumeclaims,pods,replicasets,finetunejobs"
        found = json.loads(self.kubectl("get", kinds, "--output", "json"))["items"]
        return [f"{item['kind']}/{item['metadata']['name']}" for item in found if _belongs(item, job)]

    def process_ids(self, what: str) -> list[int]:
        """Processes that the process node runs for containers whose description holds the text."""
        records = records_in(self.cluster.layout.node_state / "processes")
        return [record.pid for record in records if what in record.what and record.is_alive()]

    def kill_operator(self) -> None:
        """SIGKILL the operator; the process node starts it again, as the kubelet would."""
        killed = eventually(lambda: self.process_ids("container operator of"), message="the operator runs")
        for pid in killed:
            kill(pid)
        # After several kills the node waits for half a minute before it starts a container again.
        eventually(lambda: set(self.process_ids("container operator of")) - set(killed), 120, "the operator runs again")

    @contextmanager
    def recorded_jobs(self) -> Iterator[set[tuple[str, str]]]:
        """(name, uid) of every Job that is created while the block runs, also of those that are gone again."""
        command = [
            str(binaries.ensure() / "kubectl"),
            "--namespace",
            self.namespace,
            "get",
            "jobs",
            "--watch",
            "--output",
        ]
        environment = self.cluster.client_environment()
        with subprocess.Popen(
            [*command, "custom-columns=N:.metadata.name,U:.metadata.uid", "--no-headers"],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        ) as watch:
            seen: set[tuple[str, str]] = set()
            reader = threading.Thread(target=_collect, args=(watch, seen))
            reader.start()
            try:
                yield seen
            finally:
                watch.terminate()
                reader.join()


def _collect(watch: subprocess.Popen[str], seen: set[tuple[str, str]]) -> None:
    assert watch.stdout is not None
    for line in watch.stdout:
        name, uid = line.split()
        seen.add((name, uid))


def _belongs(item: Manifest, job: str) -> bool:
    metadata = item["metadata"]
    labelled = metadata.get("labels", {}).get("finetune-operator.io/job") == job
    return labelled or (item["kind"] == "FineTuneJob" and metadata["name"] == job)

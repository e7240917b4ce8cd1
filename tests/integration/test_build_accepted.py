"""A real API server accepts every child that is built, and the strictest pod security standard every pod."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from every_child import SPECS, children
from finetune_devcluster import Cluster
from finetune_operator.build.types import Manifest
from manifest_builders import NAMESPACE, a_job
from support_wait import eventually


@pytest.fixture(scope="module")
def namespace(cluster: Cluster) -> Iterator[Cluster]:
    """The cluster with a namespace that admits pods of the restricted standard only."""
    admit = {"pod-security.kubernetes.io/enforce": "restricted"}
    done = send(cluster, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": admit}})
    assert done == ""
    # Admission refuses every pod until the namespace has its default ServiceAccount.
    eventually(
        lambda: cluster.kubectl("get", "serviceaccount", "default", "-n", NAMESPACE).returncode == 0,
        message="its account",
    )
    yield cluster
    cluster.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


def send(cluster: Cluster, manifest: Manifest, *arguments: str) -> str:
    """Create an object; what the API server says against it."""
    done = cluster.kubectl("create", "--validate=strict", *arguments, "-f", "-", input=json.dumps(manifest))
    return done.stderr


@pytest.mark.parametrize("spec", SPECS.values(), ids=list(SPECS))
def test_every_child_passes_strict_validation_without_a_warning(namespace: Cluster, spec: dict[str, Any]) -> None:
    # The longest name that a job may have, so that every child's name is as long as it can get.
    world = a_job("q" + "w" * 39).with_spec(**spec)
    world.with_annotations({"kueue.x-k8s.io/podset-required-topology": "rack"})
    refused = {
        manifest["metadata"]["name"]: words
        for manifest in children(world.job())
        if (words := send(namespace, manifest, "--dry-run=server"))
    }
    assert refused == {}


@pytest.mark.parametrize("spec", SPECS.values(), ids=list(SPECS))
def test_every_pod_meets_the_restricted_standard(namespace: Cluster, spec: dict[str, Any]) -> None:
    templates = [child["spec"]["template"] for child in children(a_job().with_spec(**spec).job()) if is_workload(child)]
    assert len(templates) == 4
    for number, template in enumerate(templates):
        pod = {"apiVersion": "v1", "kind": "Pod", "spec": without_admission_checks(template["spec"])}
        pod["metadata"] = template["metadata"] | {"name": f"pod-{number}", "namespace": NAMESPACE}
        assert send(namespace, pod, "--dry-run=server") == ""


def is_workload(child: Manifest) -> bool:
    return child["kind"] in ("Job", "Deployment")


def without_admission_checks(spec: Manifest) -> Manifest:
    """The pod without what other admission plugins look up: its priority class."""
    return {key: value for key, value in spec.items() if key != "priorityClassName"}

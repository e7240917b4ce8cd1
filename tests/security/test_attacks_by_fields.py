"""T1, T2, T6, T15, T18: fields that a FineTuneJob must not have, references that leave its namespace, and what grows without bounds.

The layer is the API server's: the schema (unknown fields, patterns, bounds) and CEL.
"""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from kubernetes import client

from api_refusals import refusal, send
from schema_fields import Field, fields, spec_schema
from wrong_manifests import changed, valid_manifest

POD_FIELDS: dict[str, Any] = {
    "serviceAccountName": "cluster-admin",
    "automountServiceAccountToken": True,
    "hostPath": {"path": "/"},
    "hostNetwork": True,
    "hostPID": True,
    "image": "evil.example/rootkit",
    "command": ["sh", "-c", "id"],
    "args": ["--trust-remote-code"],
    "env": [{"name": "LD_PRELOAD", "value": "/finetune/job/evil.so"}],
    "envFrom": [{"secretRef": {"name": "other"}}],
    "volumes": [{"name": "x", "hostPath": {"path": "/var/run"}}],
    "volumeMounts": [{"name": "x", "mountPath": "/"}],
    "nodeName": "control-plane-1",
    "securityContext": {"privileged": True},
    "initContainers": [{"name": "x", "image": "evil.example/x"}],
    "podTemplate": {"spec": {"hostPID": True}},
    "runtimeClassName": "unconfined",
    "extraArgs": ["--vhead-file=/tmp/x"],
    "trustRemoteCode": True,
    "namespace": "kube-system",
}
BLOCKS = ("", "resources.", "serving.", "storage.", "merge.", "model.", "training.", "tokenization.")
CROSSING = {
    "a claim by namespace and name": ("spec.storage.claim", "team-b/results"),
    "a claim with a colon": ("spec.storage.claim", "team-b:results"),
    "a model on another's claim": ("spec.model.source", "pvc://team-b:models/qwen"),
    "a climb out of the claim": ("spec.model.source", "pvc://models/../../team-b"),
    "an absolute path on a claim": ("spec.model.source", "pvc://models//etc"),
    "a ConfigMap of another namespace": ("spec.datasets.0.source", "configmap://kube-system:extension-apiserver/x"),
    "a Secret by namespace and name": ("spec.model.tokenSecret", {"name": "team-b/hub"}),
    "a Secret with its namespace": ("spec.model.tokenSecret", {"name": "hub", "namespace": "team-b"}),
    "a key that climbs": ("spec.model.tokenSecret", {"name": "hub", "key": "../../../etc/passwd"}),
    "an uploaded model's Secret": (
        "spec.merge.push",
        {"target": "hf://a/b", "tokenSecret": {"name": "x", "namespace": "b"}},
    ),
    "the API key's Secret": ("spec.serving.apiKeySecret", {"name": "../team-b/clients"}),
    "a queue of another namespace": ("spec.resources.queue", "team-b/gpus"),
}
BOUNDLESS = {
    "an object nested 400 deep": ("spec.deepspeed", {"config": json.loads('{"a":' * 400 + "1" + "}" * 400)}),
    "a text of 2 MB": ("spec.tokenization.defaultSystem", "x" * 2_000_000),
    "a configuration of 40 KB": ("spec.deepspeed", {"config": json.dumps({"a": "x" * 40_000})}),
    "100 datasets": ("spec.datasets", [{"source": "hf://a/b"}] * 100),
    "1000 placeholders": ("spec.datasets.0.placeholders", {f"k{number}": "v" for number in range(1000)}),
    "500 tolerations": ("spec.resources.tolerations", [{"operator": "Exists"}] * 500),
    "labels of 500 nodes": ("spec.resources.nodeSelector", {f"k{number}": "v" for number in range(500)}),
    "a million nodes": ("spec.resources.nodes", 1_000_000),
    "ten thousand pods that serve": ("spec.serving", {"replicas": 10_000}),
    "retries for ever": ("spec.maxRetries", 2**31 - 1),
    "a number beyond 64 bits": ("spec.training.seed", 2**70),
    "a negative bound": ("spec.activeDeadlineSeconds", -1),
}


def attack(path: str, value: Any) -> dict[str, Any]:
    return changed(valid_manifest(), path, value)


@pytest.mark.threat("T1")
@pytest.mark.parametrize("name", POD_FIELDS)
def test_no_field_of_a_pod_can_be_set(jobs_api: client.CustomObjectsApi, name: str) -> None:
    for block in BLOCKS:
        base = changed(valid_manifest(), "spec.serving", {}) if block == "serving." else valid_manifest()
        said = refusal(jobs_api, changed(base, f"spec.{block}{name}", POD_FIELDS[name]))
        assert f'unknown field "spec.{block}{name}"' in said, "layer: schema, strict validation"


@pytest.mark.threat("T1")
def test_a_client_that_asks_for_no_validation_has_the_fields_cut_off(jobs_api: client.CustomObjectsApi) -> None:
    manifest = valid_manifest()
    manifest["spec"] |= copy.deepcopy(POD_FIELDS)
    stored = send(jobs_api, manifest, "Ignore")["spec"]
    assert not POD_FIELDS.keys() & stored.keys(), "layer: schema, pruning"


@pytest.mark.threat("T1")
@pytest.mark.parametrize("name", ["system-node-critical", "system-cluster-critical"])
def test_no_job_evicts_what_the_cluster_needs(jobs_api: client.CustomObjectsApi, name: str) -> None:
    said = refusal(jobs_api, attack("spec.resources.priorityClassName", name))
    assert "spec.resources.priorityClassName" in said, "layer: CEL"


@pytest.mark.threat("T1")
@pytest.mark.parametrize("resource", ["cpu", "memory", "hugepages-2Mi", "ephemeral-storage", "../nvidia.com/gpu"])
def test_a_gpu_is_an_extended_resource_and_nothing_else(jobs_api: client.CustomObjectsApi, resource: str) -> None:
    said = refusal(jobs_api, attack("spec.resources.gpuResourceName", resource))
    assert "spec.resources.gpuResourceName" in said, "layer: schema"


@pytest.mark.threat("T2")
@pytest.mark.parametrize(("path", "value"), CROSSING.values(), ids=CROSSING)
def test_a_reference_cannot_leave_its_namespace(jobs_api: client.CustomObjectsApi, path: str, value: Any) -> None:
    assert refusal(jobs_api, attack(path, value)), "layer: schema"


@pytest.mark.threat("T2")
def test_no_field_of_the_schema_names_a_namespace() -> None:
    assert [field.path for field in fields() if "namespace" in field.steps[-1].lower()] == [], "layer: schema"


@pytest.mark.threat("T6")
@pytest.mark.parametrize(
    "revision", ["../../other/repo", "refs/../../heads", "main\n", "a b", "-x", "/main", ".hidden"]
)
def test_a_revision_is_a_name_that_does_not_climb(jobs_api: client.CustomObjectsApi, revision: str) -> None:
    for path in ("spec.model.revision", "spec.datasets.0.revision"):
        assert "revision" in refusal(jobs_api, attack(path, revision)), "layer: schema"


@pytest.mark.threat("T18")
@pytest.mark.parametrize(("path", "value"), BOUNDLESS.values(), ids=BOUNDLESS)
def test_nothing_grows_without_bounds(jobs_api: client.CustomObjectsApi, path: str, value: Any) -> None:
    assert refusal(jobs_api, attack(path, value)), "layer: schema"


@pytest.mark.threat("T18")
def test_no_part_of_the_schema_takes_unknown_fields_of_any_depth() -> None:
    open_fields = [field.path for field in fields() if field.schema.get("x-kubernetes-preserve-unknown-fields")]
    assert open_fields == [], "one such object, nested deep enough, makes the API server unable to list any FineTuneJob"


@pytest.mark.threat("T15")
def test_every_number_text_list_and_map_of_the_schema_has_a_bound() -> None:
    assert [field.path for field in fields() if not _is_bounded(field)] == [], "layer: schema"


@pytest.mark.threat("T15")
def test_a_manifest_with_every_field_at_its_longest_is_small() -> None:
    # The kubelet, etcd and each watcher hold it whole; run.json is copied into a ConfigMap of at most 1 MiB.
    assert _largest(spec_schema()) < 900_000


def _is_bounded(field: Field) -> bool:
    schema = field.schema
    kind = schema.get("type")
    if field.steps[-1] == "{key}" or "enum" in schema or kind == "boolean":
        return True
    if kind == "integer":
        return "maximum" in schema or field.steps[-1] == "tolerationSeconds"
    if kind == "array":
        return "maxItems" in schema
    if "additionalProperties" in schema:
        return "maxProperties" in schema
    return kind == "object" or "maxLength" in schema


def _largest(schema: dict[str, Any]) -> int:
    kind = schema.get("type")
    if kind == "array":
        return int(schema["maxItems"]) * _largest(schema["items"])
    if "additionalProperties" in schema:
        return int(schema["maxProperties"]) * (320 + _largest(schema["additionalProperties"]))
    if kind == "object":
        return sum(len(name) + 4 + _largest(child) for name, child in schema.get("properties", {}).items())
    return int(schema.get("maxLength", 24)) + 2

"""The real API server refuses wrong manifests and edits, and its message names the field."""

import json
from typing import Any

import pytest

from finetune_devcluster import Cluster
from wrong_manifests import WRONG, Wrong, changed, valid_manifest


def create(cluster: Cluster, manifest: dict[str, Any], *, dry_run: bool = True) -> tuple[int, str]:
    options = ["--dry-run=server"] if dry_run else []
    done = cluster.kubectl("create", "--validate=strict", *options, "-f", "-", input=json.dumps(manifest))
    return done.returncode, done.stderr


@pytest.mark.parametrize("method", ["Full", "LoRA", "QLoRA"])
def test_the_smallest_manifest_is_accepted(cluster_with_crd: Cluster, method: str) -> None:
    assert create(cluster_with_crd, valid_manifest(method=method)) == (0, "")


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.case)
def test_a_wrong_manifest_is_refused_by_field(cluster_with_crd: Cluster, wrong: Wrong) -> None:
    code, message = create(cluster_with_crd, wrong.manifest)
    assert code != 0
    assert wrong.names in message


def test_a_local_path_is_refused_with_the_advice_to_use_a_claim(cluster_with_crd: Cluster) -> None:
    code, message = create(cluster_with_crd, changed(valid_manifest(), "spec.model.source", "file:///models/qwen"))
    assert code != 0
    assert "pvc://" in message


@pytest.fixture(scope="module")
def created(cluster_with_crd: Cluster) -> Cluster:
    assert create(cluster_with_crd, valid_manifest("frozen"), dry_run=False) == (0, "")
    return cluster_with_crd


def patch(cluster: Cluster, spec: dict[str, Any]) -> tuple[int, str]:
    done = cluster.kubectl("patch", "ftj", "frozen", "--type=merge", "-p", json.dumps({"spec": spec}))
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("field", "edit"),
    [
        ("spec.model", {"model": {"source": "hf://other/model"}}),
        ("spec.method", {"method": "Full"}),
        ("spec.lora", {"lora": {"rank": 16}}),
        ("spec.datasets", {"datasets": [{"source": "hf://other/rows"}]}),
        ("spec.training", {"training": {"seed": 1}}),
        ("spec.tokenization", {"tokenization": {"cutoffLen": 512}}),
        ("spec.resources", {"resources": {"gpusPerNode": 8}}),
        ("spec.storage", {"storage": {"size": "1Ti"}}),
        ("spec.merge", {"merge": {"enabled": False}}),
    ],
)
def test_what_the_job_trains_with_cannot_be_edited(created: Cluster, field: str, edit: dict[str, Any]) -> None:
    code, message = patch(created, edit)
    assert code != 0
    assert field in message


@pytest.mark.parametrize("edit", [{"suspend": True}, {"serving": {"replicas": 2}}, {"activeDeadlineSeconds": 60}])
def test_what_does_not_change_the_training_can_be_edited(created: Cluster, edit: dict[str, Any]) -> None:
    assert patch(created, edit) == (0, "")


def test_kubectl_explain_documents_every_field(cluster_with_crd: Cluster) -> None:
    text = cluster_with_crd.kubectl("explain", "ftj.spec", "--recursive").stdout
    assert "cutoffLen" in text
    assert "<no description>" not in text

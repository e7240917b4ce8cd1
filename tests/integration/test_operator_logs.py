"""A stage that fails in a real pod: the job says why, with the last lines of the pod's log."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from finetune_devcluster import Cluster
from operator_process import OperatorProcess, apply
from support_wait import eventually

NOBODY = "http://127.0.0.1:1"


@pytest.fixture(scope="module")
def operator(cluster_with_crd: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OperatorProcess]:
    """An operator whose jobs find no model hub."""
    hub = {"huggingFaceEndpoint": NOBODY}
    small = {stage: {"cpu": "10m", "memory": "64Mi"} for stage in ("prepare", "train", "merge", "serve")}
    folder = tmp_path_factory.mktemp("operator-logs")
    made = OperatorProcess(cluster_with_crd, folder, hub=hub, stages=small, namespaces=["logs"], patienceSeconds=0)
    made.grant_rights()
    made.start()
    yield made
    made.kill()


def test_a_failed_job_shows_the_last_lines_of_its_pods_log(
    cluster_with_crd: Cluster, operator: OperatorProcess
) -> None:
    apply(cluster_with_crd, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "logs"}})
    job = {
        "apiVersion": "finetune-operator.io/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": "unreachable", "namespace": "logs"},
        "spec": {
            "model": {"source": "hf://org/tiny"},
            "datasets": [{"source": "hf://org/chat"}],
            "method": "LoRA",
            "resources": {"gpusPerNode": 0},
        },
    }
    apply(cluster_with_crd, job)

    def failed() -> dict[str, Any]:
        text = cluster_with_crd.kubectl("-n", "logs", "get", "finetunejob", "unreachable", "-o", "json").stdout
        found = json.loads(text).get("status", {}).get("conditions", [])
        return next((entry for entry in found if entry["type"] == "Failed" and entry["status"] == "True"), {})

    told = eventually(failed, 240, "the job fails")
    said, _, log = told["message"].partition("Last log lines of pod unreachable-prepare-")
    assert "exit code" in said
    assert "error: " in log

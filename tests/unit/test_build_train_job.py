"""Training Jobs: what they ask for, what they tell the trainer, how several nodes meet."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_operator.build import headless_service, merge_job, prepare_job, train_job
from finetune_operator.build.types import Manifest
from finetune_operator.settings import Settings
from manifest_builders import a_job

TWO_NODES: dict[str, Any] = {
    "resources": {"nodes": 2, "gpusPerNode": 8},
    "storage": {"accessMode": "ReadWriteMany"},
}
CUSTOMARY = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}


def train(attempt: int = 0, **spec: Any) -> Manifest:
    return train_job.build(a_job().with_spec(**spec).job(), Settings(), attempt, "operator-system")


def container(manifest: Manifest) -> Manifest:
    return manifest["spec"]["template"]["spec"]["containers"][0]


def environment(manifest: Manifest) -> dict[str, Any]:
    return {entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in container(manifest)["env"]}


def test_kubernetes_retries_no_training_pod_by_itself() -> None:
    spec = train()["spec"]
    assert spec["backoffLimit"] == 0
    # The Job itself says of a pod that was told to stop that it was: nobody else may be there to see it.
    disrupted, stopped = spec["podFailurePolicy"]["rules"]
    assert disrupted == {"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    assert stopped["onExitCodes"] == {"containerName": "train", "operator": "In", "values": [75]}
    assert spec["podReplacementPolicy"] == "Failed"
    assert spec["template"]["spec"]["restartPolicy"] == "Never"
    assert "ttlSecondsAfterFinished" not in spec


def test_a_training_pod_has_time_to_save_a_checkpoint() -> None:
    assert train()["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == 120


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        (
            {},
            {
                "requests": {"cpu": "4", "memory": "32Gi"},
                "limits": {"memory": "32Gi", "nvidia.com/gpu": "1"},
            },
        ),
        (
            {"gpusPerNode": 0, "cpu": "500m", "memory": "1Gi"},
            {"requests": {"cpu": "500m", "memory": "1Gi"}, "limits": {"memory": "1Gi"}},
        ),
        (
            {"gpusPerNode": 2, "gpuResourceName": "amd.com/gpu"},
            {"requests": {"cpu": "4", "memory": "32Gi"}, "limits": {"memory": "32Gi", "amd.com/gpu": "2"}},
        ),
    ],
    ids=["the settings' defaults", "the job's own, no GPU", "another maker's GPUs"],
)
def test_resources(resources: dict[str, Any], expected: Manifest) -> None:
    assert container(train(resources=resources))["resources"] == expected


def test_nodes_are_chosen_as_the_job_says() -> None:
    asked = {"nodeSelector": {"gpu": "h200"}, "tolerations": [{"key": "gpu", "operator": "Exists"}]}
    pod = train(resources=asked)["spec"]["template"]["spec"]
    assert pod["nodeSelector"] == {"gpu": "h200"}
    assert pod["tolerations"] == [CUSTOMARY, {"key": "gpu", "operator": "Exists"}]


def test_a_pod_without_gpus_bears_no_taint_and_chooses_no_node_of_its_own() -> None:
    pod = train(resources={"gpusPerNode": 0})["spec"]["template"]["spec"]
    assert not {"tolerations", "nodeSelector"} & pod.keys()


def test_the_customary_taint_has_the_name_of_the_gpus() -> None:
    pod = train(resources={"gpuResourceName": "amd.com/gpu"})["spec"]["template"]["spec"]
    assert pod["tolerations"] == [CUSTOMARY | {"key": "amd.com/gpu"}]


def test_pods_with_gpus_get_the_settings_placement_and_the_job_has_the_last_word() -> None:
    gpu = {"nodeSelector": {"pool": "gpu", "zone": "a"}, "tolerations": [{"key": "team", "operator": "Exists"}]}
    settings = Settings.model_validate({"gpu": gpu})
    asked = {"nodeSelector": {"zone": "b"}, "tolerations": gpu["tolerations"]}
    job = a_job().with_spec(resources=asked).job()
    pod = train_job.build(job, settings, 0, "operator-system")["spec"]["template"]["spec"]
    assert pod["nodeSelector"] == {"pool": "gpu", "zone": "b"}
    assert pod["tolerations"] == [CUSTOMARY, {"key": "team", "operator": "Exists"}]


def test_the_trainer_is_told_where_to_report_its_progress() -> None:
    variables = environment(train())
    path = "/apis/finetune-operator.io/v1alpha1/namespaces/team/finetunejobs/qwen/progress"
    assert variables["KUBEFLOW_TRAINER_SERVER_URL"] == f"https://finetune-operator.operator-system.svc:8443{path}"
    assert variables["KUBEFLOW_TRAINER_SERVER_CA_CERT"] == "/finetune/progress/ca.crt"
    assert variables["KUBEFLOW_TRAINER_SERVER_TOKEN"] == "/finetune/token/token"


def test_attempts_are_told_apart_by_name_and_label() -> None:
    manifest = train(attempt=3)
    assert manifest["metadata"]["name"] == "qwen-train-3"
    assert manifest["metadata"]["labels"]["finetune-operator.io/attempt"] == "3"
    assert manifest["spec"]["template"]["metadata"]["labels"]["finetune-operator.io/attempt"] == "3"


def test_one_node_is_a_plain_job() -> None:
    manifest = train()
    assert "completionMode" not in manifest["spec"]
    assert "subdomain" not in manifest["spec"]["template"]["spec"]
    assert not [name for name in environment(manifest) if name.startswith("PET_")]


def test_several_nodes_are_an_indexed_job_that_meets_at_its_first_pod() -> None:
    manifest = train(attempt=1, **TWO_NODES)
    spec = manifest["spec"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 2, 2)
    assert spec["template"]["spec"]["subdomain"] == "qwen-train-1"
    variables = environment(manifest)
    assert variables["PET_NNODES"] == "2"
    assert variables["PET_MASTER_ADDR"] == "qwen-train-1-0.qwen-train-1"
    assert variables["PET_MASTER_PORT"] == "29500"
    index = "metadata.annotations['batch.kubernetes.io/job-completion-index']"
    assert variables["PET_NODE_RANK"] == {"fieldRef": {"fieldPath": index}}


def test_the_headless_service_finds_the_pods_of_its_attempt_before_they_are_ready() -> None:
    manifest = headless_service.build(a_job().with_spec(**TWO_NODES).job(), 1)
    assert manifest["metadata"]["name"] == "qwen-train-1"
    assert manifest["spec"]["clusterIP"] == "None"
    assert manifest["spec"]["publishNotReadyAddresses"] is True
    labels = train(attempt=1, **TWO_NODES)["spec"]["template"]["metadata"]["labels"]
    assert manifest["spec"]["selector"].items() <= labels.items()
    other = train(attempt=2, **TWO_NODES)["spec"]["template"]["metadata"]["labels"]
    assert not manifest["spec"]["selector"].items() <= other.items()


@pytest.mark.parametrize(("build", "stage"), [(prepare_job.build, "prepare"), (merge_job.build, "merge")])
def test_kubernetes_retries_prepare_and_merge_unless_the_exit_code_says_it_is_useless(build: Any, stage: str) -> None:
    spec = build(a_job().with_spec(maxRetries=3).job(), Settings())["spec"]
    assert spec["backoffLimit"] == 3
    fail, ignore = spec["podFailurePolicy"]["rules"]
    assert fail["action"] == "FailJob"
    assert fail["onExitCodes"] == {
        "containerName": stage,
        "operator": "In",
        "values": [64, 65, 66, 67, 68, 70, 71, 72, 73],
    }
    assert ignore == {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}

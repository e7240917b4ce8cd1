"""What the pods of all stages have in common, and what each of them may see."""

from __future__ import annotations

import json
from typing import Any

import pytest

from finetune_operator.api.delivery import Serving
from finetune_operator.build import claim, config_map, deployment, merge_job, prepare_job, service, train_job
from finetune_operator.build.types import JobView, Manifest
from finetune_operator.settings import Settings
from manifest_builders import CERTIFICATE, UID, a_job

STAGES = ("prepare", "train", "merge", "serve")
EVERYTHING: dict[str, Any] = {
    "model": {"source": "pvc://models/qwen", "tokenSecret": {"name": "hub"}},
    "datasets": [
        {"source": "pvc://shared/chats.jsonl", "tokenSecret": {"name": "hub", "key": "other"}},
        {"source": "configmap://tiny/identity.json"},
        {"source": "oci://registry.example/chats:1"},
        {"source": "hf://org/chats", "tokenSecret": {"name": "hub"}},
    ],
    "evaluation": {"dataset": {"source": "pvc://held/back.jsonl", "tokenSecret": {"name": "eval"}}},
    "tracking": {
        "wandb": {"project": "p", "apiKeySecret": {"name": "wandb"}},
        "mlflow": {"trackingUri": "https://mlflow.example", "experiment": "e", "tokenSecret": {"name": "mlflow"}},
    },
    "merge": {"push": {"target": "hf://org/tuned", "tokenSecret": {"name": "push"}}},
    "serving": {"gpus": 0, "apiKeySecret": {"name": "clients", "key": "key"}},
    "storage": {"claim": "shared"},
}


def a_view(**spec: Any) -> JobView:
    return a_job().with_spec(**spec).job()


def built(stage: str, job: JobView, settings: Settings | None = None) -> Manifest:
    """The stage's workload."""
    chosen = settings or Settings()
    if stage == "train":
        return train_job.build(job, chosen, 0, "operator-system")
    if stage == "serve":
        return deployment.build(job, chosen, job.spec.serving or Serving(), replicas=1)
    return {"prepare": prepare_job.build, "merge": merge_job.build}[stage](job, chosen)


def pod_of(stage: str, job: JobView, settings: Settings | None = None) -> Manifest:
    return built(stage, job, settings)["spec"]["template"]["spec"]


def container_of(stage: str, job: JobView) -> Manifest:
    return pod_of(stage, job)["containers"][0]


def mounted(stage: str, job: JobView) -> dict[str, Manifest]:
    """Volume source and mount by path."""
    pod = pod_of(stage, job)
    sources = {volume["name"]: volume for volume in pod["volumes"]}
    return {mount["mountPath"]: sources[mount["name"]] | mount for mount in pod["containers"][0]["volumeMounts"]}


def environment(stage: str, job: JobView) -> dict[str, str]:
    return {entry["name"]: entry.get("value", "") for entry in container_of(stage, job)["env"]}


@pytest.mark.parametrize("stage", STAGES)
def test_every_pod_is_hardened(stage: str) -> None:
    pod = pod_of(stage, a_view())
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    security = pod["securityContext"]
    assert (security["runAsNonRoot"], security["runAsUser"], security["fsGroup"]) == (True, 65532, 65532)
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["containers"][0]["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }


@pytest.mark.parametrize("stage", STAGES)
def test_every_pod_can_write_only_to_scratch_and_the_jobs_folder(stage: str) -> None:
    writable = {path for path, mount in mounted(stage, a_view(**EVERYTHING)).items() if not mount.get("readOnly")}
    scratch = {"/tmp", "/home/finetune", "/dev/shm"}
    assert writable == (scratch if stage == "serve" else scratch | {"/finetune/job"})


@pytest.mark.parametrize("stage", STAGES)
def test_every_volume_is_mounted_and_every_mount_has_one(stage: str) -> None:
    pod = pod_of(stage, a_view(**EVERYTHING))
    volumes = [volume["name"] for volume in pod["volumes"]]
    mounts = pod["containers"][0]["volumeMounts"]
    assert sorted(volumes) == sorted({mount["name"] for mount in mounts})
    assert len({mount["mountPath"] for mount in mounts}) == len(mounts)


@pytest.mark.parametrize(
    ("stage", "command"),
    [
        ("prepare", ["finetune-trainer", "prepare", "--run", "/finetune/config/run.json"]),
        ("train", ["finetune-trainer", "train", "--run", "/finetune/config/run.json"]),
        ("merge", ["finetune-merger", "merge", "--run", "/finetune/config/run.json"]),
        ("serve", ["finetune-server", "serve", "--run", "/finetune/config/run.json"]),
    ],
)
def test_each_stage_has_its_command(stage: str, command: list[str]) -> None:
    container = container_of(stage, a_view())
    assert (container["name"], container["command"]) == (stage, command)
    assert container["terminationMessagePolicy"] == "FallbackToLogsOnError"
    assert environment(stage, a_view())["PYTHONUNBUFFERED"] == "1"


def test_only_prepare_and_an_upload_may_go_to_the_hub() -> None:
    offline = {stage: environment(stage, a_view()).get("HF_HUB_OFFLINE") for stage in STAGES}
    assert offline == {"prepare": None, "train": "1", "merge": "1", "serve": "1"}
    assert "HF_HUB_OFFLINE" not in environment("merge", a_view(**EVERYTHING))


@pytest.mark.parametrize(
    ("stage", "inputs"),
    [
        (
            "prepare",
            {"/finetune/inputs/models", "/finetune/inputs/shared", "/finetune/inputs/configmap-tiny"}
            | {"/finetune/inputs/image-0", "/finetune/inputs/held"},
        ),
        ("train", {"/finetune/inputs/models"}),
        ("merge", {"/finetune/inputs/models"}),
        ("serve", set()),
    ],
)
def test_each_stage_sees_the_inputs_that_it_reads(stage: str, inputs: set[str]) -> None:
    mounts = mounted(stage, a_view(**EVERYTHING))
    found = {path for path in mounts if path.startswith("/finetune/inputs/")}
    assert found == inputs
    assert all(mounts[path]["readOnly"] for path in found)


def test_an_unmerged_adapter_is_served_with_its_base_model() -> None:
    adapter = a_view(model={"source": "pvc://models/qwen"}, serving={"mode": "Adapter", "gpus": 0})
    assert "/finetune/inputs/models" in mounted("serve", adapter)


@pytest.mark.parametrize(
    ("stage", "secrets"),
    [
        ("prepare", {"hub": ["token", "other"], "eval": ["token"]}),
        ("train", {"wandb": ["token"], "mlflow": ["token"]}),
        ("merge", {"push": ["token"]}),
        ("serve", {"clients": ["key"]}),
    ],
)
def test_each_stage_sees_only_its_own_secrets_and_of_them_only_the_keys_it_uses(
    stage: str, secrets: dict[str, list[str]]
) -> None:
    mounts = mounted(stage, a_view(**EVERYTHING))
    found = {
        path.removeprefix("/finetune/secrets/"): [item["path"] for item in mount["secret"]["items"]]
        for path, mount in mounts.items()
        if "secret" in mount
    }
    assert found == secrets
    assert "secretKeyRef" not in json.dumps(pod_of(stage, a_view(**EVERYTHING)))


def test_the_job_writes_to_its_folder_of_a_shared_claim_and_to_the_root_of_its_own() -> None:
    shared = mounted("train", a_view(storage={"claim": "shared"}))["/finetune/job"]
    assert (shared["persistentVolumeClaim"]["claimName"], shared["subPath"]) == ("shared", "qwen")
    own = mounted("train", a_view())["/finetune/job"]
    assert (own["persistentVolumeClaim"]["claimName"], own.get("subPath")) == ("qwen-data", None)


def test_a_claim_that_is_input_and_storage_is_one_volume_mounted_twice() -> None:
    job = a_view(model={"source": "pvc://shared/base"}, storage={"claim": "shared"})
    mounts = mounted("prepare", job)
    assert mounts["/finetune/inputs/shared"]["name"] == mounts["/finetune/job"]["name"] == "job"
    assert mounts["/finetune/inputs/shared"]["readOnly"] is True
    claims = [volume for volume in pod_of("prepare", job)["volumes"] if "persistentVolumeClaim" in volume]
    assert len(claims) == 1


def test_only_training_pods_get_a_token_and_it_is_good_for_progress_alone() -> None:
    assert [stage for stage in STAGES if "/finetune/token" in mounted(stage, a_view())] == ["train"]
    source = mounted("train", a_view())["/finetune/token"]["projected"]["sources"]
    expected = {"audience": "finetune-operator.io/progress", "expirationSeconds": 3600, "path": "token"}
    assert source == [{"serviceAccountToken": expected}]


def test_settings_reach_every_pod() -> None:
    settings = Settings.model_validate(
        {
            "images": {"trainer": "t@sha256:1", "pullPolicy": "Always", "pullSecrets": ["registry"]},
            "serviceAccountName": "tuning",
        }
    )
    pod = pod_of("train", a_view(), settings)
    assert pod["containers"][0]["image"] == "t@sha256:1"
    assert pod["containers"][0]["imagePullPolicy"] == "Always"
    assert pod["imagePullSecrets"] == [{"name": "registry"}]
    assert pod["serviceAccountName"] == "tuning"


@pytest.mark.parametrize("stage", STAGES)
def test_every_pod_bears_the_jobs_priority_and_labels(stage: str) -> None:
    job = a_view(resources={"priorityClassName": "urgent"})
    template = built(stage, job)["spec"]["template"]
    assert template["spec"]["priorityClassName"] == "urgent"
    assert template["metadata"]["labels"]["finetune-operator.io/job"] == "qwen"
    assert template["metadata"]["labels"]["finetune-operator.io/stage"] == stage


@pytest.mark.parametrize("stage", STAGES)
def test_children_are_owned_by_the_job(stage: str) -> None:
    owner = built(stage, a_view())["metadata"]["ownerReferences"][0]
    assert (owner["kind"], owner["uid"], owner["controller"], owner["blockOwnerDeletion"]) == (
        "FineTuneJob",
        UID,
        True,
        True,
    )


@pytest.mark.parametrize("stage", STAGES)
def test_kueue_reads_its_marks_on_the_workload_and_its_topology_on_the_pods(stage: str) -> None:
    world = a_job().with_spec(resources={"queue": "gpus"})
    world.with_labels({"kueue.x-k8s.io/priority-class": "high", "team": "nlp"})
    world.with_annotations({"kueue.x-k8s.io/podset-required-topology": "rack", "kueue.x-k8s.io/note": "n", "x": "y"})
    manifest = built(stage, world.job())
    labels, annotations = manifest["metadata"]["labels"], manifest["metadata"]["annotations"]
    assert labels["kueue.x-k8s.io/queue-name"] == "gpus"
    assert labels["kueue.x-k8s.io/priority-class"] == "high"
    assert "team" not in labels
    assert annotations["kueue.x-k8s.io/note"] == "n"
    assert "kueue.x-k8s.io/podset-required-topology" not in annotations
    template = manifest["spec"]["template"]["metadata"]
    assert template["annotations"]["kueue.x-k8s.io/podset-required-topology"] == "rack"
    assert not [key for key in template["labels"] if key.startswith("kueue")]


def test_a_merge_takes_a_gpu_only_where_the_job_gives_it_one() -> None:
    assert "nvidia.com/gpu" not in container_of("merge", a_view())["resources"]["limits"]
    given = a_view(merge={"gpus": 1}, resources={"gpuResourceName": "amd.com/gpu"})
    assert container_of("merge", given)["resources"]["limits"]["amd.com/gpu"] == "1"
    assert {"key": "amd.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in pod_of("merge", given)["tolerations"]


@pytest.mark.parametrize("stage", ["prepare", "train", "merge"])
def test_a_job_is_left_to_its_queue_to_suspend(stage: str) -> None:
    assert built(stage, a_view())["spec"]["suspend"] is False
    assert built(stage, a_view(suspend=True))["spec"]["suspend"] is True
    assert "suspend" not in built(stage, a_view(suspend=True, resources={"queue": "gpus"}))["spec"]


def test_run_json_says_where_the_pods_find_things() -> None:
    job = a_view(**EVERYTHING)
    manifest = config_map.build(
        job, Settings.model_validate({"hub": {"huggingFaceEndpoint": "https://m"}}), CERTIFICATE
    )
    run = json.loads(manifest["data"]["run.json"])
    assert (run["name"], run["namespace"], run["uid"], run["root"]) == ("qwen", "team", UID, "/finetune/job")
    assert run["claims"] == {name: f"/finetune/inputs/{name}" for name in ("models", "shared", "held")}
    assert run["configMaps"] == {"tiny": "/finetune/inputs/configmap-tiny"}
    assert run["hub"] == {"huggingFaceEndpoint": "https://m"}
    assert manifest["data"]["ca.crt"] == CERTIFICATE
    assert set(run["claims"].values()) <= set(mounted("prepare", job))


def test_an_edit_of_serving_leaves_the_training_configuration_as_it_was() -> None:
    before = config_map.run_config(a_view(), Settings())
    after = config_map.run_config(a_view(serving={"replicas": 3}, suspend=True), Settings())
    assert before.training_hash() == after.training_hash()


@pytest.mark.parametrize(("retention", "owned"), [("Retain", False), ("Delete", True)])
def test_the_claim_outlives_the_job_unless_told_otherwise(retention: str, owned: bool) -> None:
    manifest = claim.build(a_view(storage={"retention": retention}), Settings())
    assert ("ownerReferences" in manifest["metadata"]) is owned


def test_the_claim_is_as_the_job_says_else_as_the_settings_say() -> None:
    settings = Settings.model_validate({"storage": {"size": "50Gi", "storageClassName": "fast"}})
    default = claim.build(a_view(), settings)["spec"]
    assert default == {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "50Gi"}},
        "storageClassName": "fast",
    }
    asked = {"size": "1Gi", "storageClassName": "slow", "accessMode": "ReadWriteMany"}
    chosen = claim.build(a_view(storage=asked), settings)["spec"]
    assert chosen["accessModes"] == ["ReadWriteMany"]
    assert chosen["resources"]["requests"]["storage"] == "1Gi"
    assert chosen["storageClassName"] == "slow"
    assert "storageClassName" not in claim.build(a_view(), Settings())["spec"]


def test_the_service_leads_to_the_serving_pods() -> None:
    job = a_view(serving={"gpus": 0})
    spec = service.build(job)["spec"]
    labels = built("serve", job)["spec"]["template"]["metadata"]["labels"]
    assert spec["selector"].items() <= labels.items()
    assert spec["ports"] == [
        {"name": "http", "port": 8000, "targetPort": "http", "protocol": "TCP", "appProtocol": "http"}
    ]
    assert service.url(job) == "http://qwen.team.svc:8000/v1"

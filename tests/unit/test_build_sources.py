"""What the pods of a job may read of its sources, and what only prepare may."""

from __future__ import annotations

import json
from typing import Any

import pytest

from finetune_operator.api.delivery import Serving
from finetune_operator.build import config_map, deployment, merge_job, prepare_job, train_job
from finetune_operator.build.types import Manifest
from finetune_operator.settings import Settings
from manifest_builders import CERTIFICATE, a_job
from plan_answers import decide

CACHED = Settings.model_validate({"cache": {"claim": "models"}})
REMOTE: dict[str, Any] = {
    "model": {"source": "s3://lake/qwen", "tokenSecret": {"name": "lake"}},
    "datasets": [
        {"source": "hf://org/chats", "tokenSecret": {"name": "hub"}},
        {"source": "s3://lake/chats", "tokenSecret": {"name": "lake"}},
    ],
    "serving": {"gpus": 0, "mode": "Adapter"},
}
LATER_STAGES = ("train", "merge", "serve")


def pods(settings: Settings, *, has_cache: bool = False, **spec: Any) -> dict[str, Manifest]:
    """The pod of each stage."""
    job = a_job().with_spec(**spec).job()
    workloads = {
        "prepare": prepare_job.build(job, settings, has_cache=has_cache),
        "train": train_job.build(job, settings, 0, "operator-system"),
        "merge": merge_job.build(job, settings),
        "serve": deployment.build(job, settings, job.spec.serving or Serving(), replicas=1),
    }
    return {stage: workload["spec"]["template"]["spec"] for stage, workload in workloads.items()}


def mounts(pod: Manifest) -> dict[str, Manifest]:
    """Volume and mount by path."""
    sources = {volume["name"]: volume for volume in pod["volumes"]}
    return {mount["mountPath"]: sources[mount["name"]] | mount for mount in pod["containers"][0]["volumeMounts"]}


def run_json(settings: Settings, **spec: Any) -> Manifest:
    job = a_job().with_spec(**spec).job()
    run: Manifest = json.loads(config_map.build(job, settings, CERTIFICATE)["data"]["run.json"])
    return run


def environment(pod: Manifest) -> dict[str, str]:
    return {entry["name"]: entry.get("value", "") for entry in pod["containers"][0]["env"]}


def test_only_prepare_gets_the_cache_and_may_write_to_it() -> None:
    built = pods(CACHED, has_cache=True, **REMOTE)
    cache = mounts(built["prepare"])["/finetune/cache"]
    assert cache["persistentVolumeClaim"] == {"claimName": "models"}
    assert "readOnly" not in cache
    assert not [stage for stage in LATER_STAGES if "/finetune/cache" in mounts(built[stage])]
    assert run_json(CACHED, **REMOTE)["cache"] == "/finetune/cache"


def test_without_a_cache_in_the_settings_there_is_none() -> None:
    assert "cache" not in run_json(Settings(), **REMOTE)
    assert "/finetune/cache" not in mounts(pods(Settings(), has_cache=True, **REMOTE)["prepare"])


@pytest.mark.parametrize("exists", [True, False])
def test_the_cache_is_mounted_where_the_namespace_has_its_claim(exists: bool) -> None:
    world = a_job().claim("models") if exists else a_job()
    prepare = next(child for child in decide(world, CACHED).create if child["kind"] == "Job")
    assert ("/finetune/cache" in mounts(prepare["spec"]["template"]["spec"])) is exists


@pytest.mark.parametrize("stage", LATER_STAGES)
def test_after_prepare_pods_are_offline_and_hold_no_key_to_a_source(stage: str) -> None:
    pod = pods(CACHED, has_cache=True, **REMOTE)[stage]
    assert environment(pod)["HF_HUB_OFFLINE"] == "1"
    assert not [path for path in mounts(pod) if path.startswith("/finetune/secrets")]
    assert not [name for name in environment(pod) if "TOKEN" in name and not name.startswith("KUBEFLOW")]


def test_an_object_stores_secret_brings_its_two_keys_and_a_session_token_if_there_is_one() -> None:
    secrets = {
        path: mount["secret"]
        for path, mount in mounts(pods(Settings(), **REMOTE)["prepare"]).items()
        if "secret" in mount
    }
    lake, hub = secrets["/finetune/secrets/lake"], secrets["/finetune/secrets/hub"]
    assert [item["key"] for item in lake["items"]] == [
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
    ]
    assert lake["optional"] is True
    assert [item["key"] for item in hub["items"]] == ["token"]
    assert "optional" not in hub


def test_an_image_is_mounted_read_only_where_its_model_is_read() -> None:
    spec = {
        "model": {"source": "oci://registry.example/models/qwen:V1"},
        "datasets": [{"source": "oci://registry.example/chats@sha256:0f"}, {"source": "hf://org/chats"}],
        "serving": {"gpus": 0, "mode": "Adapter"},
    }
    found = {
        stage: {path: mount["image"]["reference"] for path, mount in mounts(pod).items() if "image" in mount}
        for stage, pod in pods(Settings(), **spec).items()
    }
    model, data = "registry.example/models/qwen:V1", "registry.example/chats@sha256:0f"
    assert found["prepare"] == {"/finetune/inputs/image-0": model, "/finetune/inputs/image-1": data}
    assert [found[stage] for stage in LATER_STAGES] == [{"/finetune/inputs/image-0": model}] * 3
    assert run_json(Settings(), **spec)["images"] == {reference: path for path, reference in found["prepare"].items()}
    assert all(mount["readOnly"] for mount in mounts(pods(Settings(), **spec)["train"]).values() if "image" in mount)


def test_an_adapter_to_go_on_with_is_mounted_and_opened_like_a_model() -> None:
    adapter = {"source": "pvc://adapters/mine", "tokenSecret": {"name": "key"}}
    built = pods(Settings(), adapter=adapter)
    assert "/finetune/inputs/adapters" in mounts(built["prepare"])
    assert "/finetune/inputs/adapters" in mounts(built["train"])
    assert "/finetune/secrets/key" in mounts(built["prepare"])
    assert run_json(Settings(), adapter=adapter)["claims"] == {"adapters": "/finetune/inputs/adapters"}


def test_patience_with_a_host_that_is_away_is_a_setting() -> None:
    assert run_json(Settings())["patienceSeconds"] == 300
    assert run_json(Settings.model_validate({"patienceSeconds": 5}))["patienceSeconds"] == 5

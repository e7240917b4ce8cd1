"""The Deployment: how it rolls out, when its pods count as ready, and which edits start new pods."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_operator.build import deployment
from finetune_operator.build.types import Manifest
from finetune_operator.settings import Settings
from manifest_builders import a_job


def serve(*, suspend: bool = False, **serving: Any) -> Manifest:
    job = a_job().with_spec(serving=serving, suspend=suspend).job()
    assert job.spec.serving is not None
    return deployment.build(job, Settings(), job.spec.serving, replicas=0 if suspend else job.spec.serving.replicas)


def container(manifest: Manifest) -> Manifest:
    return manifest["spec"]["template"]["spec"]["containers"][0]


def test_a_rollout_needs_no_spare_gpu() -> None:
    strategy = serve(replicas=2)["spec"]["strategy"]
    assert strategy == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}


def test_ready_means_that_a_completion_was_answered() -> None:
    found = container(serve(gpus=0, startupSeconds=95))
    command = found["readinessProbe"]["exec"]["command"]
    assert command == ["finetune-server", "probe", "--run", "/finetune/config/run.json", "--timeout", "20"]
    assert found["startupProbe"]["exec"]["command"] == command
    assert found["readinessProbe"]["timeoutSeconds"] > 20
    assert found["startupProbe"]["failureThreshold"] * found["startupProbe"]["periodSeconds"] == 100
    assert found["livenessProbe"]["httpGet"] == {"path": "/health", "port": "http"}


def test_a_rollout_is_given_longer_than_a_pod_may_take_to_start() -> None:
    assert serve(startupSeconds=3600)["spec"]["progressDeadlineSeconds"] > 3600


def test_pods_are_selected_by_labels_that_they_bear() -> None:
    spec = serve()["spec"]
    assert spec["selector"]["matchLabels"].items() <= spec["template"]["metadata"]["labels"].items()


@pytest.mark.parametrize(
    ("serving", "image"),
    [
        ({"gpus": 1}, Settings().images.vllm),
        ({"gpus": 0}, Settings().images.server),
        ({"gpus": 1, "engine": "Transformers"}, Settings().images.server),
        ({"gpus": 0, "engine": "VLLM"}, Settings().images.vllm),
    ],
)
def test_the_engine_decides_the_image(serving: dict[str, Any], image: str) -> None:
    assert container(serve(**serving))["image"] == image


def test_no_gpus_are_asked_for_where_none_are_wanted() -> None:
    assert container(serve(gpus=0))["resources"]["limits"] == {"memory": "16Gi"}
    assert container(serve(gpus=2))["resources"]["limits"] == {"memory": "16Gi", "nvidia.com/gpu": "2"}


@pytest.mark.parametrize(
    "edit",
    [
        {"mode": "Adapter"},
        {"engine": "VLLM"},
        {"gpus": 1},
        {"memory": "1Gi"},
        {"startupSeconds": 60},
        {"nodeSelector": {"a": "b"}},
        {"apiKeySecret": {"name": "clients"}},
    ],
    ids=lambda edit: next(iter(edit)),
)
def test_an_edit_of_what_is_served_or_how_starts_new_pods(edit: dict[str, Any]) -> None:
    assert serve(**({"gpus": 0} | edit))["spec"]["template"] != serve(gpus=0)["spec"]["template"]


@pytest.mark.parametrize(
    "edit",
    [{"replicas": 3}, {"engine": "Transformers"}, {"suspend": True}],
    ids=lambda edit: next(iter(edit)),
)
def test_an_edit_that_changes_nothing_for_a_pod_starts_none(edit: dict[str, Any]) -> None:
    assert serve(**({"gpus": 0} | edit))["spec"]["template"] == serve(gpus=0)["spec"]["template"]


def test_the_hash_tells_whether_a_live_deployment_is_as_wanted() -> None:
    hashes = [serve(gpus=0, replicas=replicas)["metadata"]["annotations"] for replicas in (1, 1, 2)]
    assert hashes[0] == hashes[1] != hashes[2]

"""What a platform sets for the pods of all jobs: labels, annotations, variables, authorities, the runtime of GPU pods."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_operator.api import names
from finetune_operator.build import certificates, deployment, merge_job, prepare_job, train_job
from finetune_operator.build.types import JobView, Manifest
from finetune_operator.settings import Settings
from manifest_builders import a_job

STAGES = ("prepare", "train", "merge", "serve")


def template(stage: str, job: JobView, **settings: Any) -> Manifest:
    chosen = Settings.model_validate(settings)
    built = {
        "prepare": lambda: prepare_job.build(job, chosen),
        "train": lambda: train_job.build(job, chosen, 0, "operator-system"),
        "merge": lambda: merge_job.build(job, chosen),
        "serve": lambda: deployment.build(job, chosen, job.spec.serving, replicas=1),  # type: ignore[arg-type]
    }[stage]()
    found: Manifest = built["spec"]["template"]
    return found


@pytest.fixture
def job() -> JobView:
    return a_job().with_spec(serving={"gpus": 1}).job()


def container(pod: Manifest) -> Manifest:
    [found] = pod["spec"]["containers"]
    return dict(found)


def environment(pod: Manifest) -> dict[str, str | None]:
    entries = container(pod)["env"]
    assert len({entry["name"] for entry in entries}) == len(entries), "the API server refuses a name that stands twice"
    return {entry["name"]: entry.get("value") for entry in entries}


@pytest.mark.parametrize("stage", STAGES)
def test_labels_annotations_and_variables_of_the_platform_are_on_the_pods_of_every_stage(
    stage: str, job: JobView
) -> None:
    asked = {"labels": {"team": "ml"}, "annotations": {"example.com/keep": "yes"}, "environment": {"NO_PROXY": ".svc"}}
    pod, plain = template(stage, job, pods=asked), template(stage, job)
    assert pod["metadata"]["labels"] == plain["metadata"]["labels"] | {"team": "ml"}
    assert pod["metadata"]["annotations"] == plain["metadata"].get("annotations", {}) | {"example.com/keep": "yes"}
    assert environment(pod) == environment(plain) | {"NO_PROXY": ".svc"}


@pytest.mark.parametrize("stage", STAGES)
def test_what_the_operator_itself_relies_on_cannot_be_taken_away(stage: str, job: JobView) -> None:
    asked = {"labels": {names.STAGE_LABEL: "other", names.MANAGED_BY_LABEL: "me"}, "environment": {"HOME": "/root"}}
    pod, plain = template(stage, job, pods=asked), template(stage, job)
    assert (pod["metadata"]["labels"], environment(pod)) == (plain["metadata"]["labels"], environment(plain))


@pytest.mark.parametrize("stage", STAGES)
def test_pods_that_go_to_the_network_trust_the_authorities_of_the_platform(stage: str, job: JobView) -> None:
    pod = template(stage, job, certificates={"configMap": "authorities", "key": "ca.crt"})
    volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
    if stage == "serve":
        assert "certificates" not in volumes
        return
    items = [{"key": "ca.crt", "path": "ca-bundle.crt"}]
    assert volumes["certificates"]["configMap"] == {"name": "authorities", "items": items}
    [mount] = [mount for mount in container(pod)["volumeMounts"] if mount["name"] == "certificates"]
    told = {environment(pod)[name] for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE")}
    assert (mount["readOnly"], told) == (True, {f"{mount['mountPath']}/ca-bundle.crt"})


@pytest.mark.parametrize("stage", STAGES)
def test_the_images_authorities_do_where_the_platform_names_none(stage: str, job: JobView) -> None:
    assert certificates.environment(Settings()) == certificates.mounts(Settings()) == []
    assert "SSL_CERT_FILE" not in environment(template(stage, job))


def test_only_pods_with_gpus_get_their_runtime(job: JobView) -> None:
    classes = {
        stage: template(stage, job, gpu={"runtimeClassName": "nvidia"})["spec"].get("runtimeClassName")
        for stage in STAGES
    }
    assert classes == {"prepare": None, "train": "nvidia", "merge": None, "serve": "nvidia"}
    assert "runtimeClassName" not in template("train", job)["spec"]

"""The NetworkPolicies select the pods that the operator really makes, and open no more than they say."""

from __future__ import annotations

from typing import Any

import pytest

from chart import CHART, NAMESPACE, RELEASE, Manifest, of_kind, render, the
from finetune_operator.api import names
from finetune_operator.build import deployment, merge_job, prepare_job, train_job
from finetune_operator.settings import Settings
from manifest_builders import a_job

TEAM = "team"
ON = ("--set", f"networkPolicy.operator.enabled=true,networkPolicy.jobs.namespaces={{{TEAM}}}")
STAGES = ("prepare", "train", "merge", "serve")
RULED_BY = {"prepare": "prepare", "merge": "prepare", "train": "train", "serve": "serve"}


@pytest.fixture(scope="module")
def manifests() -> list[Manifest]:
    return render(*ON)


def policy(manifests: list[Manifest], name: str = "") -> dict[str, Any]:
    spec: dict[str, Any] = the(manifests, "NetworkPolicy", f"{RELEASE}-{name}" if name else RELEASE)["spec"]
    return spec


def pod_template(stage: str) -> Manifest:
    view, settings = a_job().with_spec(serving={"gpus": 1}).job(), Settings()
    if stage == "serve":
        assert view.spec.serving is not None
        return deployment.build(view, settings, view.spec.serving, replicas=1)["spec"]["template"]
    built = {
        "prepare": lambda: prepare_job.build(view, settings),
        "train": lambda: train_job.build(view, settings, 0, NAMESPACE),
        "merge": lambda: merge_job.build(view, settings),
    }[stage]()
    return built["spec"]["template"]


def selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    wanted = selector.get("matchLabels", {}).items() <= labels.items()
    expressions = selector.get("matchExpressions", [])
    assert all(expression["operator"] == "In" for expression in expressions)
    return wanted and all(labels.get(expression["key"]) in expression["values"] for expression in expressions)


def test_there_are_none_unless_they_are_asked_for() -> None:
    assert of_kind(render(), "NetworkPolicy") == []


@pytest.mark.parametrize("stage", STAGES)
def test_each_stages_pods_are_ruled_by_one_policy(manifests: list[Manifest], stage: str) -> None:
    labels = pod_template(stage)["metadata"]["labels"]
    ruling = [
        p["metadata"]["name"] for p in of_kind(manifests, "NetworkPolicy") if selects(p["spec"]["podSelector"], labels)
    ]
    assert ruling == [f"{RELEASE}-{RULED_BY[stage]}"]


def test_pods_that_are_not_a_jobs_are_left_alone(manifests: list[Manifest]) -> None:
    for labels in ({}, {names.STAGE_LABEL: "train"}, {names.MANAGED_BY_LABEL: names.MANAGER}):
        policies = [p["spec"] for p in of_kind(manifests, "NetworkPolicy")]
        assert not any(selects(spec["podSelector"], labels) for spec in policies)


@pytest.mark.parametrize("name", ["", "prepare", "train", "serve"])
def test_what_no_rule_allows_is_denied_in_both_directions(manifests: list[Manifest], name: str) -> None:
    assert policy(manifests, name)["policyTypes"] == ["Ingress", "Egress"]


def test_the_operator_is_reached_by_training_pods_only_and_on_its_two_ports(manifests: list[Manifest]) -> None:
    progress, metrics = policy(manifests)["ingress"]
    [trainers] = progress["from"]
    assert selects(trainers["podSelector"], pod_template("train")["metadata"]["labels"])
    assert not selects(trainers["podSelector"], pod_template("serve")["metadata"]["labels"])
    container = the(manifests, "Deployment")["spec"]["template"]["spec"]["containers"][0]
    opened = [port["port"] for rule in (progress, metrics) for port in rule["ports"]]
    assert opened == [port["name"] for port in container["ports"]]
    assert selects(
        policy(manifests)["podSelector"], the(manifests, "Deployment")["spec"]["template"]["metadata"]["labels"]
    )


def test_training_pods_reach_dns_each_other_and_the_operator_and_nothing_else(manifests: list[Manifest]) -> None:
    spec = policy(manifests, "train")
    dns, each_other, operator = spec["egress"]
    assert {port["port"] for port in dns["ports"]} == {53}
    assert each_other["to"] == spec["ingress"][0]["from"]
    [peer] = operator["to"]
    assert peer["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": NAMESPACE}
    assert selects(peer["podSelector"], the(manifests, "Deployment")["spec"]["template"]["metadata"]["labels"])
    [container] = pod_template("train")["spec"]["containers"]
    [url] = [entry["value"] for entry in container["env"] if entry["name"] == "KUBEFLOW_TRAINER_SERVER_URL"]
    assert f".{NAMESPACE}.svc:{operator['ports'][0]['port']}/" in url


def test_a_served_model_is_asked_on_its_port_and_asks_nobody(manifests: list[Manifest]) -> None:
    spec = policy(manifests, "serve")
    assert "egress" not in spec
    [container] = pod_template("serve")["spec"]["containers"]
    assert [port["port"] for port in spec["ingress"][0]["ports"]] == [port["name"] for port in container["ports"]]


def test_prepare_reaches_the_world_but_not_the_metadata_service_and_is_reached_by_nobody(
    manifests: list[Manifest],
) -> None:
    spec = policy(manifests, "prepare")
    assert "ingress" not in spec
    blocks = {
        peer["ipBlock"]["cidr"]: peer["ipBlock"]["except"] for peer in spec["egress"][1]["to"] if "ipBlock" in peer
    }
    assert blocks == {
        "0.0.0.0/0": ["169.254.169.254/32", "169.254.170.2/32", "169.254.170.23/32", "100.100.100.200/32"],
        "::/0": ["fd00:ec2::23/128", "fd00:ec2::254/128"],
    }


def test_what_you_allow_further_is_added() -> None:
    manifests = render("--values", CHART / "ci" / "everything-values.yaml")
    found = {p["metadata"]["name"]: p["spec"] for p in of_kind(manifests, "NetworkPolicy")}
    assert found["tuner-train"]["egress"][-1]["ports"] == [{"protocol": "TCP", "port": 5000}]
    assert found["tuner-serve"]["ingress"][0]["from"][0]["namespaceSelector"]["matchLabels"] == {
        "example.com/may-ask": "true"
    }
    assert [port["port"] for port in found["tuner"]["egress"][-1]["ports"]] == [6443]
    # `helm test` has to get through as well
    assert len(found["tuner"]["ingress"][-1]["from"]) == 2


def test_helms_test_pod_reaches_the_operator_where_everything_else_is_denied(manifests: list[Manifest]) -> None:
    tester = policy(manifests, "test")
    assert selects(tester["podSelector"], the(manifests, "Pod", f"{RELEASE}-test")["metadata"]["labels"])
    operator = the(manifests, "Deployment")["spec"]["template"]["metadata"]["labels"]
    [asked] = [rule for rule in tester["egress"] if rule["ports"] == [{"protocol": "TCP", "port": "http"}]]
    assert all(selects(peer["podSelector"], operator) for peer in asked["to"])

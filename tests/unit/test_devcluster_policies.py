"""NetworkPolicies as iptables rules."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_devcluster.kubelet.policies import World, matches, restore_text

Object = dict[str, Any]
TRAIN, OPERATOR, STRANGER, DNS = "10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"


def pod(name: str, namespace: str, address: str, **labels: str) -> Object:
    ports = [{"name": "progress", "containerPort": 8443}]
    return {
        "metadata": {"name": name, "namespace": namespace, "uid": name, "labels": labels},
        "spec": {"containers": [{"ports": ports}]},
        "status": {"podIP": address, "phase": "Running"},
    }


def policy(namespace: str, selector: Object, kinds: list[str], **rules: Any) -> Object:
    return {
        "metadata": {"name": "p", "namespace": namespace},
        "spec": {"podSelector": selector, "policyTypes": kinds, **rules},
    }


def world(*policies: Object) -> World:
    pods = [
        pod("train", "team", TRAIN, stage="train"),
        pod("operator", "system", OPERATOR, app="operator"),
        pod("stranger", "other", STRANGER),
        pod("dns", "kube-system", DNS, app="dns"),
    ]
    names = ("team", "system", "other", "kube-system")
    namespaces = [{"metadata": {"name": name, "labels": {"name": name}}} for name in names]
    return World(policies, pods, namespaces)


def rules(*policies: Object) -> list[str]:
    """What is said of pods, each chain named by the address that it is for."""
    text = restore_text(world(*policies)).splitlines()
    jumps = [line.split() for line in text if line.startswith("-A FTC-POLICY")]
    owner = {words[-1]: words[3] for words in jumps}
    return [
        f"{owner[line.split()[1]]} {line.split(' ', 2)[2]}"
        for line in text
        if line.startswith(("-A FTC-I", "-A FTC-E"))
    ]


EVERYTHING: Object = {}


def test_a_pod_that_no_policy_selects_is_free() -> None:
    assert rules(policy("elsewhere", EVERYTHING, ["Ingress", "Egress"])) == []


def test_a_policy_without_rules_denies_what_it_names() -> None:
    assert rules(policy("team", EVERYTHING, ["Ingress"])) == [f"{TRAIN} -j DROP"]
    assert rules(policy("team", EVERYTHING, ["Ingress", "Egress"])) == [f"{TRAIN} -j DROP"] * 2


def test_an_empty_rule_allows_everything() -> None:
    assert rules(policy("team", EVERYTHING, ["Egress"], egress=[{}])) == [f"{TRAIN} -j RETURN", f"{TRAIN} -j DROP"]


def test_policies_add_up() -> None:
    denied = policy("team", EVERYTHING, ["Egress"])
    allowed = policy(
        "team", {"matchLabels": {"stage": "train"}}, ["Egress"], egress=[{"ports": [{"port": 53, "protocol": "UDP"}]}]
    )
    assert rules(denied, allowed) == [f"{TRAIN} -p udp --dport 53 -j RETURN", f"{TRAIN} -j DROP"]


def test_a_port_is_found_by_the_name_that_the_pod_which_is_asked_gives_it() -> None:
    to = {
        "to": [
            {
                "namespaceSelector": {"matchLabels": {"name": "system"}},
                "podSelector": {"matchLabels": {"app": "operator"}},
            }
        ]
    }
    allowed = policy("team", EVERYTHING, ["Egress"], egress=[{**to, "ports": [{"port": "progress"}]}])
    assert rules(allowed)[0] == f"{TRAIN} -d {OPERATOR} -p tcp --dport 8443 -j RETURN"


def test_a_port_that_the_pod_has_not_allows_nothing() -> None:
    allowed = policy("team", EVERYTHING, ["Ingress"], ingress=[{"ports": [{"port": "web"}]}])
    assert rules(allowed) == [f"{TRAIN} -j DROP"]


def test_a_pod_selector_alone_means_pods_of_the_policys_own_namespace() -> None:
    allowed = policy("system", EVERYTHING, ["Ingress"], ingress=[{"from": [{"podSelector": {}}]}])
    assert rules(allowed) == [f"{OPERATOR} -s {OPERATOR} -j RETURN", f"{OPERATOR} -j DROP"]


def test_an_empty_namespace_selector_means_pods_of_every_namespace() -> None:
    allowed = policy("system", EVERYTHING, ["Ingress"], ingress=[{"from": [{"namespaceSelector": {}}]}])
    assert len(rules(allowed)) == 5


def test_what_a_block_excepts_is_not_allowed() -> None:
    block = {"ipBlock": {"cidr": "0.0.0.0/0", "except": ["169.254.169.254/32", "10.1.0.0/16"]}}
    allowed = policy("team", EVERYTHING, ["Egress"], egress=[{"to": [block, {"ipBlock": {"cidr": "::/0"}}]}])
    ranges = "-m iprange ! --dst-range 169.254.169.254-169.254.169.254 -m iprange ! --dst-range 10.1.0.0-10.1.255.255"
    assert rules(allowed) == [f"{TRAIN} -d 0.0.0.0/0 {ranges} -j RETURN", f"{TRAIN} -j DROP"]


def test_a_pod_that_has_ended_has_no_rules() -> None:
    ended = world(policy("team", EVERYTHING, ["Ingress"]))
    ended.pods[0]["status"]["phase"] = "Succeeded"  # type: ignore[index]
    assert "DROP" not in restore_text(ended)


@pytest.mark.parametrize(
    ("operator", "values", "selected"),
    [
        ("In", ["train"], True),
        ("In", ["serve"], False),
        ("NotIn", ["serve"], True),
        ("Exists", [], True),
        ("DoesNotExist", [], False),
    ],
)
def test_expressions_select_by_label(operator: str, values: list[str], selected: bool) -> None:
    expression = {"key": "stage", "operator": operator, "values": values}
    assert matches({"matchExpressions": [expression]}, {"stage": "train"}) is selected

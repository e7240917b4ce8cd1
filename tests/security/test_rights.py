"""T3: what each service account may do, as the real API server says, equals the files in golden/ (WRITE_GOLDEN=1 writes them)."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from chart import CHART, render
from finetune_devcluster import Cluster
from finetune_operator.shell.rights import RULES
from job_space import Space
from operator_process import NAMESPACE, OperatorProcess, apply
from support_wait import eventually

GOLDEN = Path(__file__).parent / "golden"
RBAC_KINDS = ("ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding")
INSTALLS = {"cluster": (), "namespaced": ("--set", "settings.namespaces={team-a}")}
# Account, and the namespace that is asked about.
LISTS = {
    "operator-of-all-namespaces": ("cluster", "team-a"),
    "operator-of-some-namespaces": ("namespaced", "team-a"),
    "operator-of-some-namespaces-elsewhere": ("namespaced", "team-b"),
}
NEVER = (
    *(("get", "secrets"), ("list", "secrets"), ("watch", "secrets"), ("create", "secrets")),
    *(
        ("create", "pods"),
        ("create", "pods/exec"),
        ("create", "pods/ephemeralcontainers"),
        ("create", "pods/portforward"),
    ),
    *(("create", "serviceaccounts/token"), ("impersonate", "users"), ("impersonate", "serviceaccounts")),
    *(("create", "roles.rbac.authorization.k8s.io"), ("bind", "clusterroles.rbac.authorization.k8s.io")),
    *(("escalate", "clusterroles.rbac.authorization.k8s.io"), ("patch", "nodes"), ("create", "persistentvolumes")),
    *(("patch", "namespaces"), ("list", "configmaps"), ("list", "services"), ("delete", "persistentvolumeclaims")),
    *(("patch", "customresourcedefinitions.apiextensions.k8s.io"), ("create", "daemonsets.apps")),
    *(("update", "finetunejobs.finetune-operator.io"), ("create", "finetunejobs.finetune-operator.io")),
    *(("approve", "certificatesigningrequests.certificates.k8s.io"), ("*", "*")),
)


@pytest.fixture(scope="module")
def installed(control_plane: Cluster, team: Space, neighbour: Space) -> Cluster:
    """The accounts, roles and bindings of the chart, installed both ways under names of their own."""
    for name, arguments in INSTALLS.items():
        made = render("--set", f"fullnameOverride=rights-{name}", *arguments)
        apply(control_plane, *(manifest for manifest in made if manifest["kind"] in RBAC_KINDS))
    return control_plane


def account(install: str) -> str:
    return f"system:serviceaccount:{NAMESPACE}:rights-{install}"


def rights(cluster: Cluster, who: str, namespace: str) -> str:
    """What `kubectl auth can-i --list` says, in an order that does not change."""
    done = cluster.kubectl("auth", "can-i", "--list", "--no-headers", "-n", namespace, f"--as={who}")
    assert done.returncode == 0, done.stderr
    lines = sorted(" ".join(line.split()) for line in done.stdout.splitlines() if line.strip())
    return "\n".join(lines) + "\n"


def equals_golden(name: str, found: str) -> bool:
    file = GOLDEN / f"{name}.txt"
    if os.environ.get("WRITE_GOLDEN"):
        file.write_text(found)
    return found == file.read_text()


@pytest.mark.threat("T3")
@pytest.mark.parametrize("name", LISTS)
def test_the_operator_may_do_what_is_written_down_and_no_more(installed: Cluster, name: str) -> None:
    install, namespace = LISTS[name]
    eventually(lambda: "tokenreviews" in rights(installed, account(install), namespace), message="the rights are bound")
    # One binding may be known before the other.
    eventually(
        lambda: equals_golden(name, rights(installed, account(install), namespace)),
        message=f"layer: RBAC; the rights equal {GOLDEN / name}.txt",
    )
    found = rights(installed, account(install), namespace)
    assert "*" not in found.replace("/api/*", "").replace("/apis/*", "").replace("/openapi/*", "")
    assert "secrets" not in found


@pytest.mark.threat("T3")
def test_the_pods_of_jobs_run_under_an_account_without_rights(installed: Cluster) -> None:
    found = rights(installed, "system:serviceaccount:team-a:default", "team-a")
    assert equals_golden("pods-of-jobs", found), "layer: RBAC"


@pytest.mark.threat("T3")
@pytest.mark.parametrize(("verb", "what"), NEVER, ids=lambda value: str(value))
def test_the_operator_may_never(operator: OperatorProcess, installed: Cluster, verb: str, what: str) -> None:
    resource, _, sub = what.partition("/")
    asked = ("auth", "can-i", verb, resource, f"--subresource={sub}", "-n", "team-a", f"--as={account('cluster')}")
    assert installed.kubectl(*asked).stdout.strip() == "no", "layer: RBAC"


@pytest.mark.threat("T3")
def test_a_stolen_token_of_the_operator_reads_no_secret(operator: OperatorProcess, team: Space) -> None:
    stolen = f"--kubeconfig={operator.kubeconfig}"
    done = team.cluster.kubectl(stolen, "-n", team.name, "get", "secrets")
    assert "forbidden" in done.stderr, "layer: RBAC"
    done = team.cluster.kubectl(stolen, "-n", team.name, "get", "finetunejobs")
    assert done.returncode == 0, "it is the operator's token"


@pytest.mark.threat("T3")
def test_users_get_rights_on_finetunejobs_only() -> None:
    roles = [role for role in render() if role["kind"] == "ClusterRole" and "rules" in role]
    aggregated = [role for role in roles if any("aggregate-to" in label for label in role["metadata"]["labels"])]
    assert len(aggregated) == 3
    groups = {group for role in aggregated for rule in role["rules"] for group in rule["apiGroups"]}
    writes = {verb for role in aggregated for rule in role["rules"] for verb in rule["verbs"]}
    assert groups == {"finetune-operator.io"}
    assert not {"*", "escalate", "bind", "impersonate"} & writes


@pytest.mark.threat("T3")
def test_no_rule_of_the_operator_has_a_wildcard() -> None:
    assert "*" not in json.dumps([dict(rule) for rule in RULES])
    assert CHART.is_dir()

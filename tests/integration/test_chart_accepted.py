"""A real API server accepts what the chart and `deploy/` hold, and what is installed behaves as docs/install.md says."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import argocd
from chart import CHART, NAMESPACE, RELEASE, ROOT, VALUES_FILES, helm, rendered_text
from finetune_devcluster import Cluster
from support_wait import eventually
from wrong_manifests import valid_manifest

MONITORING = Path(__file__).parent / "data" / "monitoring-crds.yaml"
ARGOCD = Path(__file__).parent / "data" / "argocd-crds.yaml"
DEFINITION = "customresourcedefinition/finetunejobs.finetune-operator.io"
OPERATOR = f"system:serviceaccount:{NAMESPACE}:{RELEASE}"
OBJECTS_OF_RELEASE = f"app.kubernetes.io/instance={RELEASE}"
AS_ARGOCD = ("--server-side", "--force-conflicts", "--field-manager=argocd-controller")
STRICT_DRY_RUN = ("--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict")


@pytest.fixture(scope="module")
def bare_cluster() -> Iterator[Cluster]:
    """A control plane of its own, since the tests install and remove what others rely on."""
    with Cluster(f"chart-{os.getpid()}", node=False) as cluster:
        # Its label `restricted` makes the API server refuse an operator pod that asks for more than it needs.
        kubectl(cluster, "apply", "-f", ROOT / "deploy" / "namespace.yaml")
        for definitions in (MONITORING, ARGOCD):
            kubectl(cluster, "apply", "--server-side", "-f", definitions)
            eventually(lambda file=definitions: served(cluster, file), message=f"{definitions.name} are served")
        for team in ("argocd", "team-a", "team-b"):
            kubectl(cluster, "create", "namespace", team)
        yield cluster


def served(cluster: Cluster, definitions: Path) -> bool:
    names = [each["metadata"]["name"] for each in yaml.safe_load_all(definitions.read_text())]
    return cluster.kubectl("get", ",".join(names), "-A").returncode == 0


@pytest.fixture
def installed(bare_cluster: Cluster) -> Iterator[Cluster]:
    """The cluster with the chart installed by Helm; afterwards only the definition is left."""
    release(bare_cluster, "install")
    yield bare_cluster
    release(bare_cluster, "uninstall")


def release(cluster: Cluster, verb: str, *arguments: str | Path) -> str:
    chart = () if verb == "uninstall" else (CHART,)
    environment = cluster.client_environment()
    done = helm(verb, RELEASE, *chart, "--namespace", NAMESPACE, *arguments, environment=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def kubectl(cluster: Cluster, *arguments: str | Path, stdin: str | None = None) -> str:
    done = cluster.kubectl(*map(str, arguments), input=stdin)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def may(cluster: Cluster, who: str, verb: str, what: str, namespace: str = "team-a") -> bool:
    resource, _, subresource = what.partition("/")
    question = ("auth", "can-i", verb, resource, f"--subresource={subresource}", "--namespace", namespace)
    return cluster.kubectl(*question, f"--as={who}").returncode == 0


def generations(cluster: Cluster) -> dict[str, int]:
    """How often the desired state of each object of the release was changed."""
    kinds = "deployments,services,configmaps,serviceaccounts,clusterroles,clusterrolebindings,crds,networkpolicies"
    listed = kubectl(cluster, "get", kinds, "-n", NAMESPACE, "--selector", OBJECTS_OF_RELEASE, "--output=json")
    objects = [item["metadata"] | {"kind": item["kind"]} for item in json.loads(listed)["items"]]
    return {f"{item['kind']}/{item['name']}": item.get("generation", 1) for item in objects}


@pytest.mark.parametrize("values", VALUES_FILES, ids=lambda path: path.stem)
def test_every_kind_of_values_is_accepted(bare_cluster: Cluster, values: Path) -> None:
    applied = kubectl(bare_cluster, "apply", *STRICT_DRY_RUN, "-f", "-", stdin=rendered_text("--values", values))
    assert "deployment.apps" in applied


def test_what_watches_and_guards_the_operator_can_be_installed(installed: Cluster) -> None:
    release(installed, "upgrade", "--values", CHART / "ci" / "everything-values.yaml")
    kinds = "servicemonitors,prometheusrules,networkpolicies,configmaps"
    listed = kubectl(installed, "get", kinds, "-A", "--selector", OBJECTS_OF_RELEASE, "--output=name").split()
    assert sorted(listed) == [
        "configmap/tuner",
        "configmap/tuner-dashboard",
        "networkpolicy.networking.k8s.io/tuner",
        "networkpolicy.networking.k8s.io/tuner-prepare",
        "networkpolicy.networking.k8s.io/tuner-serve",
        "networkpolicy.networking.k8s.io/tuner-test",
        "networkpolicy.networking.k8s.io/tuner-train",
        "prometheusrule.monitoring.coreos.com/tuner",
        "servicemonitor.monitoring.coreos.com/tuner",
    ]


def test_the_folder_for_kubectl_is_accepted(bare_cluster: Cluster) -> None:
    applied = kubectl(bare_cluster, "apply", *STRICT_DRY_RUN, "-k", ROOT / "deploy").splitlines()
    assert len(applied) == 11
    assert any("customresourcedefinition" in line for line in applied)


def test_the_definition_is_established_and_the_pod_is_admitted(installed: Cluster) -> None:
    kubectl(installed, "wait", "--for=condition=Established", DEFINITION, "--timeout=180s")
    wait = ("wait", "pod", "--for=create", "--selector", OBJECTS_OF_RELEASE, "-n", NAMESPACE, "--timeout=180s")
    assert "condition met" in kubectl(installed, *wait)


def test_upgrading_to_the_same_values_changes_nothing(installed: Cluster) -> None:
    before = generations(installed)
    assert {"Deployment/finetune-operator": 1, "Service/finetune-operator": 1}.items() <= before.items()
    for _ in range(2):
        release(installed, "upgrade")
    assert generations(installed) == before
    assert kubectl(installed, "diff", "-f", "-", stdin=rendered_text("--skip-tests")) == ""


def test_new_settings_reach_the_operator_with_an_upgrade(installed: Cluster) -> None:
    release(installed, "upgrade", "--set", "settings.workers=7")
    assert "workers: 7" in kubectl(installed, "get", "configmap", RELEASE, "-n", NAMESPACE, "--output=yaml")
    assert generations(installed)["Deployment/finetune-operator"] == 2


def test_argocds_way_to_apply_and_compare_finds_no_difference(installed: Cluster) -> None:
    kubectl(installed, "apply", *AS_ARGOCD, "-f", "-", stdin=rendered_text("--skip-tests"))
    assert kubectl(installed, "diff", *AS_ARGOCD, "-f", "-", stdin=rendered_text("--skip-tests")) == ""


def test_a_job_in_git_shows_no_difference_to_the_job_in_the_cluster(installed: Cluster) -> None:
    manifest = json.dumps(valid_manifest("from-git"))
    kubectl(installed, "apply", *AS_ARGOCD, "-f", "-", stdin=manifest)
    assert kubectl(installed, "diff", *AS_ARGOCD, "-f", "-", stdin=manifest) == ""


def test_uninstalling_keeps_definition_and_jobs_and_the_chart_can_come_back(installed: Cluster) -> None:
    kubectl(installed, "create", "-f", "-", stdin=json.dumps(valid_manifest("survivor")))
    release(installed, "uninstall")
    assert "survivor" in kubectl(installed, "get", "finetunejobs")
    assert generations(installed) == {"CustomResourceDefinition/finetunejobs.finetune-operator.io": 1}
    release(installed, "install")
    assert "survivor" in kubectl(installed, "get", "finetunejobs")


def uid_of(cluster: Cluster, job: str) -> str:
    return kubectl(cluster, "get", "finetunejob", job, "--output=jsonpath={.metadata.uid}")


@pytest.mark.parametrize("folder", ["crds", "deploy"])
def test_helm_takes_over_what_kubectl_has_applied_with_the_jobs_that_are_there(
    bare_cluster: Cluster, folder: str
) -> None:
    # What an earlier release has left is Helm's already
    kubectl(bare_cluster, "delete", DEFINITION, "--ignore-not-found")
    kubectl(bare_cluster, "apply", "-k", ROOT / folder)
    kubectl(bare_cluster, "wait", "--for=condition=Established", DEFINITION, "--timeout=180s")
    eventually(lambda: bare_cluster.kubectl("get", "finetunejobs").returncode == 0, message="kubectl get finetunejobs")
    kubectl(bare_cluster, "create", "-f", "-", stdin=json.dumps(valid_manifest("before-helm")))
    before = uid_of(bare_cluster, "before-helm")
    environment = bare_cluster.client_environment()
    refused = helm("install", RELEASE, CHART, "--namespace", NAMESPACE, environment=environment)
    assert "invalid ownership metadata" in refused.stderr
    release(bare_cluster, "install", "--take-ownership", "--server-side=false")
    kubectl(bare_cluster, "apply", "--dry-run=server", "-f", "-", stdin=json.dumps(valid_manifest("before-helm")))
    release(bare_cluster, "upgrade", "--set", "settings.workers=7")
    release(bare_cluster, "uninstall")
    assert uid_of(bare_cluster, "before-helm") == before


def test_a_dry_run_on_the_server_finds_nothing_to_complain_about_and_makes_nothing(bare_cluster: Cluster) -> None:
    release(bare_cluster, "install", "--dry-run=server")
    assert kubectl(bare_cluster, "get", "deployments", "-n", NAMESPACE, "--output=name") == ""


def test_argocds_definitions_accept_the_examples(bare_cluster: Cluster) -> None:
    examples = sorted(argocd.FOLDER.glob("application*.yaml"))
    assert len(examples) == 3
    for example in examples:
        kubectl(bare_cluster, "apply", *STRICT_DRY_RUN, "-f", example)
    misspelt = examples[0].read_text().replace("selfHeal", "selfHeel")
    done = bare_cluster.kubectl("apply", *STRICT_DRY_RUN, "-f", "-", input=misspelt)
    assert "selfHeel" in done.stderr


def test_argocds_definition_accepts_what_the_applicationset_makes(bare_cluster: Cluster, tmp_path: Path) -> None:
    made = argocd.applications(tmp_path)
    assert [each["metadata"]["name"] for each in made] == [
        "finetune-operator",
        "finetune-jobs-team-a",
        "finetune-jobs-team-b",
    ]
    assert [each["spec"]["syncPolicy"]["automated"]["prune"] for each in made] == [True, False, False]
    assert ["helm" in each["spec"]["source"] for each in made] == [True, False, False]
    for each in made:
        kubectl(bare_cluster, "apply", *STRICT_DRY_RUN, "-f", "-", stdin=json.dumps(each))


def test_handing_the_definition_to_others_does_not_delete_it(installed: Cluster) -> None:
    release(installed, "upgrade", "--set", "crds.install=false")
    assert kubectl(installed, "get", DEFINITION, "--output=jsonpath={.metadata.deletionTimestamp}") == ""


def test_the_operator_may_do_its_work_everywhere_and_never_read_a_secret(installed: Cluster) -> None:
    for verb, what in (("list", "finetunejobs"), ("patch", "finetunejobs/status"), ("create", "jobs.batch")):
        assert may(installed, OPERATOR, verb, what), f"{verb} {what}"
    for verb, what in (("get", "secrets"), ("list", "secrets"), ("create", "pods"), ("create", "pods/exec")):
        assert not may(installed, OPERATOR, verb, what), f"{verb} {what}"


def test_a_namespaced_operator_may_work_in_its_namespaces_only(installed: Cluster) -> None:
    release(installed, "upgrade", "--values", CHART / "ci" / "namespaced-values.yaml")
    namespaces = ("team-a", "team-b", "default", NAMESPACE)
    assert [n for n in namespaces if may(installed, OPERATOR, "create", "jobs.batch", n)] == ["team-a", "team-b"]
    assert may(installed, OPERATOR, "create", "tokenreviews.authentication.k8s.io")


def test_users_of_a_namespace_may_do_with_jobs_what_their_role_says(installed: Cluster) -> None:
    binding = ("create", "rolebinding", "--namespace=team-a")
    kubectl(installed, *binding, "viewers", "--clusterrole=view", "--user=viewer")
    kubectl(installed, *binding, "editors", "--clusterrole=edit", "--user=editor")
    # The controller manager adds the chart's rules to `view` and `edit`.
    eventually(lambda: may(installed, "viewer", "list", "finetunejobs"))
    eventually(lambda: may(installed, "editor", "create", "finetunejobs"))
    assert not may(installed, "viewer", "create", "finetunejobs")
    assert not may(installed, "editor", "create", "finetunejobs", "team-b")
    assert not may(installed, "editor", "patch", "finetunejobs/status")

"""What the chart renders, and what it refuses to."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from chart import CHART, NAMESPACE, RELEASE, VALUES_FILES, Manifest, helm, of_kind, refusal, render, rendered_text, the
from finetune_operator.api.crd import custom_resource_definition
from finetune_operator.settings import Settings
from finetune_operator.shell.rights import CLUSTER_RULES, NAMESPACED_RULES, RULES

NAMESPACED = CHART / "ci" / "namespaced-values.yaml"
EVERYTHING = CHART / "ci" / "everything-values.yaml"


@pytest.fixture(scope="module")
def defaults() -> list[Manifest]:
    return render()


def pod(manifests: list[Manifest], name: str = RELEASE) -> Manifest:
    template: Manifest = the(manifests, "Deployment", name)["spec"]["template"]
    return template


@pytest.mark.parametrize("values", VALUES_FILES, ids=lambda path: path.stem)
def test_helm_finds_nothing_to_complain_about(values: Path) -> None:
    linted = helm("lint", "--strict", CHART, "--values", values)
    assert linted.returncode == 0, linted.stdout


@pytest.mark.parametrize("values", VALUES_FILES, ids=lambda path: path.stem)
def test_two_renders_are_equal_and_have_no_hook_but_helms_test(values: Path) -> None:
    text = rendered_text("--values", values)
    assert text == rendered_text("--values", values, "--is-upgrade")
    assert "helm.sh/hook" not in rendered_text("--values", values, "--skip-tests")
    [tried] = of_kind(render("--values", values), "Pod")
    assert tried["metadata"]["annotations"]["helm.sh/hook"] == "test"


def test_every_namespaced_object_names_its_namespace(defaults: list[Manifest]) -> None:
    cluster_wide = {"CustomResourceDefinition", "ClusterRole", "ClusterRoleBinding"}
    namespaces = {m["kind"]: m["metadata"].get("namespace") for m in defaults if m["kind"] not in cluster_wide}
    assert set(namespaces) == {"ConfigMap", "Deployment", "Pod", "Service", "ServiceAccount"}
    assert set(namespaces.values()) == {NAMESPACE}


def test_the_definition_is_the_generated_one_and_outlives_the_release(defaults: list[Manifest]) -> None:
    definition = the(defaults, "CustomResourceDefinition", "finetunejobs.finetune-operator.io")
    assert definition["spec"] == custom_resource_definition()["spec"]
    assert definition["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}


def test_annotations_of_the_definition_are_added() -> None:
    [definition] = of_kind(render("--values", EVERYTHING), "CustomResourceDefinition")
    assert definition["metadata"]["annotations"] == {
        "helm.sh/resource-policy": "keep",
        "argocd.argoproj.io/sync-options": "ServerSideApply=true",
    }


def test_the_definition_can_be_left_out() -> None:
    assert of_kind(render("--set", "crds.install=false"), "CustomResourceDefinition") == []


def test_the_operator_has_exactly_the_rights_that_its_code_lists(defaults: list[Manifest]) -> None:
    assert the(defaults, "ClusterRole")["rules"] == list(RULES)
    assert the(defaults, "ClusterRoleBinding")["roleRef"]["name"] == RELEASE
    assert of_kind(defaults, "Role") == of_kind(defaults, "RoleBinding") == []


@pytest.mark.parametrize("values", VALUES_FILES, ids=lambda path: path.stem)
def test_no_role_holds_a_wildcard_or_secrets(values: Path) -> None:
    manifests = render("--values", values)
    rules = [rule for kind in ("ClusterRole", "Role") for role in of_kind(manifests, kind) for rule in role["rules"]]
    words = {word for rule in rules for part in rule.values() for word in part}
    assert bool(rules) == (values.stem != "account-values")
    assert not words & {"*", "secrets", "escalate", "bind", "impersonate", "pods/exec"}


def test_a_namespaced_operator_has_a_role_in_each_namespace_and_no_more() -> None:
    manifests = render("--values", NAMESPACED)
    roles = {role["metadata"]["namespace"]: role["rules"] for role in of_kind(manifests, "Role")}
    assert roles == {"team-a": list(NAMESPACED_RULES), "team-b": list(NAMESPACED_RULES)}
    assert [role["rules"] for role in of_kind(manifests, "ClusterRole")] == [list(CLUSTER_RULES)]
    bindings = of_kind(manifests, "RoleBinding")
    assert [binding["metadata"]["namespace"] for binding in bindings] == ["team-a", "team-b"]
    subject = {"kind": "ServiceAccount", "name": RELEASE, "namespace": NAMESPACE}
    assert [binding["subjects"] for binding in bindings] == [[subject], [subject]]


@pytest.mark.parametrize(
    ("role", "may_write"), [("view", False), ("edit", True), ("admin", True)], ids=lambda value: str(value)
)
def test_the_builtin_roles_of_users_cover_jobs(defaults: list[Manifest], role: str, may_write: bool) -> None:
    aggregated = the(defaults, "ClusterRole", f"{RELEASE}-{role}")
    assert aggregated["metadata"]["labels"][f"rbac.authorization.k8s.io/aggregate-to-{role}"] == "true"
    jobs = aggregated["rules"][0]
    assert jobs["resources"] == ["finetunejobs"]
    assert ("create" in jobs["verbs"], "delete" in jobs["verbs"]) == (may_write, may_write)


@pytest.mark.parametrize("values", VALUES_FILES, ids=lambda path: path.stem)
def test_the_operator_can_read_the_settings_that_it_is_given(values: Path, tmp_path: Path) -> None:
    wanted = (yaml.safe_load(values.read_text()) or {}).get("settings", {})
    assert settings_of(render("--values", values, "--set", "imageRegistry="), tmp_path) == Settings.model_validate(
        wanted
    )


def settings_of(manifests: list[Manifest], folder: Path) -> Settings:
    [text] = [m["data"]["settings.yaml"] for m in of_kind(manifests, "ConfigMap") if "settings.yaml" in m["data"]]
    file = folder / "settings.yaml"
    file.write_text(text)
    return Settings.load(file)


@pytest.mark.parametrize(
    ("named", "pulled"),
    [
        ("finetune-operator/trainer:1", "r.example.com/m/finetune-operator/trainer:1"),
        ("ghcr.io/a/trainer:1", "r.example.com/m/a/trainer:1"),
        ("localhost:5000/trainer@sha256:" + "a" * 64, "r.example.com/m/trainer@sha256:" + "a" * 64),
        ("localhost/trainer", "r.example.com/m/trainer"),
        ("trainer:1.2", "r.example.com/m/trainer:1.2"),
    ],
    ids=["no registry", "a registry", "a port and a digest", "localhost", "a name alone"],
)
def test_a_registry_of_your_own_takes_the_place_of_the_one_that_an_image_names(
    named: str, pulled: str, tmp_path: Path
) -> None:
    manifests = render("--set", f"imageRegistry=r.example.com/m,settings.images.trainer={named}")
    assert settings_of(manifests, tmp_path).images.trainer == pulled


def test_a_registry_of_your_own_holds_every_image(tmp_path: Path) -> None:
    manifests = render("--set", "imageRegistry=r.example.com,image.repository=ghcr.io/x/operator")
    images = settings_of(manifests, tmp_path).images.model_dump(exclude={"pull_policy", "pull_secrets"})
    [tried] = of_kind(manifests, "Pod")
    pods = [pod(manifests)["spec"], tried["spec"]]
    pulled = [*images.values(), *(container["image"] for spec in pods for container in spec["containers"])]
    assert len(pulled) >= 6
    assert [image for image in pulled if not image.startswith("r.example.com/")] == []


def test_labels_of_the_platform_are_on_every_object_and_never_twice() -> None:
    labels = "commonLabels.team=platform,commonLabels.release=other,podLabels.team=operators"
    manifests = render(
        "--set", f"{labels},metrics.serviceMonitor.enabled=true,metrics.serviceMonitor.labels.release=own"
    )
    without = [m["metadata"]["name"] for m in manifests if m["metadata"]["labels"].get("team") != "platform"]
    assert without == []
    assert pod(manifests)["metadata"]["labels"]["team"] == "operators"
    assert the(manifests, "ServiceMonitor")["metadata"]["labels"]["release"] == "own"
    spec = the(manifests, "Deployment")["spec"]
    assert spec["selector"]["matchLabels"].items() <= spec["template"]["metadata"]["labels"].items()
    assert "team" not in spec["selector"]["matchLabels"]


def test_labels_that_the_chart_relies_on_cannot_be_taken_away(defaults: list[Manifest]) -> None:
    ours = "app\\.kubernetes\\.io/name=mine"
    manifests = render("--set", f"commonLabels.{ours},podLabels.{ours}")
    assert [m["metadata"]["labels"] for m in manifests] == [m["metadata"]["labels"] for m in defaults]
    assert pod(manifests)["metadata"]["labels"] == pod(defaults)["metadata"]["labels"]


def test_new_settings_make_a_new_pod(defaults: list[Manifest]) -> None:
    def checksum(manifests: list[Manifest]) -> str:
        return str(pod(manifests)["metadata"]["annotations"]["checksum/settings"])

    assert checksum(render("--set", "settings.workers=8")) != checksum(defaults)


def test_the_service_leads_to_the_ports_of_the_operator() -> None:
    manifests = render("--values", EVERYTHING)
    [service] = of_kind(manifests, "Service")
    [container] = pod(manifests, "tuner")["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert service["metadata"]["name"] == "tuner-progress"
    assert ports == {"progress": 9443, "http": 8080}
    assert {port["targetPort"]: port["port"] for port in service["spec"]["ports"]} == ports
    assert service["spec"]["selector"].items() <= pod(manifests, "tuner")["metadata"]["labels"].items()


def test_one_operator_runs_at_a_time_and_no_budget_keeps_its_node_from_being_drained(defaults: list[Manifest]) -> None:
    spec = the(defaults, "Deployment")["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})
    assert of_kind(render("--values", EVERYTHING), "PodDisruptionBudget") == []


def test_helms_test_asks_the_service_of_the_operator() -> None:
    manifests = render("--values", EVERYTHING)
    [tried] = of_kind(manifests, "Pod")
    [container] = tried["spec"]["containers"]
    assert container["command"] == ["finetune-operator", "check", f"http://tuner-progress.{NAMESPACE}.svc:8080"]
    assert container["image"] == pod(manifests, "tuner")["spec"]["containers"][0]["image"]
    assert tried["spec"]["automountServiceAccountToken"] is False


def test_the_operator_is_started_with_an_argument_list_and_knows_its_pod(defaults: list[Manifest]) -> None:
    [container] = pod(defaults)["spec"]["containers"]
    assert container["command"] == ["finetune-operator", "run", "--settings", "/etc/finetune-operator/settings.yaml"]
    fields = {variable["name"]: variable["valueFrom"]["fieldRef"]["fieldPath"] for variable in container["env"]}
    assert fields == {"POD_ID": "metadata.name", "POD_NAMESPACE": "metadata.namespace"}


def test_no_user_id_is_set_so_that_the_platform_may_choose_one(defaults: list[Manifest]) -> None:
    spec = pod(defaults)["spec"]
    contexts = [spec["securityContext"], *(container["securityContext"] for container in spec["containers"])]
    assert contexts[0]["runAsNonRoot"] is True
    assert not {"runAsUser", "runAsGroup", "fsGroup"} & {key for context in contexts for key in context}


@pytest.mark.parametrize(
    ("values", "image"),
    [
        ([], "finetune-operator/operator:0.1.0"),
        (["--set", "image.tag=1.2.3"], "finetune-operator/operator:1.2.3"),
        (["--set", f"image.tag=1.2.3,image.digest=sha256:{'a' * 64}"], f"finetune-operator/operator@sha256:{'a' * 64}"),
    ],
    ids=["version of the chart", "tag", "digest wins"],
)
def test_the_image_is_named_by_digest_tag_or_version(values: list[str], image: str) -> None:
    assert pod(render(*values))["spec"]["containers"][0]["image"] == image


def test_every_value_for_the_pod_arrives_there() -> None:
    template = pod(render("--values", EVERYTHING), "tuner")
    given: dict[str, Any] = yaml.safe_load(EVERYTHING.read_text())
    for name in ("nodeSelector", "tolerations", "affinity", "priorityClassName"):
        assert template["spec"][name] == given[name]
    # Helm lays maps over those of values.yaml
    for kind, asked in given["resources"].items():
        assert asked.items() <= template["spec"]["containers"][0]["resources"][kind].items()
    assert given["podLabels"].items() <= template["metadata"]["labels"].items()
    assert given["podAnnotations"].items() <= template["metadata"]["annotations"].items()


def test_images_are_pulled_with_the_secrets_that_are_given() -> None:
    spec = pod(render("--set", "imagePullSecrets[0].name=registry"))["spec"]
    assert spec["imagePullSecrets"] == [{"name": "registry"}]


def test_an_existing_service_account_can_be_used() -> None:
    manifests = render("--set", "serviceAccount.create=false,serviceAccount.name=robot")
    assert of_kind(manifests, "ServiceAccount") == []
    assert pod(manifests)["spec"]["serviceAccountName"] == "robot"
    assert the(manifests, "ClusterRoleBinding")["subjects"][0]["name"] == "robot"


def test_rights_can_be_left_to_others() -> None:
    manifests = render("--set", "rbac.create=false,rbac.aggregate=false,settings.namespaces={team-a}")
    assert {"ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"}.isdisjoint(m["kind"] for m in manifests)


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ("settings.workers=0", "/settings/workers"),
        ("settings.wokers=4", "wokers"),
        ("settings.progress.port=70000", "/settings/progress/port"),
        ("settings.images.pullPolicy=Sometimes", "/settings/images/pullPolicy"),
        ("settings.stages.train.memory=lots", "/settings/stages/train/memory"),
        ("settings.namespaces[0]=Team_A", "/settings/namespaces/0"),
        ("image.digest=sha256:beef", "/image/digest"),
        ("image.tag=a tag", "/image/tag"),
        ("commonLabels.team=a team", "/commonLabels/team"),
        ("settings.pods.labels.team=a team", "/settings/pods/labels/team"),
        ("settings.pods.environment.1ST=x", "1ST"),
        ("settings.certificates.key=a/b", "/settings/certificates/key"),
        ("settings.gpu.runtimeClassName=Nvidia_1", "/settings/gpu/runtimeClassName"),
        ("networkPolicy.jobs.exceptAddresses[0]=metadata", "/networkPolicy/jobs/exceptAddresses/0"),
        ("replicas=2", "replicas"),
        ("crds.install=perhaps", "/crds/install"),
        ("tolerations[0].effect=NoWay", "/tolerations/0/effect"),
        ("settings.gpu.tolerations[0].effect=NoWay", "/settings/gpu/tolerations/0/effect"),
        ("imageRegistry=https://registry.example.com/", "/imageRegistry"),
        ("metrics.serviceMonitor.interval=often", "/metrics/serviceMonitor/interval"),
        ("metrics.prometheusRule.runbook=", "/metrics/prometheusRule/runbook"),
        ("networkPolicy.jobs.namespaces[0]=Team_A", "/networkPolicy/jobs/namespaces/0"),
        ("networkPolicy.operator.apiServerPorts[0]=0", "/networkPolicy/operator/apiServerPorts/0"),
        ("networkPolicy.enabled=true", "enabled"),
    ],
)
def test_a_wrong_value_is_refused_with_the_name_of_its_field(value: str, field: str) -> None:
    assert field in refusal("--set", value)


def test_a_cluster_that_is_too_old_is_refused() -> None:
    assert "1.33" in refusal("--kube-version", "1.32.9")


def test_what_a_parent_chart_passes_down_is_accepted() -> None:
    assert render("--set", "global.region=eu,enabled=true") == render()


def test_the_notes_name_the_deployment_as_it_is_called() -> None:
    shown = helm("install", RELEASE, CHART, "--dry-run=client", "--values", EVERYTHING, "--namespace", NAMESPACE)
    assert f"kubectl --namespace {NAMESPACE} rollout status deployment/tuner" in shown.stdout, shown.stderr


def test_the_notes_say_what_is_watched_and_warn_of_a_missing_definition() -> None:
    shown = helm("install", RELEASE, CHART, "--dry-run=client", "--values", NAMESPACED)
    assert "team-a, team-b" in shown.stdout, shown.stderr
    assert "crds.install is false" in shown.stdout

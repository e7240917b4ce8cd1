"""The operator, installed by the README's own line under Pod Security `restricted`."""

import json

from job_driver import Driver
from real_cluster import Site
from support_wait import eventually

WRITE = "open('/written', 'w')"


def test_helms_own_test_reaches_the_operator_through_its_service(cluster: Site, operator: Driver) -> None:
    assert "Succeeded" in cluster.helm("test", "finetune-operator", "--namespace", operator.namespace)


def test_kubectl_explains_the_spec(operator: Driver) -> None:
    assert "method" in operator.kubectl("explain", "finetunejob.spec")


def test_the_operator_cannot_write_to_its_root(cluster: Site, operator: Driver) -> None:
    command = ("exec", "deployment/finetune-operator", "--", "python", "-c", WRITE)
    done = cluster.kubectl("--namespace", operator.namespace, *command)
    assert "Read-only file system" in done.stderr


def test_a_pod_that_is_not_restricted_is_refused_where_the_operator_runs(cluster: Site, operator: Driver) -> None:
    command = ("run", "root", "--image", cluster.image("operator"), "--dry-run=server")
    done = cluster.kubectl("--namespace", operator.namespace, *command)
    assert 'violates PodSecurity "restricted' in done.stderr


def test_the_operator_holds_no_right_that_its_chart_does_not_list(operator: Driver) -> None:
    account = f"system:serviceaccount:{operator.namespace}:finetune-operator"
    for verb, resource in (("get", "secrets"), ("create", "pods"), ("delete", "finetunejobs.finetune-operator.io")):
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {"user": account, "resourceAttributes": _attributes(verb, resource, operator.namespace)},
        }
        answer = operator.cluster.kubectl("create", "-o", "json", "-f", "-", input=json.dumps(review))
        assert json.loads(answer.stdout)["status"]["allowed"] is False, f"{verb} {resource}"


def _attributes(verb: str, resource: str, namespace: str) -> dict[str, str]:
    name, _, group = resource.partition(".")
    return {"verb": verb, "resource": name, "group": group, "namespace": namespace}


def test_the_operators_pod_is_ready_and_has_never_restarted(operator: Driver) -> None:
    def ready() -> bool:
        [pod] = json.loads(
            operator.kubectl("get", "pods", "-l", "app.kubernetes.io/name=finetune-operator", "-o", "json")
        )["items"]
        [container] = pod["status"]["containerStatuses"]
        assert container["restartCount"] == 0
        return bool(container["ready"])

    assert eventually(ready, 60)

"""Field references, resource references and quantities of the process node."""

from typing import Any

import pytest

from finetune_devcluster.node import quantity
from finetune_devcluster.node.fields import FieldError, field_value, resource_value

POD: dict[str, Any] = {
    "metadata": {
        "name": "trainer",
        "namespace": "ml",
        "uid": "1234",
        "labels": {"b": "2", "a": 'say "hi"'},
        "annotations": {"batch.kubernetes.io/job-completion-index": "7"},
    },
    "spec": {
        "nodeName": "node-0",
        "serviceAccountName": "runner",
        "containers": [{"name": "main", "resources": {"limits": {"cpu": "1500m"}, "requests": {"memory": "1Gi"}}}],
    },
    "status": {"podIP": "10.244.0.2", "podIPs": [{"ip": "10.244.0.2"}], "hostIP": "10.201.1.2"},
}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("metadata.name", "trainer"),
        ("metadata.namespace", "ml"),
        ("metadata.uid", "1234"),
        ("metadata.labels['b']", "2"),
        ("metadata.labels['absent']", ""),
        ("metadata.annotations['batch.kubernetes.io/job-completion-index']", "7"),
        ("metadata.labels", 'a="say \\"hi\\""\nb="2"'),
        ("spec.nodeName", "node-0"),
        ("spec.serviceAccountName", "runner"),
        ("status.podIP", "10.244.0.2"),
        ("status.podIPs", "10.244.0.2"),
        ("status.hostIP", "10.201.1.2"),
    ],
)
def test_fields_of_the_pod_are_found(path: str, expected: str) -> None:
    assert field_value(POD, path) == expected


def test_a_field_outside_the_downward_api_is_refused() -> None:
    with pytest.raises(FieldError, match=r"spec\.replicas"):
        field_value(POD, "spec.replicas")


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ({"resource": "limits.cpu"}, "2"),
        ({"resource": "limits.cpu", "divisor": "1m"}, "1500"),
        ({"resource": "requests.memory", "divisor": "1Mi"}, "1024"),
        ({"resource": "requests.memory", "divisor": "0"}, str(1024**3)),
        ({"resource": "requests.cpu"}, "0"),
    ],
)
def test_resources_are_given_in_units_of_the_divisor(reference: dict[str, str], expected: str) -> None:
    assert resource_value(POD, {}, {"containerName": "main", **reference}) == expected


def test_a_resource_reference_to_an_unknown_container_is_refused() -> None:
    with pytest.raises(FieldError, match="no container 'other'"):
        resource_value(POD, {}, {"containerName": "other", "resource": "limits.cpu"})


@pytest.mark.parametrize(("text", "number"), [("2", 2), ("500m", 0.5), ("1Ki", 1024), ("3M", 3e6), ("1e3", 1000)])
def test_quantities_are_read(text: str, number: float) -> None:
    assert float(quantity.parse(text)) == number


def test_what_is_no_quantity_is_refused() -> None:
    with pytest.raises(ValueError, match="8 GB"):
        quantity.parse("8 GB")

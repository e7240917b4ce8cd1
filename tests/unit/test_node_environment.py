"""What a container of the process node finds in its environment and argv."""

from typing import Any

import pytest

from finetune_devcluster.node.environment import (
    ConfigError,
    Sources,
    arguments,
    base_environment,
    container_environment,
    expand,
    with_path_prefix,
)

SOURCES = Sources(
    config_map={"settings": {"level": "info", "color": "red"}}.get,
    secret={"hub": {"token": "hf_x"}}.get,
)
POD: dict[str, Any] = {
    "metadata": {"name": "p", "namespace": "n", "uid": "u", "labels": {"job-index": "3"}},
    "spec": {"nodeName": "node-0", "containers": []},
    "status": {"podIP": "10.244.0.9"},
}


def environment(**container: Any) -> dict[str, str]:
    return container_environment(POD, container, {"BASE": "base"}, SOURCES)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$(NAME)", "value"),
        ("a-$(NAME)-$(NAME)-b", "a-value-value-b"),
        ("$(UNKNOWN)", "$(UNKNOWN)"),
        ("$$(NAME)", "$(NAME)"),
        ("$$$(NAME)", "$value"),
        ("$NAME ${NAME}", "$NAME ${NAME}"),
        ("$(NAME", "$(NAME"),
        ("100$", "100$"),
    ],
)
def test_references_are_expanded_as_kubernetes_defines_it(text: str, expected: str) -> None:
    assert expand(text, {"NAME": "value"}) == expected


def test_a_variable_may_refer_to_those_before_it() -> None:
    env = [{"name": "A", "value": "$(BASE)/a"}, {"name": "B", "value": "$(A)/b"}, {"name": "C", "value": "$(D)"}]
    assert environment(env=env) == {"BASE": "base", "A": "base/a", "B": "base/a/b", "C": "$(D)"}


def test_later_sources_win_and_single_variables_win_over_whole_objects() -> None:
    whole = [{"configMapRef": {"name": "settings"}}, {"secretRef": {"name": "hub"}, "prefix": "HF_"}]
    found = environment(envFrom=whole, env=[{"name": "color", "value": "blue"}])
    assert found == {"BASE": "base", "level": "info", "color": "blue", "HF_token": "hf_x"}


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        ({"fieldRef": {"fieldPath": "metadata.name"}}, "p"),
        ({"fieldRef": {"fieldPath": "metadata.labels['job-index']"}}, "3"),
        ({"fieldRef": {"fieldPath": "status.podIP"}}, "10.244.0.9"),
        ({"configMapKeyRef": {"name": "settings", "key": "level"}}, "info"),
        ({"secretKeyRef": {"name": "hub", "key": "token"}}, "hf_x"),
        ({"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}, "2048"),
    ],
)
def test_values_come_from_where_the_spec_says(origin: dict[str, Any], expected: str) -> None:
    container = {"env": [{"name": "X", "valueFrom": origin}], "resources": {"limits": {"memory": "2Gi"}}}
    assert environment(**container)["X"] == expected


@pytest.mark.parametrize(
    ("container", "message"),
    [
        ({"envFrom": [{"configMapRef": {"name": "no"}}]}, 'configmap "no" not found'),
        ({"env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "no", "key": "k"}}}]}, 'secret "no" not found'),
        (
            {"env": [{"name": "X", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "no"}}}]},
            'couldn\'t find key "no" in configmap "settings"',
        ),
        ({"env": [{"name": "X", "valueFrom": {"fieldRef": {"fieldPath": "spec.no"}}}]}, "env X: fieldRef 'spec.no'"),
    ],
)
def test_what_is_missing_is_named(container: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        environment(**container)
    assert message in str(raised.value)


def test_what_is_optional_may_be_missing() -> None:
    optional = {"name": "no", "optional": True}
    env = [{"name": "X", "valueFrom": {"secretKeyRef": {**optional, "key": "k"}}}]
    assert environment(envFrom=[{"configMapRef": optional}], env=env) == {"BASE": "base"}


def test_of_the_nodes_own_environment_only_locale_and_certificates_get_through() -> None:
    host = {"LANG": "C.UTF-8", "SSL_CERT_FILE": "/ca.pem", "HF_TOKEN": "secret", "KUBECONFIG": "/admin"}
    found = base_environment(host, "/venv/bin", "pod-0", ("10.96.0.1", 443))
    assert found.keys() == {
        *("LANG", "SSL_CERT_FILE", "PATH", "HOME", "HOSTNAME"),
        *("KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT", "KUBERNETES_SERVICE_PORT_HTTPS"),
    }
    assert found["KUBERNETES_SERVICE_HOST"] == "10.96.0.1"
    assert found["PATH"].startswith("/venv/bin:/usr/local/sbin:")


def test_the_path_prefix_stands_first_also_before_the_containers_own_path() -> None:
    assert with_path_prefix({"PATH": "/own"}, "/venv/bin")["PATH"] == "/venv/bin:/own"
    assert with_path_prefix({"PATH": "/venv/bin:/own"}, "/venv/bin")["PATH"] == "/venv/bin:/own"


def test_argv_is_command_then_args_with_references_expanded() -> None:
    container = {"command": ["serve", "--name=$(NAME)"], "args": ["$$(NAME)"]}
    assert arguments(container, {"NAME": "x"}) == ["serve", "--name=x", "$(NAME)"]


def test_a_container_without_command_and_args_is_refused() -> None:
    with pytest.raises(ConfigError, match="no command specified"):
        arguments({}, {})

"""A container's environment, argv and their `$(NAME)` references."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from finetune_devcluster.node import fields
from finetune_devcluster.node.settings import Object

# `$$` is an escaped `$`, `$(NAME)` a reference; everything else stays as it is.
# https://github.com/kubernetes/kubernetes/blob/master/third_party/forked/golang/expansion/expand.go
_REFERENCE = re.compile(r"\$(?:\$|\(([^)]*)\))")

INHERITED = (
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "TZ",
)
"""The only variables of the node's own environment that containers get."""

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class ConfigError(Exception):
    """The container can not be configured yet (reason CreateContainerConfigError); it is tried again."""


@dataclass(frozen=True)
class Sources:
    """Where values come from; the look-ups return None for an object that does not exist."""

    config_map: Callable[[str], Mapping[str, str] | None]
    secret: Callable[[str], Mapping[str, str] | None]


def expand(text: str, variables: Mapping[str, str]) -> str:
    def replace(match: re.Match[str]) -> str:
        if match[1] is None:
            return "$"
        return variables.get(match[1], match[0])

    return _REFERENCE.sub(replace, text)


def container_environment(pod: Object, container: Object, base: Mapping[str, str], sources: Sources) -> dict[str, str]:
    """The variables of the container's spec on top of `base`.

    Raises ConfigError when a ConfigMap, Secret or key that is not optional is missing.
    """
    variables = dict(base)
    for source in container.get("envFrom") or []:
        variables.update(_from_object(source, sources))
    for entry in container.get("env") or []:
        value = _value(pod, container, entry, variables, sources)
        if value is not None:
            variables[entry["name"]] = value
    return variables


def _from_object(source: Object, sources: Sources) -> dict[str, str]:
    prefix = source.get("prefix") or ""
    kind, reference, data = _find(source, "configMapRef", "secretRef", sources)
    if data is None:
        if reference.get("optional"):
            return {}
        raise ConfigError(f'{kind} "{reference["name"]}" not found')
    return {prefix + key: value for key, value in data.items()}


def _find(
    source: Object, config_map_field: str, secret_field: str, sources: Sources
) -> tuple[str, Object, Mapping[str, str] | None]:
    if reference := source.get(config_map_field):
        return "configmap", reference, sources.config_map(reference["name"])
    reference = source[secret_field]
    return "secret", reference, sources.secret(reference["name"])


def _value(pod: Object, container: Object, entry: Object, variables: Mapping[str, str], sources: Sources) -> str | None:
    origin = entry.get("valueFrom")
    if not origin:
        return expand(entry.get("value") or "", variables)
    try:
        if reference := origin.get("fieldRef"):
            return fields.field_value(pod, reference["fieldPath"])
        if reference := origin.get("resourceFieldRef"):
            return fields.resource_value(pod, container, reference)
    except (fields.FieldError, ValueError) as error:
        raise ConfigError(f"env {entry['name']}: {error}") from error
    return _key_value(origin, sources)


def _key_value(origin: Object, sources: Sources) -> str | None:
    kind, reference, data = _find(origin, "configMapKeyRef", "secretKeyRef", sources)
    name, key = reference["name"], reference["key"]
    if data is not None and key in data:
        return data[key]
    if reference.get("optional"):
        return None
    if data is None:
        raise ConfigError(f'{kind} "{name}" not found')
    raise ConfigError(f'couldn\'t find key "{key}" in {kind} "{name}"')


def base_environment(
    host: Mapping[str, str], path_prefix: str, hostname: str, api_address: tuple[str, int]
) -> dict[str, str]:
    """What every container starts from."""
    address, port = api_address
    inherited = {name: host[name] for name in INHERITED if name in host}
    return inherited | {
        "PATH": f"{path_prefix}:{DEFAULT_PATH}",
        "HOME": "/tmp",  # noqa: S108 - the container's own tmpfs: nothing is cached in a home directory of the host
        "HOSTNAME": hostname,
        "KUBERNETES_SERVICE_HOST": address,
        "KUBERNETES_SERVICE_PORT": str(port),
        "KUBERNETES_SERVICE_PORT_HTTPS": str(port),
    }


def with_path_prefix(variables: dict[str, str], path_prefix: str) -> dict[str, str]:
    """The project's programs stand first also where the container sets a PATH of its own."""
    path = variables.get("PATH") or DEFAULT_PATH
    if path.split(":")[0] == path_prefix:
        return variables
    return variables | {"PATH": f"{path_prefix}:{path}"}


def arguments(container: Object, variables: Mapping[str, str]) -> list[str]:
    """The argv of the container.

    Raises ConfigError when the spec has none: without an image there is no default command.
    """
    words = [*(container.get("command") or []), *(container.get("args") or [])]
    if not words:
        raise ConfigError("no command specified: the process node pulls no image, so command or args must be set")
    return [expand(word, variables) for word in words]

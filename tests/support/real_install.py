"""How tests/e2e installs the operator: by the README's own line, with the chart's values for the images at hand."""

from __future__ import annotations

import json
import shlex
from typing import Any

from finetune_devcluster.layout import project_root
from real_cluster import Site
from real_jobs import TEAM

Manifest = dict[str, Any]


def readme_install() -> list[str]:
    """The arguments of the README's `helm install`, with the chart's path made absolute."""
    lines = [line.strip() for line in (project_root() / "README.md").read_text().splitlines()]
    [command] = [line for line in lines if line.startswith("helm install")]
    return [str(project_root() / word) if word.startswith("./") else word for word in shlex.split(command)[1:]]


def values_of(cluster: Site) -> tuple[str, str]:
    """Helm's option that names a file with the values."""
    file = cluster.folder / "values.json"
    file.write_text(json.dumps(_values(cluster.registry, cluster.tag)))
    return "--values", str(file)


def _values(registry: str, tag: str) -> Manifest:
    """The chart's values: the images, stages that fit a small machine, and every NetworkPolicy that the chart has."""
    stage = {"cpu": "400m", "memory": "3Gi"}
    images = {name: f"finetune-operator/{name}:{tag}" for name in ("trainer", "merger", "server")}
    return {
        "imageRegistry": registry,
        "image": {"tag": tag},
        "networkPolicy": {"operator": {"enabled": True}, "jobs": {"namespaces": [TEAM]}},
        "settings": {
            "images": images,
            "stages": dict.fromkeys(("prepare", "train", "merge", "serve"), stage),
            "storage": {"size": "1Gi"},
            "retryDelaySeconds": 2,
        },
    }

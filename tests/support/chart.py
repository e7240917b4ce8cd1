"""The chart under a real Helm: `$HELM` where it is set, else the one that the devcluster builds and caches."""

from __future__ import annotations

import functools
import os
import subprocess
from pathlib import Path
from typing import Any

import yaml

from finetune_devcluster import binaries

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "finetune-operator"
NAMESPACE = "finetune-operator"
RELEASE = "finetune-operator"
VALUES_FILES = sorted((CHART / "ci").glob("*-values.yaml"))

Manifest = dict[str, Any]


@functools.cache
def helm_program() -> str:
    named = os.environ.get("HELM")
    return named or str(binaries.ensure(tuple(t for t in binaries.TOOLS if t.name == "helm")) / "helm")


def helm(*arguments: str | Path, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [helm_program(), *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def rendered_text(*arguments: str | Path) -> str:
    """What `helm template` prints. Raises AssertionError with Helm's words where it refuses."""
    done = helm("template", RELEASE, CHART, "--namespace", NAMESPACE, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def render(*arguments: str | Path) -> list[Manifest]:
    return [manifest for manifest in yaml.safe_load_all(rendered_text(*arguments)) if manifest]


def refusal(*arguments: str | Path) -> str:
    """Helm's words where it has to refuse to render."""
    done = helm("template", RELEASE, CHART, "--namespace", NAMESPACE, *arguments)
    assert done.returncode != 0, "rendered, although it had to be refused"
    return done.stderr


def of_kind(manifests: list[Manifest], kind: str) -> list[Manifest]:
    return [manifest for manifest in manifests if manifest["kind"] == kind]


def the(manifests: list[Manifest], kind: str, name: str = RELEASE) -> Manifest:
    """The one object of that kind and name."""
    [found] = [manifest for manifest in of_kind(manifests, kind) if manifest["metadata"]["name"] == name]
    return found

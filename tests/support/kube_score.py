"""kube-score over everything that ends up in a cluster: the rendered chart and each child. `make lint-manifests` runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from chart import ROOT, VALUES_FILES, rendered_text
from every_child import SPECS, children
from finetune_devcluster import binaries, toolchain
from finetune_operator.api.manifest_yaml import dump_all
from manifest_builders import a_job

VERSION = "v1.20.0"
PACKAGE = f"github.com/zegl/kube-score/cmd/kube-score@{VERSION}"
EXCEPTIONS = ROOT / "charts" / "kube-score-exceptions.txt"
_GO = (1, 24)


def ensure() -> Path:
    """The program, built once from its Go module."""
    cache = binaries.cache_folder()
    program = cache / f"kube-score-{VERSION}" / "kube-score"
    if not program.exists():
        cache.mkdir(parents=True, exist_ok=True)
        go = toolchain.ensure_go(_GO, cache)
        settings = {"GOBIN": str(program.parent), "CGO_ENABLED": "0", "GOWORK": "off", "GOFLAGS": "-buildvcs=false"}
        subprocess.run([str(go), "install", PACKAGE], env=os.environ | settings, cwd="/", check=True)
    return program


def exceptions() -> list[str]:
    """Tests that are not asked for; the rest of each line of the file says why."""
    lines = EXCEPTIONS.read_text().splitlines()
    return [line.split()[0] for line in lines if line and not line.startswith("#")]


def manifests() -> dict[str, str]:
    """YAML by where it comes from."""
    chart = {f"chart, {file.stem}": rendered_text("--values", file) for file in VALUES_FILES}
    jobs = {
        f"a job with {name}": dump_all(children(a_job().with_spec(**spec).job()))
        for name, spec in SPECS.items()
        # Linters ask for more than no pods.
        if (spec.get("serving") or {}).get("replicas") != 0
    }
    return chart | jobs


def main() -> None:
    """Score everything; the exit code is 1 where anything is left that is not excepted."""
    ignored = [argument for test in exceptions() for argument in ("--ignore-test", test)]
    failed = False
    for where, text in manifests().items():
        command = [str(ensure()), "score", "--output-format", "ci", "--exit-one-on-warning", *ignored, "-"]
        done = subprocess.run(command, input=text, capture_output=True, text=True)
        findings = [line for line in done.stdout.splitlines() if not line.startswith(("[OK]", "[SKIPPED]"))]
        print(f"{where}: {'clean' if done.returncode == 0 else ''}", *findings, done.stderr.strip(), sep="\n  ")
        failed = failed or done.returncode != 0
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()

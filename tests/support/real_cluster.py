"""The cluster of tests/e2e: the one of `$E2E_CONTEXT`, else a devcluster with a real kubelet and the images built here."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from finetune_devcluster import Cluster, binaries
from finetune_devcluster.kubelet.images import import_from_buildah
from machine_traces import traces

IMAGES = ("operator", "trainer", "merger", "server")
GPUS = 4
Manifest = dict[str, Any]


class Site:
    """kubectl and Helm in one cluster; its images are `$E2E_REGISTRY/finetune-operator/NAME:$E2E_TAG`."""

    def __init__(self, kubeconfig: Path, folder: Path) -> None:
        self.kubeconfig = kubeconfig
        self.folder = folder
        self.registry = os.environ.get("E2E_REGISTRY", "localhost")
        self.tag = os.environ.get("E2E_TAG", "e2e")

    def image(self, name: str) -> str:
        return f"{self.registry}/finetune-operator/{name}:{self.tag}"

    def client_environment(self) -> dict[str, str]:
        homes = {f"HELM_{part}_HOME": str(self.folder / "helm" / part.lower()) for part in ("CACHE", "CONFIG", "DATA")}
        return {**os.environ, "KUBECONFIG": str(self.kubeconfig), **homes}

    def kubectl(self, *arguments: str, input: str | None = None) -> subprocess.CompletedProcess[str]:  # noqa: A002
        """As `Cluster.kubectl`: the caller looks at `returncode`."""
        return self._run(binaries.ensure() / "kubectl", *arguments, input=input)

    def helm(self, *arguments: str) -> str:
        done = self._run(binaries.ensure() / "helm", *arguments)
        assert done.returncode == 0, f"{done.stderr}\n{self.pods()}"
        return done.stdout

    def pods(self) -> str:
        """Every pod, the last events and the operator's log, to be shown where something did not come about."""
        events = ("get", "events", "--all-namespaces", "--sort-by=.lastTimestamp")
        wide = self.kubectl("get", "pods", "--all-namespaces", "--output", "wide").stdout
        log = self.kubectl("logs", "--namespace", "finetune-operator", "deployment/finetune-operator", "--tail=20")
        return wide + "\n".join(self.kubectl(*events).stdout.splitlines()[-20:]) + f"\n{log.stdout}"

    def _run(self, program: Path, *arguments: str, input: str | None = None) -> subprocess.CompletedProcess[str]:  # noqa: A002
        return subprocess.run(
            [str(program), *arguments], env=self.client_environment(), input=input, capture_output=True, text=True
        )


@contextmanager
def site(folder: Path) -> Iterator[Site]:
    """The cluster; a devcluster is gone afterwards, without a trace."""
    context = os.environ.get("E2E_CONTEXT")
    if context:
        yield Site(_kubeconfig_of(context, folder), folder)
        return
    cluster = Cluster(f"e2e-{os.getpid()}", kubelet=True, gpus=GPUS)
    before = traces(cluster.layout)
    with cluster:
        found = Site(cluster.kubeconfig, folder)
        import_from_buildah(cluster.layout, [found.image(name) for name in IMAGES])
        yield found
    after = traces(cluster.layout)
    assert after == before


def _kubeconfig_of(context: str, folder: Path) -> Path:
    """The user's kubeconfig, cut down to the one context, so that nothing can reach another cluster."""
    kubectl = str(binaries.ensure() / "kubectl")
    view = [kubectl, "config", "view", "--minify", "--flatten", "--context", context]
    done = subprocess.run(view, capture_output=True, text=True)
    assert done.returncode == 0, f"E2E_CONTEXT: {done.stderr}"
    document = yaml.safe_load(done.stdout)
    document["current-context"] = context
    file = folder / "kubeconfig"
    file.write_text(yaml.safe_dump(document))
    file.chmod(0o600)
    return file

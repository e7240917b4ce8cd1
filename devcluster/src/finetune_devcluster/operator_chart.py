"""Installs the operator into a cluster as a user would: with Helm, from the chart in this checkout, under the chart's own rights."""

import subprocess
from pathlib import Path

from finetune_devcluster import binaries
from finetune_devcluster.cluster import Cluster
from finetune_devcluster.errors import DevclusterError
from finetune_devcluster.layout import project_root
from finetune_devcluster.progress import say

RELEASE = "finetune-operator"
NAMESPACE = "finetune-operator"
WAIT = "120s"


def install(cluster: Cluster, *options: str, chart: Path | None = None) -> None:
    """`helm upgrade --install`, waiting until the operator's pod is ready. Raises DevclusterError with Helm's words.

    ``chart`` is another version of the chart than this checkout's.
    """
    say("installing the operator's chart")
    root = project_root()
    values = root / "devcluster" / "operator-values.yaml"
    _helm(
        cluster,
        *("upgrade", "--install", RELEASE, str(chart or root / "charts" / "finetune-operator")),
        *("--namespace", NAMESPACE, "--create-namespace", "--values", str(values)),
        *("--wait", "--timeout", WAIT, *options),
    )


def _helm(cluster: Cluster, *arguments: str) -> None:
    # Helm keeps caches and plugins below the home folder; a cluster's own folder leaves nothing behind.
    homes = {
        f"HELM_{part}_HOME": str(cluster.layout.state / "helm" / part.lower()) for part in ("CACHE", "CONFIG", "DATA")
    }
    done = subprocess.run(
        [str(binaries.ensure() / "helm"), *arguments],
        env={**cluster.client_environment(), **homes},
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        pods = cluster.kubectl("get", "pods", "--namespace", NAMESPACE, "--output", "wide").stdout
        logs = cluster.kubectl("logs", "--namespace", NAMESPACE, f"deployment/{RELEASE}", "--tail", "20").stdout
        raise DevclusterError(f"helm failed: {done.stderr.strip()}\n{pods}\n{logs}")

"""The operator as a process of its own beside a cluster, with the rights that the chart gives it and no others."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import yaml

from finetune_devcluster import Cluster
from finetune_operator.shell.rights import RULES
from support_server import free_port
from support_wait import eventually

NAMESPACE = "finetune-operator"
RBAC = "rbac.authorization.k8s.io/v1"
Manifest = dict[str, Any]


class OperatorProcess:
    """One operator on loopback. `start` may be called again after `kill` or `stop`: it keeps its ports."""

    def __init__(self, cluster: Cluster, folder: Path, **settings: Any) -> None:
        self.cluster = cluster
        self.folder = folder
        self.http_port, self.progress_port = free_port(), free_port()
        self.settings = folder / "settings.yaml"
        self.settings.write_text(yaml.safe_dump({"progress": {"port": self.progress_port}, **settings}))
        self.kubeconfig = folder / "operator.kubeconfig"
        self.log = folder / "operator.log"
        self.process: subprocess.Popen[bytes] | None = None

    def grant_rights(self) -> None:
        """Make the service account and write a kubeconfig with a token of it."""
        apply(self.cluster, *_account())
        grant(self.cluster, [dict(rule) for rule in RULES])
        token = self.cluster.kubectl("-n", NAMESPACE, "create", "token", NAMESPACE, "--duration=2h").stdout.strip()
        admin = yaml.safe_load(self.cluster.kubeconfig.read_text())
        user = {"name": admin["users"][0]["name"], "user": {"token": token}}
        self.kubeconfig.write_text(yaml.safe_dump({**admin, "users": [user]}))

    def start(self, *, ready: bool = True) -> None:
        command = [sys.executable, "-m", "finetune_operator.shell.main", "run", "--settings", str(self.settings)]
        command += ["--kubeconfig", str(self.kubeconfig), "--listen", "127.0.0.1", "--http-port", str(self.http_port)]
        environment = {**self.cluster.client_environment(), "POD_NAMESPACE": NAMESPACE, "OMP_NUM_THREADS": "1"}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, env=environment, stderr=log)
        if ready:
            eventually(lambda: self.probe("readyz") == 200, 120, f"operator ready; see {self.log}")

    def kill(self) -> None:
        """SIGKILL, as a node that dies."""
        assert self.process
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM, as a roll-out; the exit code."""
        assert self.process
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)

    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def probe(self, path: str) -> int:
        """Status of /healthz, /readyz or /metrics; 0 where nobody answers."""
        return self.get(path)[0]

    def get(self, path: str) -> tuple[int, str]:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"http://127.0.0.1:{self.http_port}/{path}", timeout=30) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except (OSError, http.client.HTTPException):  # nobody yet, or killed in the midst of its answer
            return 0, ""

    def log_text(self) -> str:
        return self.log.read_text()


def apply(cluster: Cluster, *manifests: Manifest) -> None:
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(manifests)})
    done = cluster.kubectl("apply", "--server-side", "-f", "-", input=text)
    assert done.returncode == 0, done.stderr


def grant(cluster: Cluster, rules: list[dict[str, list[str]]]) -> None:
    """Give the operator these rights and no others."""
    metadata = {"name": NAMESPACE}
    apply(cluster, {"apiVersion": RBAC, "kind": "ClusterRole", "metadata": metadata, "rules": rules})


def _account() -> list[Manifest]:
    name = {"name": NAMESPACE}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", **name}
    subject = {"kind": "ServiceAccount", "namespace": NAMESPACE, **name}
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": name},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {**name, "namespace": NAMESPACE}},
        {"apiVersion": RBAC, "kind": "ClusterRoleBinding", "metadata": name, "roleRef": role, "subjects": [subject]},
    ]

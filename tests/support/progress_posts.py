"""Posts to the operator's progress endpoint, as a trainer sends them and as nobody should."""

from __future__ import annotations

import http.client
import json
import socket
import ssl

from finetune_operator.api import names
from job_space import Space
from operator_process import NAMESPACE, OperatorProcess


def token(space: Space, pod: str, audience: str = names.PROGRESS_AUDIENCE) -> str:
    """A token as the kubelet projects it into the pod."""
    bound = ("--bound-object-kind=Pod", f"--bound-object-name={pod}")
    return space.kubectl("create", "token", "default", f"--audience={audience}", *bound).strip()


def post(operator: OperatorProcess, space: Space, job: str, bearer: str, body: str) -> int:
    """Post progress as a trainer does, trusting only the CA that the job's ConfigMap holds; the HTTP status."""
    authority = space.get("configmap", names.run_config(job))["data"]["ca.crt"]
    headers = {"Authorization": f"Bearer {bearer}"} if bearer else {}
    return send(operator, authority, "POST", path_of(space.name, job), body, headers)


def path_of(namespace: str, job: str) -> str:
    return f"/apis/finetune-operator.io/v1alpha1/namespaces/{namespace}/finetunejobs/{job}/progress"


def send(operator: OperatorProcess, authority: str, method: str, path: str, body: str, headers: dict[str, str]) -> int:
    """Any request to the progress endpoint; the HTTP status."""
    connection = _Connection(operator.progress_port, ssl.create_default_context(cadata=authority))
    try:
        connection.request(method, path, body, {"Content-Type": "application/json", **headers})
        return connection.getresponse().status
    finally:
        connection.close()


class _Connection(http.client.HTTPSConnection):
    """Reaches the operator on loopback under the name of its Service."""

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        super().__init__(f"finetune-operator.{NAMESPACE}.svc", port, context=context, timeout=60)
        self._create_connection = lambda address, *rest: socket.create_connection(("127.0.0.1", address[1]), *rest)


def progress(step: int, total: int = 40, **metrics: str) -> str:
    figures = {"current_step": str(step), "total_steps": str(total), **metrics}
    listed = [{"name": name, "value": value} for name, value in figures.items()]
    return json.dumps({"trainerStatus": {"progressPercentage": 100 * step // total, "metrics": listed}})

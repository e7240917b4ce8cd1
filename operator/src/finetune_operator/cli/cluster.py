"""The few things that the commands ask of a cluster."""

from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from finetune_operator.api.base import API_VERSION, PLURAL
from finetune_operator.cli.answers import Answer, Explain, RefusedError, Request, UnreachableError, send
from finetune_operator.cli.errors import CommandError

if TYPE_CHECKING:
    # Importing it takes half a second: the commands that need no cluster, and --help, must not wait for it.
    from kubernetes import client

Manifest = dict[str, Any]
Query = Mapping[str, str | int]

ANSWER_SECONDS = 60
WATCH_SECONDS = 240
"""A watch is opened anew after so long, so that a connection that died silently is noticed."""
RECONNECT_SECONDS = 2
UNAUTHORIZED = 401
NOT_FOUND = 404
NO_SUCH_KIND = "404 page not found"
JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"
NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


@dataclass(frozen=True, slots=True)
class Cluster:
    """One namespace of one cluster."""

    api: client.ApiClient
    namespace: str

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> Cluster:
        """The cluster that the arguments name. Opens no connection yet. Raises CommandError."""
        from kubernetes.config import ConfigException

        file, context = arguments.kubeconfig, arguments.context
        try:
            return cls._from_kubeconfig(file, context, arguments.namespace)
        except (ConfigException, OSError) as error:
            if NAMESPACE_FILE.exists() and not (file or context):
                return cls._from_pod(arguments.namespace)
            problem = " ".join(str(error).split())
        except (yaml.YAMLError, KeyError, TypeError, AttributeError, ValueError):
            # What the official client raises where a file is something else than a kubeconfig.
            problem = f"{file or os.environ.get('KUBECONFIG', '~/.kube/config')} is no kubeconfig"
        raise CommandError(f"no cluster: {problem}; name a kubeconfig with --kubeconfig or $KUBECONFIG")

    @classmethod
    def _from_kubeconfig(cls, file: str | None, context: str | None, namespace: str | None) -> Cluster:
        from kubernetes import config

        contexts, current = config.list_kube_config_contexts(config_file=file)
        by_name = {entry["name"]: entry["context"] for entry in contexts}
        name = context or current["name"]
        if name not in by_name:
            raise config.ConfigException(f"found context {name}, expected one of {', '.join(by_name)}")
        api = config.new_client_from_config(config_file=file, context=name)
        return cls(api, namespace or by_name[name].get("namespace") or "default")

    @classmethod
    def _from_pod(cls, namespace: str | None) -> Cluster:
        from kubernetes import client, config

        configuration = client.Configuration()
        config.load_incluster_config(client_configuration=configuration)
        return cls(client.ApiClient(configuration), namespace or NAMESPACE_FILE.read_text().strip())

    def jobs(self) -> list[Manifest]:
        """All FineTuneJobs of the namespace, by name."""
        items: list[Manifest] = self._json("GET", self._jobs_path())["items"]
        return items

    def job(self, name: str) -> Manifest:
        """One FineTuneJob."""
        return self._of_job(name, "GET")

    def patch_job(self, name: str, patch: Manifest) -> Manifest:
        """Merge-patch a FineTuneJob and return it."""
        return self._of_job(name, "PATCH", patch)

    def job_changes(self, name: str, seconds: float = math.inf) -> Iterator[Manifest]:
        """The FineTuneJob now, and again after each change, for so many seconds. Raises CommandError once it is gone."""
        return self._changes(lambda: self.job(name), self._jobs_path(), seconds)

    def pod_changes(self, name: str) -> Iterator[Manifest]:
        """The pod now, and again after each change, without end. Raises CommandError once it is gone."""
        return self._changes(
            lambda: self._json("GET", self._core_path(f"pods/{name}")), self._core_path("pods"), math.inf
        )

    def _changes(self, get: Callable[[], Manifest], collection: str, seconds: float) -> Iterator[Manifest]:
        end = time.monotonic() + seconds
        found = get()
        yield found
        while (left := end - time.monotonic()) > 0:
            try:
                yield from self._watched(collection, found["metadata"], min(left, WATCH_SECONDS))
                found = get()
                yield found
            except UnreachableError:
                # A restarting API server is no reason to give up hours of waiting.
                time.sleep(min(RECONNECT_SECONDS, max(0.0, end - time.monotonic())))

    def _watched(self, collection: str, metadata: Manifest, seconds: float) -> Iterator[Manifest]:
        query: Query = {
            "watch": "true",
            "fieldSelector": f"metadata.name={metadata['name']}",
            "resourceVersion": metadata["resourceVersion"],
            "timeoutSeconds": math.ceil(seconds),
        }
        answer = self.open("GET", collection, query, read_seconds=seconds + ANSWER_SECONDS)
        for event in answer.json_lines():
            # DELETED, and ERROR when the version is too old: whoever asks for the object next finds out.
            if event["type"] not in ("ADDED", "MODIFIED"):
                return
            yield event["object"]

    def pods(self, labels: Mapping[str, str]) -> list[Manifest]:
        """Pods with all of the labels, newest first."""
        selector = ",".join(f"{key}={value}" for key, value in labels.items())
        items: list[Manifest] = self._json("GET", self._core_path("pods"), {"labelSelector": selector})["items"]
        return sorted(items, key=lambda pod: str(pod["metadata"]["creationTimestamp"]), reverse=True)

    def pod_phase(self, name: str) -> str:
        """Phase of a pod; empty where it is gone."""
        try:
            return str(self._json("GET", self._core_path(f"pods/{name}"))["status"].get("phase", ""))
        except RefusedError as error:
            if error.status != NOT_FOUND:
                raise
            return ""

    def log(self, pod: str, query: Query) -> Iterator[str]:
        """Lines of a container's log; with ``follow`` as they come."""
        read_seconds = None if query.get("follow") else ANSWER_SECONDS
        return self.open("GET", self._core_path(f"pods/{pod}/log"), query, read_seconds=read_seconds).lines()

    def service_path(self, service: str, port: str) -> str:
        """Where the API server passes HTTP requests on to a Service of the namespace."""
        return self._core_path(f"services/http:{service}:{port}/proxy")

    def open(
        self,
        method: str,
        path: str,
        query: Query | None = None,
        body: Mapping[str, Any] | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        read_seconds: float | None = ANSWER_SECONDS,
        explain: Explain | None = None,
    ) -> Answer:
        """Send a request; the answer is read as it comes. Raises RefusedError or UnreachableError."""
        content_type = MERGE_PATCH if method == "PATCH" else JSON
        # The official client knows proxies, TLS and every way to log in; its own reading of answers is not needed.
        _, url, all_headers, _, _ = self.api.param_serialize(
            method,
            path,
            query_params=list((query or {}).items()),
            header_params={"Accept": "*/*", "Content-Type": content_type, **(headers or {})},
            auth_settings=["BearerToken"],
        )
        request = Request(method, url, all_headers, body)
        return send(self.api.rest_client.pool_manager, request, explain or self.explain, read_seconds)

    def explain(self, status: int, text: str) -> CommandError:
        """What an error status of the API server means."""
        host = self.api.configuration.host
        if status == UNAUTHORIZED:
            return RefusedError(
                f"{host} does not accept these credentials; log in, or choose another --context", status
            )
        if status == NOT_FOUND and text == NO_SUCH_KIND:
            return RefusedError(f"{host} knows no FineTuneJobs; install the operator's chart first", status)
        return RefusedError(text or f"{host} answered with status {status}", status)

    def _of_job(self, name: str, method: str, body: Manifest | None = None) -> Manifest:
        try:
            return self._json(method, self._jobs_path(name), body=body)
        except RefusedError as error:
            # The same status, without a name, says that the server knows no FineTuneJobs at all.
            if error.status != NOT_FOUND or name not in error.message:
                raise
            raise CommandError(
                f"FineTuneJob {self.namespace}/{name} not found; `finetune status -n {self.namespace}` lists those there are"
            ) from None

    def _json(self, method: str, path: str, query: Query | None = None, body: Manifest | None = None) -> Manifest:
        return self.open(method, path, query, body).json()

    def _jobs_path(self, name: str = "") -> str:
        return f"/apis/{API_VERSION}/namespaces/{self.namespace}/{PLURAL}/{name}".rstrip("/")

    def _core_path(self, rest: str) -> str:
        return f"/api/v1/namespaces/{self.namespace}/{rest}"

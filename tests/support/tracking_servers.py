"""Loopback servers that speak as much of MLflow's and Weights & Biases' protocols as their real clients need."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from support_server import running

Json = dict[str, Any]


class TrackingServer(ThreadingHTTPServer):
    """What both servers share: requests are recorded, and every answer is a JSON object."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests: list[str] = []
        self.authorizations: set[str] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def answer(self, path: str, body: Json) -> Json | None:
        """The answer to a request; None is "not found"."""
        raise LookupError(path)


class MLflowServer(TrackingServer):
    """Experiments and runs of MLflow's REST interface 2.0."""

    def __init__(self) -> None:
        super().__init__()
        self.runs: dict[str, Json] = {}
        self.metrics: dict[str, list[Json]] = {}
        self._experiments: list[str] = []

    def answer(self, path: str, body: Json) -> Json | None:
        """Dispatch by the last parts of the path."""
        name = path.rpartition("/mlflow/")[2]
        method = getattr(self, "_" + name.replace("/", "_").replace("-", "_"), None)
        return method(body) if method else None

    def steps(self, metric: str) -> list[int]:
        """Steps at which a metric was told, over all runs, in order of arrival."""
        return [int(entry["step"]) for entries in self.metrics.values() for entry in entries if entry["key"] == metric]

    def _experiments_get_by_name(self, body: Json) -> Json | None:
        name = body["experiment_name"]
        if name not in self._experiments:
            return None
        experiment = {"experiment_id": str(self._experiments.index(name)), "name": name, "lifecycle_stage": "active"}
        return {"experiment": experiment}

    def _experiments_create(self, body: Json) -> Json:
        self._experiments.append(body["name"])
        return {"experiment_id": str(len(self._experiments) - 1)}

    def _runs_search(self, body: Json) -> Json:
        found = [
            run for run in self.runs.values() if all(tag["value"] in body["filter"] for tag in run["data"]["tags"])
        ]
        return {"runs": found}

    def _runs_create(self, body: Json) -> Json:
        identity = f"run{len(self.runs)}"
        info = {"run_id": identity, "run_uuid": identity, "experiment_id": body["experiment_id"], "status": "RUNNING"}
        self.runs[identity] = {"info": info, "data": {"tags": body["tags"], "metrics": [], "params": []}}
        self.metrics[identity] = []
        return {"run": self.runs[identity]}

    def _runs_get(self, body: Json) -> Json:
        return {"run": self.runs[body["run_id"]]}

    def _runs_update(self, body: Json) -> Json:
        info = self.runs[body["run_id"]]["info"]
        info["status"] = body.get("status", info["status"])
        return {"run_info": info}

    def _runs_log_batch(self, body: Json) -> Json:
        run, data = self.metrics[body["run_id"]], self.runs[body["run_id"]]["data"]
        run += body.get("metrics", [])
        data["metrics"] = list({entry["key"]: entry for entry in run}.values())
        data["params"] += body.get("params", [])
        return {}

    def _metrics_get_history(self, body: Json) -> Json:
        return {"metrics": [entry for entry in self.metrics[body["run_id"]] if entry["key"] == body["metric_key"]]}


class WeightsAndBiasesServer(TrackingServer):
    """One project's runs: the GraphQL operations that the client starts with, and the stream of history rows."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: dict[str, list[Json]] = {}
        """History of each run, by its id."""
        self.exit_codes: list[int] = []
        self.operations: list[str] = []
        self.configs: list[str] = []

    def steps(self, metric: str) -> list[int]:
        """Steps at which a metric was told, over all runs, in order of arrival."""
        return [int(row["_step"]) for rows in self.rows.values() for row in rows if metric in row]

    def answer(self, path: str, body: Json) -> Json | None:
        """GraphQL, or a run's stream."""
        if path.endswith("/graphql"):
            return {"data": self._operation(body)}
        if path.endswith("/file_stream"):
            self._stream(path.split("/")[-2], body)
            return {}
        return {}

    def _operation(self, body: Json) -> Json:
        query, variables = body["query"], body.get("variables") or {}
        self.operations.append(body.get("operationName") or query.split("(")[0].strip())
        if "upsertBucket" in query:
            name = variables["name"]
            is_new = name not in self.rows
            self.rows.setdefault(name, [])
            self.configs.append(variables.get("config") or "")
            return {"upsertBucket": {"bucket": self._bucket(name), "inserted": is_new}}
        if "bucket" in query and "historyLineCount" in query:
            name = variables.get("name") or variables.get("runName") or ""
            bucket = self._resumable(name) if name in self.rows else None
            return {
                "model": {"id": "model", "name": "chats", "entity": {"id": "entity", "name": "team"}, "bucket": bucket}
            }
        if "createRunFiles" in query:
            files = [{"name": name, "uploadUrl": f"{self.url}/upload/{name}"} for name in variables["files"]]
            return {"createRunFiles": {"runID": "id", "uploadHeaders": [], "files": files}}
        if "serverInfo" in query or "viewer" in query:
            return {
                "viewer": {"id": "user", "entity": "team", "username": "team", "flags": "{}", "teams": {"edges": []}},
                "serverInfo": None,
            }
        return {}

    def _bucket(self, name: str) -> Json:
        project = {"id": "project", "name": "chats", "entity": {"id": "entity", "name": "team"}}
        return {
            "id": f"id-{name}", "name": name, "displayName": name, "description": None, "config": "{}", "sweepName": None,
            "historyLineCount": len(self.rows[name]), "project": project, "updatedAt": None, "notes": None,
        }  # fmt: skip

    def _resumable(self, name: str) -> Json:
        rows = self.rows[name]
        tail = json.dumps([json.dumps(row) for row in rows[-1:]])
        return {
            **self._bucket(name), "logLineCount": 0, "eventsLineCount": 0, "eventsTail": "[]", "historyTail": tail,
            "summaryMetrics": json.dumps(rows[-1] if rows else {}), "tags": [], "wandbConfig": json.dumps({"t": 1}),
        }  # fmt: skip

    def _stream(self, run: str, body: Json) -> None:
        history = (body.get("files") or {}).get("wandb-history.jsonl") or {}
        begin, rows = history.get("offset", 0), [json.loads(line) for line in history.get("content", [])]
        if rows:
            self.rows.setdefault(run, [])[begin:] = rows
        if body.get("complete"):
            self.exit_codes.append(body.get("exitcode", 0))


@contextmanager
def tracked_by(server: TrackingServer) -> Iterator[None]:
    """Run a server while the block runs."""
    with running(server):
        yield


class _Handler(BaseHTTPRequestHandler):
    server: TrackingServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name in the base class
        self.server.requests.append(f"{self.command} {self.path}")

    def do_GET(self) -> None:
        self._answer(dict(parse_qsl(urlsplit(self.path).query)))

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer(json.loads(content) if content else {})

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer({})

    def _answer(self, body: Json) -> None:
        self.server.authorizations.add(self.headers.get("Authorization", ""))
        answer = self.server.answer(urlsplit(self.path).path, body)
        missing = {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "not there"}
        content = json.dumps(missing if answer is None else answer).encode()
        self.send_response(404 if answer is None else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

"""MLflow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunStatus

from finetune_operator.api.base import GROUP
from finetune_operator.api.run import RunConfig
from finetune_operator.api.tracking import MLflow
from finetune_trainer.tracking.tracker import Line, Outcome, plain_figures, seconds, settings

JOB_TAG = f"{GROUP}/uid"
"""Tag of a run with the job's UID, by which every attempt finds it."""
_METRICS_A_REQUEST = 1000
_PARAMETERS_A_REQUEST = 100
_LONGEST_VALUE = 500
_STATUS = {Outcome.FINISHED: RunStatus.FINISHED, Outcome.STOPPED: RunStatus.KILLED, Outcome.FAILED: RunStatus.FAILED}


class MLflowRun:
    """The run with the job's UID as a tag: MLflow gives out its ids itself."""

    def __init__(self, run: RunConfig, wanted: MLflow) -> None:
        self._job = run
        self._wanted = wanted
        self._client = MlflowClient(tracking_uri=self._wanted.tracking_uri)
        self._run_id = ""
        self._told: dict[str, int] = {}
        """Last step that the server has of each metric."""

    def open(self) -> str:
        """Find the run, or begin it, and ask what it has."""
        experiment = self._experiment()
        found = self._client.search_runs([experiment], f"tags.`{JOB_TAG}` = '{self._job.uid}'", max_results=1)
        if found:
            self._run_id = found[0].info.run_id
            self._client.update_run(self._run_id, status="RUNNING")
            self._told = {name: self._last_step(name) for name in found[0].data.metrics}
        else:
            created = self._client.create_run(experiment, run_name=self._job.name, tags={JOB_TAG: self._job.uid})
            self._run_id = created.info.run_id
            self._describe()
        return f"{self._wanted.tracking_uri.rstrip('/')}/#/experiments/{experiment}/runs/{self._run_id}"

    def report(self, lines: Sequence[Line]) -> None:
        """Send the lines that the run does not have yet."""
        metrics = self._metrics(lines)
        for begin in range(0, len(metrics), _METRICS_A_REQUEST):
            batch = metrics[begin : begin + _METRICS_A_REQUEST]
            self._client.log_batch(self._run_id, metrics=batch)
            self._told |= {metric.key: metric.step for metric in batch}

    def close(self, outcome: Outcome) -> None:
        """Give the run its status."""
        if self._run_id:
            self._client.set_terminated(self._run_id, RunStatus.to_string(_STATUS[outcome]))

    def _experiment(self) -> str:
        name = self._wanted.experiment
        experiment = self._client.get_experiment_by_name(name)
        return str(experiment.experiment_id if experiment else self._client.create_experiment(name))

    def _last_step(self, metric: str) -> int:
        return max((entry.step for entry in self._client.get_metric_history(self._run_id, metric)), default=-1)

    def _describe(self) -> None:
        parameters = [Param(name, str(value)[:_LONGEST_VALUE]) for name, value in _flat(settings(self._job))]
        for begin in range(0, len(parameters), _PARAMETERS_A_REQUEST):
            self._client.log_batch(self._run_id, params=parameters[begin : begin + _PARAMETERS_A_REQUEST])

    def _metrics(self, lines: Sequence[Line]) -> list[Metric]:
        told, metrics = dict(self._told), []
        for line in lines:
            step, milliseconds = line["current_steps"], round(1000 * seconds(line))
            for name, value in plain_figures(line).items():
                if step > told.get(name, -1):
                    metrics.append(Metric(name, value, milliseconds, step))
                    told[name] = step
        return metrics


def _flat(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves with their dotted paths, such as training.learningRate and datasets.0.source."""
    entries = node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, list) else None
    if entries is None:
        yield path, node
        return
    for name, child in entries:
        yield from _flat(child, f"{path}.{name}" if path else str(name))

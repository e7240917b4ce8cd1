"""Reads everything that a plan may look at, live: no cache that could be behind the cluster."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from finetune_operator.api import conditions, names
from finetune_operator.api.base import KIND
from finetune_operator.api.status import ConditionStatus, FineTuneJobStatus
from finetune_operator.build import inputs
from finetune_operator.plan.conditions import find
from finetune_operator.plan.types import JobView, Manifest, Observed, PodEnd
from finetune_operator.plan.world import controller
from finetune_operator.shell import paths
from finetune_operator.shell.client import Api
from finetune_operator.shell.job_view import read_job
from finetune_operator.shell.logtail import LogTails
from finetune_operator.shell.podfacts import deciding_end, waiting_reason
from finetune_operator.shell.queue import Key
from finetune_operator.shell.redact import redact_last_words
from finetune_operator.shell.reports import Reports

Child = tuple[str, str]
"""Kind and name."""
_ENDING = ("Complete", "SuccessCriteriaMet", "Failed", "FailureTarget")
_QUEUE_LABEL = "kueue.x-k8s.io/queue-name"


def utc_now() -> dt.datetime:
    """The clock of the whole shell."""
    return dt.datetime.now(dt.UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gatherer:
    """What gathering needs besides the key."""

    api: Api
    logs: LogTails
    reports: Reports
    certificate: str
    operator_namespace: str
    cache_claim: str | None = None
    """Claim with the cache that jobs share, where the settings name one."""
    now: Callable[[], dt.datetime] = utc_now

    async def fetch(self, key: Key) -> Manifest | None:
        """The FineTuneJob as it stands; None where it is gone or on its way out. Raises ApiError."""
        manifest = await self.api.find(paths.item(KIND, key.namespace, key.name))
        return None if manifest is None or "deletionTimestamp" in manifest["metadata"] else manifest

    async def observe(self, manifest: Manifest) -> Observed:
        """Everything around a FineTuneJob. Raises ApiError, InvalidSpec and UnreadableStatus."""
        job = read_job(manifest)
        children, pods = await asyncio.gather(self._children(job), self._pods(job))
        own = {child: live for child, live in children.items() if is_owned(live, job.uid)}
        now = self.now()
        return Observed(
            job=job,
            children=children,
            ends={} if is_terminal(job.status) else await self._ends(job, own, pods),
            waiting=_waiting(own, pods, now),
            training_pods=_training_pods(pods),
            report=self.reports.newest(Key(job.namespace, job.name)),
            certificate=self.certificate,
            operator_namespace=self.operator_namespace,
            now=now,
        )

    async def _children(self, job: JobView) -> dict[Child, Manifest]:
        labelled = await self._labelled("Job", job)
        found: dict[Child, Manifest] = {("Job", live["metadata"]["name"]): live for live in labelled}
        wanted = [child for child in named_children(job, self.cache_claim) if child not in found]
        lives = await asyncio.gather(*(self._find(child, job.namespace) for child in wanted))
        found.update({child: live for child, live in zip(wanted, lives, strict=True) if live is not None})
        return found

    async def _pods(self, job: JobView) -> list[Manifest]:
        return await self._labelled("Pod", job)

    async def _labelled(self, kind: str, job: JobView) -> list[Manifest]:
        query = {"labelSelector": f"{names.JOB_NAME_LABEL}={job.name}"}
        # Items of a list do not bear their kind
        return [{"kind": kind, **live} for live in await self.api.list(paths.collection(kind, job.namespace), query)]

    async def _find(self, child: Child, namespace: str) -> Manifest | None:
        kind, name = child
        return await self.api.find(paths.item(kind, namespace, name))

    async def _ends(self, job: JobView, own: Mapping[Child, Manifest], pods: Iterable[Manifest]) -> dict[str, PodEnd]:
        ending = {name: live for (kind, name), live in own.items() if kind == "Job" and _is_ending(live)}
        ends = {name: deciding_end(_pods_of(live, pods), retried=_is_retried(live)) for name, live in ending.items()}
        return {
            name: PodEnd(
                pod=end.pod,
                exit_code=end.exit_code,
                message=redact_last_words(end.message),
                reason=end.reason,
                logs=await self.logs.tail(job.namespace, end),
                seconds=end.seconds,
            )
            for name, end in ends.items()
            if end is not None
        }


def named_children(job: JobView, cache_claim: str | None = None) -> list[Child]:
    """Every child that could stand under a name of ours, and every claim that the job or the settings name."""
    attempt = job.status.attempt or 0
    trainings = [names.train(job.name, number) for number in (attempt, attempt + 1)]
    jobs = [names.prepare(job.name), *trainings, names.merge(job.name)]
    services = [names.serve(job.name), *(trainings if job.spec.resources.nodes > 1 else [])]
    return [
        *(("Job", name) for name in jobs),
        ("Deployment", names.serve(job.name)),
        ("PodDisruptionBudget", names.serve(job.name)),
        *(("Service", name) for name in services),
        ("ConfigMap", names.run_config(job.name)),
        *(("PersistentVolumeClaim", name) for name in sorted({names.volume(job.name), *_named_claims(job)})),
        *([("PersistentVolumeClaim", cache_claim)] if cache_claim else []),
    ]


def _named_claims(job: JobView) -> set[str]:
    spec = job.spec
    return {*inputs.claims(spec), *([spec.storage.claim] if spec.storage.claim else [])}


def is_owned(live: Manifest, uid: str) -> bool:
    """Whether the object with that UID is the controller of this one."""
    return (controller(live) or {}).get("uid") == uid


def is_terminal(status: FineTuneJobStatus) -> bool:
    """Whether the job completed or failed: it stays so, whatever happens to its children."""
    outcomes = (find(status.conditions, kind) for kind in (conditions.COMPLETE, conditions.FAILED))
    return any(outcome is not None and outcome.status is ConditionStatus.TRUE for outcome in outcomes)


def _waiting(own: Mapping[Child, Manifest], pods: Iterable[Manifest], now: dt.datetime) -> dict[str, str]:
    reasons = {
        name: _why_waiting(kind, live, _pods_of(live, pods), now)
        for (kind, name), live in own.items()
        if kind in ("Job", "Deployment")
    }
    return {name: reason for name, reason in reasons.items() if reason}


def _why_waiting(kind: str, live: Manifest, pods: Iterable[Manifest], now: dt.datetime) -> str:
    if kind == "Job" and live["spec"].get("suspend"):
        queue = (live["metadata"].get("labels") or {}).get(_QUEUE_LABEL)
        return f"waits for admission by queue {queue}" if queue else ""
    return waiting_reason(pods, now) or _refused_pods(live)


def _refused_pods(live: Manifest) -> str:
    # A quota or policy that refuses a Deployment's pods shows only here
    failures = [entry for entry in _conditions(live) if entry["type"] == "ReplicaFailure" and entry["status"] == "True"]
    return next((str(entry.get("message", "")) for entry in failures), "")


def _training_pods(pods: Iterable[Manifest]) -> tuple[str, ...]:
    """Training pods that have not ended, those on their way out included: they may still write a checkpoint."""
    training = (pod for pod in pods if (pod["metadata"].get("labels") or {}).get(names.STAGE_LABEL) == "train")
    running = (pod for pod in training if (pod.get("status") or {}).get("phase") in ("Pending", "Running"))
    return tuple(sorted(pod["metadata"]["name"] for pod in running))


def _is_retried(job: Manifest) -> bool:
    return bool(job["spec"].get("backoffLimit"))


def _is_ending(job: Manifest) -> bool:
    finished = any(entry["type"] in _ENDING and entry["status"] == "True" for entry in _conditions(job))
    return finished or bool((job.get("status") or {}).get("failed"))


def _conditions(live: Manifest) -> list[dict[str, Any]]:
    return (live.get("status") or {}).get("conditions") or []


def _pods_of(live: Manifest, pods: Iterable[Manifest]) -> list[Manifest]:
    if live.get("kind") == "Deployment":
        # Pods of a Deployment are owned by its ReplicaSets, which are not read; no other child has any
        return [pod for pod in pods if any(owner["kind"] == "ReplicaSet" for owner in _owners(pod))]
    return [pod for pod in pods if is_owned(pod, live["metadata"]["uid"])]


def _owners(pod: Manifest) -> list[dict[str, Any]]:
    return pod["metadata"].get("ownerReferences") or []

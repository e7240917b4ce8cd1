"""What goes into a decision and what comes out of it. Nothing else may influence `plan`."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field

from finetune_operator.api.status import FineTuneJobStatus
from finetune_operator.build.types import JobView, Manifest

__all__ = ["Event", "JobView", "Manifest", "Observed", "Plan", "PodEnd", "Report"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PodEnd:
    """How the deciding container of a pod ended: the first that failed, else the last that ran."""

    pod: str
    exit_code: int | None
    message: str
    """The termination message, raw."""
    reason: str = ""
    """The kubelet's word, such as OOMKilled or Error; or the pod's, such as Evicted."""
    logs: tuple[str, ...] = ()
    """Last log lines, redacted."""
    seconds: int | None = None
    """How long it ran, where the kubelet has said so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The newest progress that a trainer pushed; None figures were not reported."""

    step: int
    total_steps: int
    metrics: Mapping[str, str]
    remaining_seconds: int | None
    received: dt.datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """Everything that `plan` may look at."""

    job: JobView
    children: Mapping[tuple[str, str], Manifest]
    """Live objects by (kind, name): every child that could exist, whoever owns it, and the claims that the job names."""
    ends: Mapping[str, PodEnd] = field(default_factory=dict)
    """For each finished or failing child Job, by name: how its pod ended."""
    waiting: Mapping[str, str] = field(default_factory=dict)
    """For each child (Job or Deployment name) whose pod does not run yet: why, as scheduler or kubelet put it."""
    training_pods: tuple[str, ...] = ()
    """Training pods, of whichever attempt, that have not ended: they may outlive a Job that was deleted."""
    report: Report | None = None
    certificate: str = ""
    """PEM of the CA that signed the progress endpoint's certificate."""
    operator_namespace: str = ""
    now: dt.datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A Kubernetes event on the FineTuneJob."""

    type: str
    """Normal or Warning."""
    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything that the shell must do. Comparable with ==."""

    create: tuple[Manifest, ...] = ()
    """Objects that are made once and never touched again (Jobs, claims): Kueue mutates Jobs, claims are immutable."""
    apply: tuple[Manifest, ...] = ()
    """Objects that are kept as they stand here, by server-side apply."""
    patch: tuple[tuple[str, str, Manifest], ...] = ()
    """(kind, name, merge patch): the one field of a Job that we change after creation, spec.suspend."""
    delete: tuple[tuple[str, str], ...] = ()
    """(kind, name) of own children to delete, with their pods."""
    status: FineTuneJobStatus
    """The whole status; written only where it differs."""
    events: tuple[Event, ...] = ()
    """Told only after the status was written."""
    requeue_after: float | None = None
    """Seconds until the job is to be looked at again."""

"""Last stage: keep the tuned model running behind an endpoint."""

from __future__ import annotations

from dataclasses import dataclass

from finetune_operator.api import conditions, names
from finetune_operator.api.delivery import Serving
from finetune_operator.api.status import ServingStatus
from finetune_operator.build import deployment, disruption_budget, service
from finetune_operator.build.types import Manifest
from finetune_operator.plan import suspend
from finetune_operator.plan.failure import own, serving_children
from finetune_operator.plan.step import Step, Verdict, false, true
from finetune_operator.plan.world import World

_WAITS_FOR_A_NODE = ("Unschedulable", "SchedulingGated")
"""The scheduler's own reasons: a place in a full cluster may take hours, and is no fault of the model's."""
_KEEPS_ENDING = "CrashLoopBackOff"
"""The kubelet's own reason: the pod has its place, and its server ends again and again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """How far the live Deployment is from the one that is wanted."""

    wanted: int
    """Pods that are asked for."""
    ready: int
    """Pods whose probe was answered."""
    is_observed: bool
    """What the live Deployment says is of the wanted one."""
    is_current: bool
    """Every pod is of the wanted kind."""


def policy(world: World) -> Step:
    """Keep Deployment and Service while they are asked for. This is the last rung: the job's work is done."""
    serving = world.spec.serving
    if serving is None or not serving.enabled:
        return _not_served(world)
    replicas = 0 if world.suspended else serving.replicas
    wanted = deployment.build(world.job, world.settings, serving, replicas=replicas)
    rollout = _rollout(world, wanted)
    return Step(
        ready=_ready(world, serving, rollout),
        conditions=(_served(world, serving, rollout),),
        fields={"serving": _status(world, rollout)},
        apply=(wanted, service.build(world.job), *([disruption_budget.build(world.job)] if replicas > 1 else [])),
        delete=() if replicas > 1 else own(world, ("PodDisruptionBudget", names.serve(world.job.name))),
    )


def _not_served(world: World) -> Step:
    return Step(
        ready=true(conditions.READY, conditions.COMPLETED, "everything that was asked for is on the volume"),
        conditions=(false(conditions.SERVED, conditions.NOT_REQUESTED),),
        fields={"serving": None},
        delete=serving_children(world),
    )


def _rollout(world: World, wanted: Manifest) -> Rollout:
    replicas: int = wanted["spec"]["replicas"]
    live = world.own("Deployment", names.serve(world.job.name))
    if live is None:
        return Rollout(wanted=replicas, ready=0, is_observed=False, is_current=False)
    status = live.get("status") or {}
    pods, updated = status.get("replicas", 0), status.get("updatedReplicas", 0)
    seen = status.get("observedGeneration", 0) >= live["metadata"].get("generation", 0)
    is_observed = seen and _spec_hash(live) == _spec_hash(wanted)
    ready = status.get("readyReplicas", 0)
    return Rollout(wanted=replicas, ready=ready, is_observed=is_observed, is_current=is_observed and pods == updated)


def _spec_hash(manifest: Manifest) -> str | None:
    annotations = manifest["metadata"].get("annotations") or {}
    return annotations.get(deployment.SPEC_HASH_ANNOTATION)


def _served(world: World, serving: Serving, rollout: Rollout) -> Verdict:
    if world.suspended:
        return false(conditions.SERVED, conditions.NOT_ANSWERING, "the job is suspended")
    if serving.replicas == 0:
        return false(conditions.SERVED, conditions.NOT_ANSWERING, "serving.replicas is 0")
    if rollout.ready:
        return true(conditions.SERVED, conditions.ANSWERING, f"{rollout.ready} of {rollout.wanted} pods answer")
    return false(conditions.SERVED, conditions.NOT_ANSWERING, _why_not(world))


def _ready(world: World, serving: Serving, rollout: Rollout) -> Verdict:
    if world.suspended:
        return suspend.paused()
    if serving.replicas == 0 and rollout.is_current:
        return true(conditions.READY, conditions.COMPLETED, "the model is ready to be served; serving.replicas is 0")
    if rollout.ready and rollout.is_current:
        return true(conditions.READY, conditions.SERVING, f"{rollout.ready} of {rollout.wanted} pods answer")
    waiting = world.observed.waiting.get(names.serve(world.job.name), "")
    is_overdue = rollout.is_observed and _overdue(world) and not waiting.startswith(_WAITS_FOR_A_NODE)
    if is_overdue and not rollout.ready:
        return false(conditions.READY, conditions.NOT_STARTING, _why_not(world))
    if waiting and not rollout.ready and not waiting.startswith(_KEEPS_ENDING):
        return false(conditions.READY, conditions.QUEUED, f"serving pod waits: {waiting}")
    return false(conditions.READY, conditions.DEPLOYING, _why_not(world))


def _overdue(world: World) -> Manifest | None:
    """What the live Deployment says of its progress where its deadline has passed."""
    live = world.own("Deployment", names.serve(world.job.name)) or {}
    found = (live.get("status") or {}).get("conditions") or []
    return next((entry for entry in found if entry["type"] == "Progressing" and entry["status"] == "False"), None)


def _why_not(world: World) -> str:
    name = names.serve(world.job.name)
    overdue, waiting = _overdue(world), world.observed.waiting.get(name)
    if overdue:
        said = f"{overdue.get('message', '')} {f'Its pod: {waiting}.' if waiting else ''}".strip()
        return f"{said} Look at the log: kubectl logs deployment/{name}"
    if waiting and waiting.startswith(_KEEPS_ENDING):
        return f"the server keeps ending: {waiting}. Look at its log: kubectl logs deployment/{name} --previous"
    return waiting or f"Deployment {name}: waits for a pod that has answered a completion"


def _status(world: World, rollout: Rollout) -> ServingStatus:
    return ServingStatus(url=service.url(world.job), model_name=world.job.name, ready_replicas=rollout.ready)

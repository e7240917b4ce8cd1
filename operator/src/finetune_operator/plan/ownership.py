"""Nothing is created over an object that belongs to somebody else."""

from __future__ import annotations

from finetune_operator.api import conditions, names
from finetune_operator.build.types import Manifest
from finetune_operator.plan.step import Step, false
from finetune_operator.plan.world import World, controller

_RETRY_SECONDS = 30.0


def policy(world: World) -> Step | None:
    """Wait, and say for whom, while a name that the job still needs is taken."""
    taken = [(kind, name, child) for kind, name, child in _needed_and_there(world) if not _is_ours(world, kind, child)]
    if not taken:
        return None
    message = "; ".join(_complaint(kind, name, child) for kind, name, child in taken)
    advice = "Delete or rename it, or create the job under another name."
    return Step(
        ready=false(conditions.READY, conditions.NAME_TAKEN, f"{message}. {advice}"), requeue_after=_RETRY_SECONDS
    )


def _needed_and_there(world: World) -> list[tuple[str, str, Manifest]]:
    children = world.observed.children
    return [(kind, name, children[kind, name]) for kind, name in _needed(world) if (kind, name) in children]


def _needed(world: World) -> list[tuple[str, str]]:
    job = world.job.name
    needed = [("ConfigMap", names.run_config(job))]
    if world.spec.storage.claim is None:
        needed.append(("PersistentVolumeClaim", names.volume(job)))
    if not world.is_true(conditions.PREPARED):
        needed.append(("Job", names.prepare(job)))
    if not world.is_true(conditions.TRAINED):
        needed.append(("Job", world.train_name))
        needed += [("Service", world.train_name)] if world.spec.resources.nodes > 1 else []
    if world.spec.wants_merge and not world.is_true(conditions.MERGED):
        needed.append(("Job", names.merge(job)))
    serving = world.spec.serving
    if serving is not None and serving.enabled:
        needed += [("Deployment", names.serve(job)), ("Service", names.serve(job))]
        needed += [("PodDisruptionBudget", names.serve(job))] if serving.replicas > 1 else []
    return needed


def _is_ours(world: World, kind: str, child: Manifest) -> bool:
    return world.owns(child) or (kind == "PersistentVolumeClaim" and _is_retained(world, child))


def _is_retained(world: World, claim: Manifest) -> bool:
    """A claim made with retention Retain has no owner, and outlives a job of the same name: its labels tell."""
    labels = claim["metadata"].get("labels") or {}
    ours = labels.get(names.MANAGED_BY_LABEL) == names.MANAGER and labels.get(names.JOB_NAME_LABEL) == world.job.name
    return ours and controller(claim) is None


def _complaint(kind: str, name: str, child: Manifest) -> str:
    owner = controller(child)
    whose = f"belongs to {owner['kind']} {owner['name']} (uid {owner['uid']})" if owner else "has no owner"
    return f"{kind} {name} exists and {whose}"

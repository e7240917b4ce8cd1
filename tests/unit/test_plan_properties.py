"""What holds for every plan, whatever the world."""

from __future__ import annotations

import dataclasses
import json

import pytest

from finetune_operator.plan.plan import plan
from finetune_operator.plan.types import Observed
from finetune_operator.settings import Settings
from manifest_builders import OTHER_UID, WorldBuilder, a_job
from plan_simulation import SETTINGS, Cluster, run_to_rest

SERVED = {"serving": {"gpus": 0}}

WORLDS: dict[str, WorldBuilder] = {
    "new": a_job(),
    "new and suspended": a_job().with_spec(suspend=True),
    "preparing": a_job().started().running("qwen-prepare"),
    "prepared": a_job().prepared(),
    "training": a_job().training().running("qwen-train-0").reports(10, 100),
    "training died": a_job().training().died("qwen-train-0", 1),
    "training failed": a_job().training().died("qwen-train-0", 71),
    "trained": a_job().trained().done("qwen-train-0"),
    "merging, to be suspended": a_job()
    .with_spec(suspend=True)
    .condition("Suspended", "True", "Suspended")
    .trained()
    .running("qwen-merge"),
    "merged and served": a_job().with_spec(**SERVED).merged().child("Deployment", "qwen").child("Service", "qwen"),
    "no longer served": a_job().merged().complete().child("Deployment", "qwen").child("Service", "qwen"),
    "over its deadline": a_job().with_spec(activeDeadlineSeconds=1).training().running("qwen-train-0").at(60),
    "failed": a_job().failed().running("qwen-train-0").child("Deployment", "qwen"),
    "past its time": a_job().with_spec(ttlSecondsAfterFinished=1).merged().complete().done("qwen-merge").at(60),
}

every_world = pytest.mark.parametrize("observed", [world.observed() for world in WORLDS.values()], ids=list(WORLDS))


@every_world
def test_the_same_world_gives_the_same_plan(observed: Observed) -> None:
    assert plan(observed, Settings()) == plan(observed, Settings())


@every_world
def test_planning_leaves_the_world_as_it_is(observed: Observed) -> None:
    before = json.dumps(list(observed.children.values()), sort_keys=True)
    plan(observed, Settings())
    assert json.dumps(list(observed.children.values()), sort_keys=True) == before


@every_world
def test_nothing_of_another_owner_is_touched(observed: Observed) -> None:
    theirs = {key: _given_away(child) for key, child in observed.children.items()}
    planned = plan(dataclasses.replace(observed, children=theirs), Settings())
    assert planned.delete == ()
    assert planned.patch == ()
    assert not {(made["kind"], made["metadata"]["name"]) for made in (*planned.create, *planned.apply)} & set(theirs)


@every_world
def test_what_is_deleted_or_patched_is_there(observed: Observed) -> None:
    planned = plan(observed, Settings())
    assert set(planned.delete) | {(kind, name) for kind, name, _ in planned.patch} <= set(observed.children)


@every_world
def test_a_plan_never_makes_and_deletes_the_same_child(observed: Observed) -> None:
    planned = plan(observed, Settings())
    made = {(manifest["kind"], manifest["metadata"]["name"]) for manifest in (*planned.create, *planned.apply)}
    assert not made & set(planned.delete)


@every_world
def test_every_child_bears_the_job_and_its_owner(observed: Observed) -> None:
    planned = plan(observed, Settings())
    for manifest in (*planned.create, *planned.apply):
        assert manifest["metadata"]["labels"]["finetune-operator.io/job"] == "qwen"
        owned = [reference["uid"] for reference in manifest["metadata"].get("ownerReferences", [])]
        assert owned == ([] if manifest["kind"] == "PersistentVolumeClaim" else [observed.job.uid])


@pytest.mark.parametrize(
    "cluster",
    [
        Cluster(spec=SERVED),
        Cluster(spec={"method": "Full"}),
        Cluster(spec={"suspend": True}),
        Cluster(spec=SERVED, exit_codes={"qwen-train-0": [75], "qwen-train-1": [71]}),
        Cluster(spec=SERVED, exit_codes={"qwen-prepare": [65]}),
    ],
    ids=["served", "full", "suspended", "failed in training", "failed in prepare"],
)
def test_a_world_at_rest_stays_at_rest(cluster: Cluster) -> None:
    settled = run_to_rest(cluster)
    again = plan(settled.observe(), SETTINGS)
    assert settled.carry_out(again) is False
    assert again.status.to_manifest() == settled.status.to_manifest()
    assert (again.events, again.delete, again.patch) == ((), (), ())


def test_each_step_of_a_job_is_told_once() -> None:
    settled = run_to_rest(Cluster(spec=SERVED, exit_codes={"qwen-train-0": [75]}))
    assert settled.events == [
        ("Normal", "Preparing"),
        ("Normal", "Prepared"),
        ("Normal", "Training"),
        ("Warning", "Retrying"),
        ("Normal", "Training"),
        ("Normal", "Trained"),
        ("Normal", "Merging"),
        ("Normal", "Merged"),
        ("Normal", "Deploying"),
        ("Normal", "Served"),
        ("Normal", "Complete"),
    ]


def test_a_training_job_taken_away_is_replaced_by_one_more_attempt() -> None:
    settled = run_to_rest(Cluster(spec={}, exit_codes={"qwen-train-0": [None]}))
    assert settled.created["Job", "qwen-train-0"] == 1
    assert settled.created["Job", "qwen-train-1"] == 1
    assert settled.status.attempt == 1


def _given_away(child: dict[str, object]) -> dict[str, object]:
    reference = {"kind": "FineTuneJob", "name": "other", "uid": OTHER_UID, "controller": True}
    return child | {"metadata": child["metadata"] | {"ownerReferences": [reference]}}  # type: ignore[operator]

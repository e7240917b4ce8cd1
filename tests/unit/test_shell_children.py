"""How children are created, applied, patched and deleted, and what is left undone."""

import asyncio
import datetime as dt
from collections.abc import Callable
from typing import Any

import pytest

from finetune_operator.api import names
from finetune_operator.plan.types import JobView, Observed, Plan
from finetune_operator.shell.children import Children
from finetune_operator.shell.drift import HASH_ANNOTATION, differences, merge_patch, stamped
from finetune_operator.shell.errors import ApiError
from finetune_operator.shell.job_view import read_job
from scripted_api import ScriptedApi, refusal

Manifest = dict[str, Any]
UID = "11111111-1111-1111-1111-111111111111"
JOBS = "/apis/batch/v1/namespaces/team/jobs"
CONFIG_MAPS = "/api/v1/namespaces/team/configmaps"


def job_view() -> JobView:
    metadata = {
        "name": "tuned",
        "namespace": "team",
        "uid": UID,
        "generation": 1,
        "creationTimestamp": "2026-01-02T03:04:05Z",
    }
    spec = {"model": {"source": "hf://o/m"}, "datasets": [{"source": "hf://o/d"}], "method": "LoRA"}
    return read_job({"metadata": metadata, "spec": spec})


def observed(*lives: Manifest) -> Observed:
    children = {(live["kind"], live["metadata"]["name"]): live for live in lives}
    return Observed(job=job_view(), children=children, now=dt.datetime(2026, 1, 2, tzinfo=dt.UTC))


def child(kind: str, name: str, *, owner: str | None = UID, **content: Any) -> Manifest:
    metadata: Manifest = {"name": name, "namespace": "team", "labels": names.labels("tuned", "prepare")}
    if owner:
        metadata["ownerReferences"] = [{"kind": "FineTuneJob", "name": "tuned", "uid": owner, "controller": True}]
    return {"kind": kind, "metadata": metadata, **content}


def standing(manifest: Manifest, uid: str = "child-uid", **content: Any) -> Manifest:
    """The manifest as the API server gives it back."""
    return {**manifest, **content, "metadata": {**manifest["metadata"], "uid": uid, "resourceVersion": "7"}}


def plan(**steps: Any) -> Plan:
    return Plan(status=job_view().status, **steps)


def bring(api: ScriptedApi, *rounds: tuple[Plan, Observed]) -> None:
    async def run() -> None:
        async with api.client() as client:
            children = Children(client)
            for planned, seen in rounds:
                await children.bring_to(planned, seen)

    asyncio.run(run())


def test_a_job_that_exists_is_not_created_again() -> None:
    api = ScriptedApi()
    job = child("Job", "tuned-prepare")
    bring(api, (plan(create=(job,)), observed(standing(job))))
    assert api.asked == []


def test_a_create_that_had_succeeded_unheard_is_a_success() -> None:
    job = child("Job", "tuned-prepare")
    taken = (409, refusal("AlreadyExists", 'jobs.batch "tuned-prepare" already exists'))
    api = ScriptedApi({("POST", JOBS): taken, ("GET", f"{JOBS}/tuned-prepare"): (200, standing(job))})
    bring(api, (plan(create=(job,)), observed()))
    assert [asked.method for asked in api.asked] == ["POST", "GET"]


@pytest.mark.parametrize("owner", ["another-uid", None])
def test_a_name_that_somebody_else_took_meanwhile_is_left_to_the_next_plan(owner: str | None) -> None:
    foreign = standing(child("Job", "tuned-prepare", owner=owner))
    taken = (409, refusal("AlreadyExists", "taken"))
    api = ScriptedApi({("POST", JOBS): taken, ("GET", f"{JOBS}/tuned-prepare"): (200, foreign)})
    with pytest.raises(ApiError, match="AlreadyExists"):
        bring(api, (plan(create=(child("Job", "tuned-prepare"),)), observed()))


def test_a_claim_that_outlives_its_job_is_known_by_its_label() -> None:
    claims = "/api/v1/namespaces/team/persistentvolumeclaims"
    claim = child("PersistentVolumeClaim", "tuned-data", owner=None)
    taken = (409, refusal("AlreadyExists", "taken"))
    api = ScriptedApi({("POST", claims): taken, ("GET", f"{claims}/tuned-data"): (200, standing(claim))})
    bring(api, (plan(create=(claim,)), observed()))
    assert len(api.asked) == 2


def test_an_apply_takes_over_no_object_that_appeared_meanwhile() -> None:
    config = child("ConfigMap", "tuned-run", data={"run.json": "{}"})
    path = f"{CONFIG_MAPS}/tuned-run"
    api = ScriptedApi({("PATCH", path): (201, standing(stamped(config)))})
    bring(api, (plan(apply=(config,)), observed()))
    (asked,) = api.asked
    assert asked.content_type == "application/apply-patch+yaml"
    assert asked.query == {"fieldManager": "finetune-operator", "force": "false"}
    assert HASH_ANNOTATION in asked.body["metadata"]["annotations"]


def test_an_apply_to_an_own_object_names_its_uid_and_takes_its_fields_back() -> None:
    config = child("ConfigMap", "tuned-run", data={"run.json": "{}"})
    live = standing(stamped(config), data={"run.json": "spoilt"})
    api = ScriptedApi({("PATCH", f"{CONFIG_MAPS}/tuned-run"): (200, standing(stamped(config)))})
    bring(api, (plan(apply=(config,)), observed(live)))
    (asked,) = api.asked
    assert asked.query["force"] == "true"
    assert asked.body["metadata"]["uid"] == "child-uid"


def test_what_stands_as_wanted_is_not_applied() -> None:
    config = child("ConfigMap", "tuned-run", data={"run.json": "{}"})
    live = standing(stamped(config), immutable=False)
    live["metadata"]["labels"] = {**live["metadata"]["labels"], "added-by": "somebody"}
    api = ScriptedApi()
    bring(api, (plan(apply=(config,)), observed(live)))
    assert api.asked == []


def test_a_spelling_that_the_server_changes_is_applied_once_and_not_for_ever() -> None:
    wanted = child("Deployment", "tuned", spec={"cpu": "1000m", "replicas": 1})
    live = standing(stamped(wanted), spec={"cpu": "1", "replicas": 1})
    path = "/apis/apps/v1/namespaces/team/deployments/tuned"
    api = ScriptedApi({("PATCH", path): (200, live)})
    drifted = {**live, "spec": {"cpu": "1", "replicas": 3}}
    same = (plan(apply=(wanted,)), observed(live))
    bring(api, same, same, same, (plan(apply=(wanted,)), observed(drifted)))
    assert len(api.asked) == 2


def test_a_field_that_is_wanted_no_more_is_applied_away() -> None:
    before = stamped(child("ConfigMap", "tuned-run", data={"run.json": "{}", "old": "x"}))
    after = child("ConfigMap", "tuned-run", data={"run.json": "{}"})
    api = ScriptedApi({("PATCH", f"{CONFIG_MAPS}/tuned-run"): (200, standing(stamped(after)))})
    bring(api, (plan(apply=(after,)), observed(standing(before))))
    assert len(api.asked) == 1


def test_a_patch_is_sent_only_where_it_changes_something() -> None:
    live = standing(child("Job", "tuned-train-0", spec={"suspend": False, "parallelism": 1}))
    api = ScriptedApi({("PATCH", f"{JOBS}/tuned-train-0"): (200, live)})
    suspend, resume = (
        ("Job", "tuned-train-0", {"spec": {"suspend": True}}),
        ("Job", "tuned-train-0", {"spec": {"suspend": False}}),
    )
    bring(api, (plan(patch=(resume,)), observed(live)), (plan(patch=(suspend,)), observed(live)))
    (asked,) = api.asked
    assert asked.content_type == "application/merge-patch+json"
    assert asked.body == {"spec": {"suspend": True}, "metadata": {"uid": "child-uid"}}


def test_only_the_very_object_that_was_seen_is_deleted_with_its_pods() -> None:
    live = standing(child("Job", "tuned-train-0"))
    api = ScriptedApi({("DELETE", f"{JOBS}/tuned-train-0"): (200, {})})
    bring(api, (plan(delete=(("Job", "tuned-train-0"),)), observed(live)))
    assert api.asked[0].body == {"propagationPolicy": "Background", "preconditions": {"uid": "child-uid"}}


@pytest.mark.parametrize("gone", ["never there", "going", "gone meanwhile"])
def test_deleting_what_is_gone_is_no_failure(gone: str) -> None:
    live = standing(child("Job", "tuned-train-0"))
    if gone == "going":
        live["metadata"]["deletionTimestamp"] = "2026-01-02T03:04:05Z"
    seen = observed() if gone == "never there" else observed(live)
    bring(ScriptedApi(), (plan(delete=(("Job", "tuned-train-0"),)), seen))


@pytest.mark.parametrize(
    ("wanted", "live", "paths"),
    [
        ({"a": 1}, {"a": 1, "b": 2}, []),
        ({"a": {"b": [1, {"c": 2}]}}, {"a": {"b": [1, {"c": 2, "default": True}]}}, []),
        ({"a": 1}, {}, [".a"]),
        ({"a": [1, 2]}, {"a": [1]}, [".a"]),
        ({"a": [{"b": 1}, {"b": 2}]}, {"a": [{"b": 1}, {"b": 3}]}, [".a[1].b"]),
        ({"a": {"b": 1}}, {"a": None}, [".a"]),
    ],
)
def test_differences_are_told_by_path(wanted: Manifest, live: Manifest, paths: list[str]) -> None:
    assert sorted(path for path, _ in differences(wanted, live)) == paths


@pytest.mark.parametrize(
    ("live", "wanted", "patch"),
    [
        ({"a": 1}, {"a": 1}, {}),
        ({"a": 1, "b": 2}, {"a": 1}, {"b": None}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 1}}, {"a": {"c": None}}),
        ({"a": [1]}, {"a": [1, 2]}, {"a": [1, 2]}),
        ({}, {"a": {"b": 1}}, {"a": {"b": 1}}),
    ],
)
def test_a_merge_patch_says_only_what_changes(live: Manifest, wanted: Manifest, patch: Manifest) -> None:
    assert merge_patch(live, wanted) == patch


def test_the_hash_does_not_depend_on_the_order_of_keys() -> None:
    hashes: Callable[[Manifest], str] = lambda made: made["metadata"]["annotations"][HASH_ANNOTATION]  # noqa: E731
    one = {"metadata": {"name": "x"}, "data": {"a": "1", "b": "2"}}
    two = {"data": {"b": "2", "a": "1"}, "metadata": {"name": "x"}}
    assert hashes(stamped(one)) == hashes(stamped(two))

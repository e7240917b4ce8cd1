"""Deleting a FineTuneJob in any stage leaves nothing behind: no child, no process, no finalizer."""

import json

import pytest

from job_driver import Driver, tiny_job
from support_wait import eventually


@pytest.mark.parametrize("stage", ["Preparing", "Training", "Merging", "Serving"])
def test_deleting_a_job_leaves_no_child_and_no_process(driver: Driver, stage: str) -> None:
    name = f"deleted-{stage.lower()}"
    driver.apply(tiny_job(name, steps=20, serve=stage == "Serving"))
    driver.await_stage(name, stage)
    manifest = json.loads(driver.kubectl("get", "ftj", name, "-o", "json"))
    assert "finalizers" not in manifest["metadata"]
    driver.delete(name)
    eventually(lambda: driver.children(name) == [], 60, f"no child of {name} is left")
    assert driver.process_ids(f"/{name}-") == []

"""Deleting a FineTuneJob in any stage leaves nothing behind: no child, no process, no finalizer."""

import json

import pytest

from job_driver import Driver, tiny_job
from support_wait import eventually

STAGES = ("Preparing", "Training", "Merging", "Serving")


@pytest.mark.parametrize("stage", STAGES)
def test_deleting_a_job_leaves_no_child_and_no_process(driver: Driver, stage: str) -> None:
    name = f"deleted-{stage.lower()}"
    driver.apply(tiny_job(name, steps=20, serve=stage == "Serving"))
    # A stage may be over by the time that it is looked at.
    driver.await_stage(name, *STAGES[STAGES.index(stage) :], "Completed")
    manifest = json.loads(driver.kubectl("get", "ftj", name, "-o", "json"))
    assert "finalizers" not in manifest["metadata"]
    driver.delete(name)
    eventually(lambda: driver.children(name) == [], 120, f"no child of {name} is left")
    eventually(lambda: driver.process_ids(f"/{name}-") == [], message=f"no process of {name} is left")

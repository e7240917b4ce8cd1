"""One job from `kubectl apply` to an answer, while the operator is killed in every stage."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from job_driver import Driver, tiny_job
from support_wait import eventually

JOB = "chain"
STAGES = ("Preparing", "Training", "Merging", "Deploying")


@pytest.fixture(scope="module")
def created_jobs(driver: Driver) -> Iterator[set[tuple[str, str]]]:
    """Runs the job to its end, killing the operator once in each stage; yields every Job that was ever created."""
    with driver.recorded_jobs() as created:
        driver.apply(tiny_job(JOB, steps=60))
        for number in range(len(STAGES)):
            # A stage may be over by the time that the operator is back.
            driver.await_stage(JOB, *STAGES[number:], "Serving")
            driver.kill_operator()
        driver.await_condition(JOB, "Complete")
        yield created


def test_a_job_completes_though_the_operator_was_killed_in_every_stage(
    driver: Driver, created_jobs: set[tuple[str, str]]
) -> None:
    driver.await_stage(JOB, "Serving")
    assert driver.condition(JOB, "Complete")["status"] == "True"


def test_exactly_one_training_job_was_ever_created(driver: Driver, created_jobs: set[tuple[str, str]]) -> None:
    assert [name for name, _ in created_jobs if name.startswith(f"{JOB}-train")] == [f"{JOB}-train-0"]


def test_kubectl_wait_returns(driver: Driver, created_jobs: set[tuple[str, str]]) -> None:
    assert "condition met" in driver.kubectl("wait", "--for=condition=Complete", f"ftj/{JOB}", "--timeout=60s")


def test_the_table_shows_method_model_status_progress_step_and_loss(
    driver: Driver, created_jobs: set[tuple[str, str]]
) -> None:
    header, row = driver.kubectl("get", "ftj", JOB).splitlines()
    assert header.split() == ["NAME", "METHOD", "MODEL", "STATUS", "PROGRESS", "STEP", "LOSS", "AGE"]
    cells = row.split()
    assert cells[1:6] == ["LoRA", "pvc://models/tiny-qwen2", "Serving", "100%", "60/60"]
    assert float(cells[6]) > 0


def test_the_wide_table_shows_where_the_model_answers(driver: Driver, created_jobs: set[tuple[str, str]]) -> None:
    header, row = driver.kubectl("get", "ftj", JOB, "--output", "wide").splitlines()
    assert {"ETA", "URL"} <= set(header.split())
    assert f"http://{JOB}.{driver.namespace}.svc" in row


def test_the_served_model_answers_through_the_command_line(driver: Driver, created_jobs: set[tuple[str, str]]) -> None:
    finetune = str(Path(sys.executable).with_name("finetune"))
    command = [finetune, "chat", JOB, "--message", "Who are you?", "--kubeconfig", str(driver.cluster.kubeconfig)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_applying_the_same_manifest_again_changes_nothing(driver: Driver, created_jobs: set[tuple[str, str]]) -> None:
    before = driver.status(JOB)
    driver.apply(tiny_job(JOB, steps=60))
    assert driver.status(JOB) == before


def test_deleting_the_finished_training_job_does_not_train_again(
    driver: Driver, created_jobs: set[tuple[str, str]]
) -> None:
    driver.kubectl("delete", "job", f"{JOB}-train-0")
    # A changed spec makes the operator look again; it has done so once the new generation is observed.
    driver.kubectl("patch", "ftj", JOB, "--type=merge", "-p", json.dumps({"spec": {"ttlSecondsAfterFinished": 86400}}))
    generation = json.loads(driver.kubectl("get", "ftj", JOB, "-o", "json"))["metadata"]["generation"]
    eventually(lambda: driver.status(JOB)["observedGeneration"] == generation, 120, "the operator looked again")
    assert driver.stage(JOB) == "Serving"
    assert f"Job/{JOB}-train-0" not in driver.children(JOB)
    assert len([name for name, _ in created_jobs if name.startswith(f"{JOB}-train")]) == 1


def test_a_deployment_that_somebody_deletes_comes_back(driver: Driver, created_jobs: set[tuple[str, str]]) -> None:
    driver.kubectl("delete", "deployment", JOB)
    eventually(lambda: f"Deployment/{JOB}" in driver.children(JOB), 120, "the Deployment is back")
    driver.await_stage(JOB, "Serving")

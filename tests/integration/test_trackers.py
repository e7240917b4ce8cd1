"""Trackers with their real clients: one run for a job, every step once, and no harm to the training."""

import signal
import socket
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from finetune_operator.api.outcome import ExitCode
from finetune_operator.api.result import read_results
from finetune_operator.api.run import RunConfig
from tracking_servers import MLflowServer, WeightsAndBiasesServer, tracked_by
from trainer_process import StageProcess, losses, run_stages
from trainer_runs import IDENTITY, IDENTITY_ROWS, identity_model, make_run

STEPS = 24
KEY = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return identity_model(tmp_path_factory.mktemp("model"))


def tracked_run(root: Path, model: Path, wandb: str | None = None, mlflow: str | None = None) -> RunConfig:
    """A job that reports to TensorBoard, and to those servers whose addresses are given."""
    secrets = root.parent / "secrets" / "keys"
    secrets.mkdir(parents=True)
    (secrets / "wandb").write_text(KEY + "\n")
    (secrets / "mlflow").write_text("mlflow-token")
    tracking = {
        "tensorBoard": {},
        "wandb": wandb and {"project": "chats", "baseUrl": wandb, "apiKeySecret": {"name": "keys", "key": "wandb"}},
        "mlflow": mlflow
        and {"trackingUri": mlflow, "experiment": "chats", "tokenSecret": {"name": "keys", "key": "mlflow"}},
    }
    run = make_run(
        root,
        model,
        IDENTITY,
        dataset=IDENTITY_ROWS,
        training={"maxSteps": STEPS, "perDeviceBatchSize": 4, "gradientAccumulationSteps": 2, "learningRate": "2e-3"},
        logging={"steps": 1},
        checkpoints={"steps": 8},
        evaluation={"fraction": "0.2", "steps": 12},
        tracking={name: value for name, value in tracking.items() if value is not None},
    )
    return run.model_copy(update={"secrets": str(secrets.parent)})


def shown(run: RunConfig, tag: str) -> dict[int, float]:
    """What TensorBoard shows; a step that it shows twice is a fault."""
    accumulator = EventAccumulator(str(run.paths.tensorboard))
    accumulator.Reload()
    events = accumulator.Scalars(tag)
    by_step = {event.step: event.value for event in events}
    assert len(by_step) == len(events)
    return by_step


def test_a_restarted_job_goes_on_with_its_one_run_at_every_tracker_and_tells_every_step_once(
    tmp_path: Path, model: Path
) -> None:
    wandb, mlflow = WeightsAndBiasesServer(), MLflowServer()
    with tracked_by(wandb), tracked_by(mlflow):
        run = tracked_run(tmp_path / "job", model, wandb.url, mlflow.url)
        run_stages(run, "prepare")
        process = StageProcess(run, "train")
        process.wait_for("step 10/24")
        process.process.send_signal(signal.SIGTERM)
        stopped = process.end()
        assert stopped.code == ExitCode.PREEMPTED, stopped.output
        assert [each["info"]["status"] for each in mlflow.runs.values()] == ["KILLED"]
        ended = run_stages(run, "train")
        assert ended.code == 0, ended.output

    every = list(range(1, STEPS + 1))
    assert list(wandb.rows) == [run.uid], "the run's id is not the job's"
    assert wandb.steps("train/loss") == mlflow.steps("loss") == sorted(shown(run, "train/loss")) == every
    assert wandb.steps("eval/loss") == mlflow.steps("eval_loss") == sorted(shown(run, "eval/loss")) == [12, 24]
    assert [each["info"]["status"] for each in mlflow.runs.values()] == ["FINISHED"]
    assert wandb.exit_codes == [1, 0]
    [told] = mlflow.metrics.values()
    assert {entry["step"]: entry["value"] for entry in told if entry["key"] == "loss"} == losses(run)
    assert shown(run, "train/loss") == pytest.approx(losses(run))
    parameters = {entry["key"]: entry["value"] for each in mlflow.runs.values() for entry in each["data"]["params"]}
    assert parameters["training.learningRate"] == "2e-3"
    assert "2e-3" in wandb.configs[0]
    assert mlflow.authorizations == {"Bearer mlflow-token"}
    figures = read_results(run.paths.result)["train"]
    assert f"{wandb.url}/team/chats/runs/{run.uid}" in figures["trackedAt"]
    assert "notTrackedWhole" not in figures
    assert not [text for text in (KEY, "mlflow-token") if text in stopped.output + ended.output]


def test_a_server_that_cannot_be_reached_or_never_answers_does_not_hold_training_up(
    tmp_path: Path, model: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        run = tracked_run(tmp_path / "job", model, mlflow=f"http://127.0.0.1:{silent.getsockname()[1]}")
        ended = run_stages(run, "prepare", "train")
    assert ended.code == 0, ended.output
    assert sorted(losses(run)) == sorted(shown(run, "train/loss")) == list(range(1, STEPS + 1))
    assert "MLflow: cannot be reported to" in ended.output
    assert "training goes on" in ended.output
    figures = read_results(run.paths.result)["train"]
    assert figures["notTrackedWhole"] == "MLflow"
    assert "mlflow-token" not in ended.output

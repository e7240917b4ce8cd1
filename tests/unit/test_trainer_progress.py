"""Progress reaches the operator by Kubeflow's protocol, and never holds training up."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from finetune_trainer.train.entry import Entry
from finetune_trainer.train.progress import CA_VARIABLE, TOKEN_VARIABLE, URL_VARIABLE, Endpoint, ProgressReporter
from progress_endpoint import Operator, listening, metrics
from support_wait import eventually


@pytest.fixture
def operator() -> Iterator[Operator]:
    with listening() as server:
        yield server


@pytest.fixture
def token(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text("first\n")
    return path


def endpoint(operator: Operator, token: Path) -> Endpoint:
    return Endpoint(operator.url, None, token)


def entry(step: int, **fields: Any) -> Entry:
    time_now = datetime(2026, 1, 2, tzinfo=UTC)
    known: dict[str, Any] = {"total_steps": 40, "epoch": 1.0, "seconds": 10.0, "steps_done": step, "time": time_now}
    return Entry(step=step, **{**known, **fields})


def test_a_status_has_percentage_time_left_and_metrics_as_text(operator: Operator, token: Path) -> None:
    reporter = ProgressReporter(endpoint(operator, token))
    speed = {"tokens_per_second": 1234.5, "tflops_per_second": 485.6, "share_of_limit": 0.491, "data_wait_share": 2e-4}
    reporter.offer(entry(10, loss=0.5, learning_rate=1e-4, **speed))
    reporter.close()
    [post] = operator.posts
    assert post["progressPercentage"] == 25
    assert post["estimatedRemainingSeconds"] == 30
    assert post["lastUpdatedTime"] == "2026-01-02T00:00:00.000+00:00"
    assert metrics(post) == {
        "current_step": "10",
        "total_steps": "40",
        "loss": "0.5",
        "learning_rate": "0.0001",
        "epoch": "1",
        "tokens_per_second": "1234.5",
        "tflops_per_second": "485.6",
        "share_of_limit": "0.491",
        "data_wait_share": "0.0002",
    }


def test_a_proxy_for_the_world_is_not_asked_to_reach_the_operator(
    operator: Operator, token: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    endpoint(operator, token).post({"progressPercentage": 1})
    assert operator.posts == [{"progressPercentage": 1}]


def test_posts_are_spaced_and_the_newest_status_is_always_sent_at_the_end(operator: Operator, token: Path) -> None:
    reporter = ProgressReporter(endpoint(operator, token), seconds_between=0.3)
    for step in range(1, 21):
        reporter.offer(entry(step, loss=float(step)))
    eventually(lambda: operator.posts)
    reporter.offer(entry(40, loss=0.1))
    reporter.close()
    assert len(operator.posts) <= 4
    assert metrics(operator.posts[-1])["current_step"] == "40"
    assert operator.posts[-1]["progressPercentage"] == 100


def test_a_metric_that_a_step_does_not_have_keeps_its_last_value(operator: Operator, token: Path) -> None:
    reporter = ProgressReporter(endpoint(operator, token), seconds_between=0)
    reporter.offer(entry(10, eval_loss=2.0))
    reporter.offer(entry(20, loss=1.0))
    reporter.close()
    assert metrics(operator.posts[-1])["eval_loss"] == "2"


def test_the_token_is_read_anew_for_every_post(operator: Operator, token: Path) -> None:
    reporter = ProgressReporter(endpoint(operator, token), seconds_between=0)
    reporter.offer(entry(1))
    eventually(lambda: operator.posts)
    token.write_text("second")
    reporter.offer(entry(2))
    reporter.close()
    assert operator.tokens == ["Bearer first", "Bearer second"]


def test_an_operator_that_does_not_answer_does_not_hold_training_up(operator: Operator, token: Path) -> None:
    operator.let_go.clear()
    reporter = ProgressReporter(endpoint(operator, token))
    began = time.monotonic()
    for step in range(1000):
        reporter.offer(entry(step))
    assert time.monotonic() - began < 1
    operator.let_go.set()
    reporter.close()


@pytest.mark.parametrize("fault", ["refused", "unauthorized", "no token"])
def test_reports_that_fail_are_told_once_and_go_on(
    operator: Operator, token: Path, capsys: pytest.CaptureFixture[str], fault: str
) -> None:
    target = endpoint(operator, token)
    if fault == "refused":
        target = Endpoint("http://127.0.0.1:9/progress", None, token)
    elif fault == "unauthorized":
        operator.status = 401
    else:
        token.unlink()
    reporter = ProgressReporter(target, seconds_between=0)
    reporter.offer(entry(1))
    eventually(lambda: not reporter.pending)
    reporter.offer(entry(2))
    reporter.close()
    assert capsys.readouterr().out.count("progress cannot be reported") == 1


def test_without_the_operators_variables_nothing_is_reported() -> None:
    variables = {URL_VARIABLE: "https://x", TOKEN_VARIABLE: "/token", CA_VARIABLE: "/ca.crt"}
    assert Endpoint.from_environment(variables) == Endpoint("https://x", Path("/ca.crt"), Path("/token"))
    assert Endpoint.from_environment({}) is None
    assert Endpoint.from_environment({URL_VARIABLE: "https://x"}) is None

"""`finetune-operator check` tells a ready operator from one that is not, and from none."""

import asyncio
from collections.abc import Callable

import pytest
from aiohttp.test_utils import TestServer

from finetune_operator.shell import check, probes
from finetune_operator.shell.main import main
from finetune_operator.shell.metrics import Metrics
from support_server import free_port


def ask(unready: str, question: Callable[[str], object]) -> None:
    """Put a question to an operator's HTTP server."""

    async def run() -> None:
        application = probes.application(lambda: "", lambda: unready, Metrics(lambda: 0))
        async with TestServer(application) as server:
            await asyncio.to_thread(question, str(server.make_url("/")))

    asyncio.run(run())


def test_an_operator_that_is_ready_has_no_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[str] = []
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    ask("", lambda url: found.append(check.problem(url)))
    assert found == [""]


def test_an_operator_that_is_not_ready_says_why() -> None:
    found: list[str] = []
    ask("the watches have not started", lambda url: found.append(check.problem(url)))
    assert "the watches have not started (HTTP 503)" in found[0]


def test_no_operator_at_all_is_told_with_what_to_look_at() -> None:
    assert "NetworkPolicies" in check.problem(f"http://127.0.0.1:{free_port()}")


def test_the_command_ends_by_the_answer(capsys: pytest.CaptureFixture[str]) -> None:
    ask("", lambda url: main(["check", url]))
    assert "is ready" in capsys.readouterr().out
    with pytest.raises(SystemExit) as refused:
        main(["check", f"http://127.0.0.1:{free_port()}"])
    assert str(refused.value.code).startswith("error: http://127.0.0.1:")

"""Decisions of the process node over time: back-off, probes, grace, addresses, GPUs, relists."""

import asyncio
from collections.abc import AsyncIterator
from ipaddress import IPv4Network
from typing import Any

import pytest

from finetune_devcluster.node import probes
from finetune_devcluster.node.api import ApiError
from finetune_devcluster.node.backoff import Backoff
from finetune_devcluster.node.devices import GpuPool
from finetune_devcluster.node.environment import ConfigError
from finetune_devcluster.node.grace import Grace, wait_within
from finetune_devcluster.node.informer import Informer
from finetune_devcluster.node.network import AddressPool, veth_name
from finetune_devcluster.node.probes import ProbeListener, ProbeSettings, Verdict


def test_the_back_off_doubles_up_to_half_a_minute() -> None:
    backoff = Backoff()
    assert [backoff.after_run(0.1) for _ in range(7)] == [1, 2, 4, 8, 16, 30, 30]


def test_a_minute_of_running_resets_the_back_off() -> None:
    backoff = Backoff()
    assert [backoff.after_run(seconds) for seconds in (1, 1, 61, 1)] == [1, 2, 1, 2]


def test_probe_defaults_are_those_of_kubernetes() -> None:
    settings = ProbeSettings.of({})
    assert (settings.initial_delay, settings.period, settings.timeout) == (0, 10, 1)
    assert (settings.success_threshold, settings.failure_threshold) == (1, 3)


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        ([], False),
        ([True], False),
        ([True, True], True),
        ([True, True, False, False], True),
        ([True, True, False, False, False], False),
        ([True, True, False, False, True, False, False], True),
        ([True, False, True], False),
    ],
)
def test_a_verdict_changes_after_enough_equal_results_in_a_row(results: list[bool], expected: bool) -> None:
    verdict = Verdict(ProbeSettings.of({"successThreshold": 2, "failureThreshold": 3}), initial=False)
    for result in results:
        verdict.add(result)
    assert verdict.value is expected


async def reports(container: dict[str, Any], results: dict[str, list[str | None]]) -> list[str]:
    """What the probes of a container report, when their handlers give these results one after the other."""
    seen: list[str] = []
    used_up = asyncio.Event()

    async def check(action: dict[str, Any], _: float) -> str | None:
        left = results[action["name"]]
        if not left:
            used_up.set()
            await asyncio.Event().wait()
        return left.pop(0)

    listener = ProbeListener(
        started=lambda: seen.append("started"),
        ready=lambda ready: seen.append("ready" if ready else "not ready"),
        unhealthy=lambda kind, _: seen.append(f"{kind} failed"),
        restart=lambda kind, _: (seen.append(f"restart: {kind}"), used_up.set())[0],
    )
    running = asyncio.create_task(probes.run(container, check, listener))
    await asyncio.wait_for(used_up.wait(), 5)
    running.cancel()
    return seen


FAST = {"periodSeconds": 0.001}


def test_without_probes_a_container_is_started_and_ready() -> None:
    seen: list[str] = []
    listener = ProbeListener(
        lambda: seen.append("started"), lambda ready: seen.append(str(ready)), lambda *_: None, lambda *_: None
    )

    async def never(_: dict[str, Any], __: float) -> str | None:
        raise AssertionError("there is nothing to check")

    asyncio.run(probes.run({}, never, listener))
    assert seen == ["started", "True"]


def test_readiness_waits_for_the_startup_probe() -> None:
    container = {"startupProbe": {"name": "up", **FAST}, "readinessProbe": {"name": "ok", **FAST}}
    seen = asyncio.run(reports(container, {"up": ["no", None], "ok": [None]}))
    assert seen == ["Startup failed", "started", "ready"]


def test_a_startup_probe_that_fails_too_often_restarts_the_container() -> None:
    container = {"startupProbe": {"name": "up", "failureThreshold": 2, **FAST}}
    assert asyncio.run(reports(container, {"up": ["no", "no"]})) == [
        "Startup failed",
        "Startup failed",
        "restart: startup",
    ]


def test_a_failing_liveness_probe_asks_for_a_restart_once() -> None:
    container = {"livenessProbe": {"name": "ok", "failureThreshold": 2, **FAST}}
    seen = asyncio.run(reports(container, {"ok": [None, "no", None, "no", "no"]}))
    assert seen == ["started", "ready", *["Liveness failed"] * 3, "restart: liveness"]


def test_a_second_deletion_shortens_the_grace_period_and_never_lengthens_it() -> None:
    grace = Grace(30)
    grace.shorten(1)
    grace.shorten(60)
    assert 0 < grace.left <= 1


def test_waiting_ends_when_the_grace_period_is_shortened_meanwhile() -> None:
    async def scenario() -> bool:
        grace = Grace(60)
        forever = asyncio.create_task(asyncio.Event().wait())
        waiting = asyncio.create_task(wait_within(forever, lambda: grace.left))
        await asyncio.wait({waiting}, timeout=0.01)
        grace.shorten(0)
        ended_in_time = await asyncio.wait_for(waiting, 5)
        forever.cancel()
        return ended_in_time

    assert asyncio.run(scenario()) is False


def test_an_address_is_used_again_only_when_all_others_have_been() -> None:
    pool = AddressPool(IPv4Network("10.244.0.0/29"))
    first = pool.take()
    pool.give_back(first)
    assert [first, *(pool.take() for _ in range(5))] == [f"10.244.0.{number}" for number in (2, 3, 4, 5, 6, 2)]
    with pytest.raises(RuntimeError, match="all 5 addresses are in use"):
        pool.take()


def test_interface_names_fit_into_what_the_kernel_allows() -> None:
    names = {veth_name(f"9f0f2f4e-{number}") for number in range(100)}
    assert len(names) == 100
    assert max(map(len, names)) <= 15


def test_a_container_keeps_its_gpus_until_its_pod_has_gone() -> None:
    pool = GpuPool(2)
    one = {"name": "one", "resources": {"limits": {"nvidia.com/gpu": "1"}}}
    two = {"name": "two", "resources": {"limits": {"nvidia.com/gpu": "2"}}}
    assert pool.take("a", one) == [0]
    assert pool.take("a", one) == [0]
    with pytest.raises(ConfigError, match="asks for 2 GPUs, 1 are free"):
        pool.take("b", two)
    pool.give_back("a")
    assert pool.take("b", two) == [0, 1]


def item(uid: str, version: int) -> dict[str, Any]:
    return {"metadata": {"uid": uid, "resourceVersion": str(version)}}


class ScriptedApi:
    """Lists and watches as a server would that forgets its history: each watch ends with 410."""

    def __init__(self, lists: list[list[dict[str, Any]]], watches: list[list[tuple[str, dict[str, Any]]]]) -> None:
        self._lists, self._watches = lists, watches
        self.used_up = asyncio.Event()

    async def get(self, _: str, **__: str) -> dict[str, Any]:
        if not self._lists:
            self.used_up.set()
            await asyncio.Event().wait()
        return {"metadata": {"resourceVersion": "1"}, "items": self._lists.pop(0)}

    async def watch(self, _: str, **__: str) -> AsyncIterator[dict[str, Any]]:
        for kind, changed in self._watches.pop(0):
            yield {"type": kind, "object": changed}
        raise ApiError(410, "too old resource version")


def test_a_new_list_tells_what_an_expired_watch_has_missed() -> None:
    seen: list[tuple[str, bool]] = []

    async def scenario() -> None:
        api = ScriptedApi(
            lists=[[item("a", 1), item("b", 1)], [item("b", 1), item("c", 5)]],
            watches=[[("ADDED", item("d", 2)), ("DELETED", item("d", 3))], []],
        )
        informer = Informer(
            api,  # type: ignore[arg-type]
            "/things",
            lambda changed, deleted: seen.append((changed["metadata"]["uid"], deleted)),
        )
        running = asyncio.create_task(informer.run())
        await asyncio.wait_for(api.used_up.wait(), 5)
        running.cancel()
        assert informer.objects.keys() == {"b", "c"}

    asyncio.run(scenario())
    assert seen == [("a", False), ("b", False), ("d", False), ("d", True), ("a", True), ("c", False)]

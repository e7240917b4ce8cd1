"""What prepare warns of, and what it refuses, when rows can be read but little would be learnt from them."""

from pathlib import Path
from typing import Any

import pytest

from finetune_operator.api.outcome import ExitCode, StageFailure
from finetune_operator.api.run import RunConfig
from finetune_trainer.capacity import CPUS_VARIABLE, memory_limit, usable_cpus
from finetune_trainer.prepare.collect import Pace
from finetune_trainer.prepare.stage import prepare
from finetune_trainer.store import Meta
from trainer_runs import chat, identity_model, make_run, write_lines

EVERY_STEP: dict[str, Any] = {"checkpoints": {"steps": 1}}
LLAMA_FACTORY = {"template": "chatml", "packing": "None", "compatibility": "LLaMAFactory"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return identity_model(tmp_path_factory.mktemp("model"))


def talks(count: int, of: str = "answer") -> list[dict[str, Any]]:
    return [chat(f"question {index}", f"{of} {index}") for index in range(count)]


def warnings(run: RunConfig) -> list[str]:
    prepare(run, Pace(workers=1))
    found: list[str] = Meta.load(run.paths.data).report["warnings"]
    return found


@pytest.mark.parametrize(
    ("rows", "fields", "expected"),
    [
        (talks(100), {}, []),
        (talks(9), {}, ["spec.datasets: 9 rows to train on"]),
        (
            talks(20),
            {"training": {"perDeviceBatchSize": 7, "gradientAccumulationSteps": 3}},
            ["batch of 21 (1 devices x"],
        ),
        (talks(21), {"training": {"perDeviceBatchSize": 7, "gradientAccumulationSteps": 3}}, []),
        (
            [*talks(94), *[chat(f"q {n}", "word " * 300) for n in range(6)]],
            {},
            ["6 of 100 rows (6.0%) are longer than"],
        ),
        ([*talks(95), *[chat(f"q {n}", "word " * 300) for n in range(5)]], {}, []),
        ([*talks(98), *talks(2)], {}, ["2 of 100 rows (2.0%) repeat another one"]),
        ([*talks(99), *talks(1)], {}, []),
    ],
)
def test_a_job_is_warned_of_rows_that_teach_little(
    tmp_path: Path, model: Path, rows: list[Any], fields: dict[str, Any], expected: list[str]
) -> None:
    data = write_lines(tmp_path / "rows.jsonl", rows)
    found = warnings(make_run(tmp_path / "job", model, data, **EVERY_STEP, **fields))
    assert len(found) == len(expected), found
    assert all(part in line for part, line in zip(expected, found, strict=True))


@pytest.mark.parametrize(("shared", "is_told"), [(0, False), (1, True)])
def test_a_job_is_warned_of_rows_that_are_trained_and_evaluated_on(
    tmp_path: Path, model: Path, shared: int, is_told: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    held_out = write_lines(tmp_path / "held-out.jsonl", [*talks(20 - shared, "another"), *talks(shared)])
    data = write_lines(tmp_path / "rows.jsonl", talks(20))
    evaluation = {"dataset": {"source": f"file://{held_out}"}}
    run = make_run(tmp_path / "job", model, data, **EVERY_STEP, evaluation=evaluation)
    found = warnings(run)
    assert [line.split(" are trained")[0] for line in found] == ["spec.evaluation: 1 of 20 rows (5.0%)"] * is_told
    assert [line for line in capsys.readouterr().out.splitlines() if "warning" in line] == [
        f"prepare: warning: {line}" for line in found
    ]


def test_rows_with_nothing_left_to_learn_are_kept_as_llama_factory_keeps_them_and_told_of(
    tmp_path: Path, model: Path
) -> None:
    data = write_lines(tmp_path / "rows.jsonl", [*talks(20), chat("q " * 2000, "answer " * 20)])
    run = make_run(tmp_path / "job", model, data, tokenization={**LLAMA_FACTORY, "cutoffLen": 32})
    assert any("1 of 21 rows have nothing left to learn" in line for line in warnings(run))
    assert Meta.load(run.paths.data).report["rows"] == 21


def test_a_job_of_which_nothing_would_be_learnt_is_refused(tmp_path: Path, model: Path) -> None:
    data = write_lines(tmp_path / "rows.jsonl", [chat("q " * 2000, "answer " * 20)] * 12)
    run = make_run(tmp_path / "job", model, data, tokenization={**LLAMA_FACTORY, "cutoffLen": 32})
    with pytest.raises(
        StageFailure, match="none of the tokens of 12 rows is left to learn within cutoffLen 32"
    ) as caught:
        prepare(run, Pace(workers=1))
    assert caught.value.code is ExitCode.INVALID_DATA


@pytest.mark.parametrize(
    ("files", "share"),
    [
        ({}, 1000.0),
        ({"cpu.max": "max 100000\n"}, 1000.0),
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu.max": "10000 100000\n"}, 0.1),
        ({"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2.0),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1000.0),
    ],
)
def test_no_more_processors_are_used_than_the_container_has(
    tmp_path: Path, files: dict[str, str], share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(CPUS_VARIABLE, raising=False)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert usable_cpus(tmp_path) == max(1, min(8, round(share)))
    monkeypatch.setenv(CPUS_VARIABLE, "3")
    assert usable_cpus(tmp_path) == 3


@pytest.mark.parametrize(
    ("name", "text", "limit"),
    [
        ("memory.max", "4294967296\n", 1 << 32),
        ("memory.max", "max\n", None),
        ("memory/memory.limit_in_bytes", "4294967296\n", 1 << 32),
        ("memory/memory.limit_in_bytes", "9223372036854771712\n", None),
        ("unrelated", "", None),
    ],
)
def test_the_containers_memory_is_known(tmp_path: Path, name: str, text: str, limit: int | None) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(text)
    assert memory_limit(tmp_path) == limit

"""`finetune convert` on the command line: streams, exit codes, environment, and many files at once."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from finetune_operator.api.manifest_yaml import load_all
from finetune_operator.cli.main import main
from finetune_operator.cli.manifest.jobs import load_manifests
from llama_factory import delivery_file, training_file, write_datasets

VARIABLES = ("NPROC_PER_NODE", "NNODES", "USE_MODELSCOPE_HUB", "WANDB_PROJECT", "MLFLOW_TRACKING_URI")


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)


def test_manifests_go_to_stdout_and_notes_to_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = training_file(tmp_path, plot_loss=True)
    assert main(["convert", file]) == 0
    out, err = capsys.readouterr()
    assert [document["metadata"]["name"] for document in load_all(out)] == ["sft"]
    assert f"note: {file}: plot_loss: training_loss.png is always drawn\n" in err


def test_quiet_leaves_the_notes_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", training_file(tmp_path, plot_loss=True), "--quiet"]) == 0
    assert capsys.readouterr().err == ""


def test_nothing_is_printed_when_one_of_many_files_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, wrong = training_file(tmp_path, "good.yaml"), training_file(tmp_path, "wrong.yaml", stage="dpo")
    assert main(["convert", good, wrong]) == 64
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"error: {wrong}:2: stage: found dpo, expected sft; preference training is not there yet\n"


def test_json_is_one_list_that_run_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [training_file(tmp_path, "a.yaml"), training_file(tmp_path, "b.yaml")]
    assert main(["convert", *files, "-o", "json"]) == 0
    text = capsys.readouterr().out
    assert [item["metadata"]["name"] for item in json.loads(text)["items"]] == ["a", "b"]
    jobs = tmp_path / "jobs.json"
    jobs.write_text(text)
    assert [job.name for job in load_manifests([str(jobs)]).jobs] == ["a", "b"]


def test_the_stream_is_read_by_run_without_a_problem(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [
        training_file(tmp_path, "a.yaml", learning_rate=1e-4, packing=False, eval_strategy="no"),
        delivery_file(tmp_path, "chat.yaml"),
    ]
    assert main(["convert", *files]) == 0
    stream = tmp_path / "jobs.yaml"
    stream.write_text(capsys.readouterr().out)
    (job,) = load_manifests([str(stream)]).jobs
    assert (job.job.spec.training.learning_rate, job.job.spec.tokenization.packing.value) == ("1e-4", "None")


@pytest.mark.parametrize(
    ("flags", "variables", "expected"),
    [
        ([], {}, {"gpusPerNode": 1}),
        ([], {"NPROC_PER_NODE": "4"}, {"gpusPerNode": 4}),
        (["--gpus", "8"], {"NPROC_PER_NODE": "4"}, {"gpusPerNode": 8}),
        (["--gpus", "0"], {}, {"gpusPerNode": 0}),
        (["--nodes", "2", "--gpus", "8"], {}, {"nodes": 2, "gpusPerNode": 8}),
        ([], {"NNODES": "2", "NPROC_PER_NODE": "8"}, {"nodes": 2, "gpusPerNode": 8}),
    ],
)
def test_gpus_come_from_flags_then_from_the_variables_of_torchrun(
    flags: list[str],
    variables: dict[str, str],
    expected: dict[str, int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert main(["convert", training_file(tmp_path), *flags]) == 0
    (job,) = load_all(capsys.readouterr().out)
    assert job["spec"]["resources"] == expected


def test_a_variable_that_is_no_number_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NNODES", "1:4")
    assert main(["convert", training_file(tmp_path)]) == 64
    assert capsys.readouterr().err == "error: NNODES: found 1:4, expected a whole number; correct the variable\n"


@pytest.mark.parametrize(
    ("flags", "value", "source"),
    [
        ([], None, "hf://Qwen/Qwen2-7B-Instruct"),
        ([], "1", "ms://Qwen/Qwen2-7B-Instruct"),
        ([], "0", "hf://Qwen/Qwen2-7B-Instruct"),
        (["--hub", "modelscope"], None, "ms://Qwen/Qwen2-7B-Instruct"),
        (["--hub", "huggingface"], "true", "hf://Qwen/Qwen2-7B-Instruct"),
    ],
)
def test_the_hub_comes_from_the_flag_then_from_llama_factorys_variable(
    flags: list[str],
    value: str | None,
    source: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if value is not None:
        monkeypatch.setenv("USE_MODELSCOPE_HUB", value)
    assert main(["convert", training_file(tmp_path), *flags]) == 0
    (job,) = load_all(capsys.readouterr().out)
    assert job["spec"]["model"]["source"] == source


@pytest.mark.parametrize("text", ["name", "=Iris", "na me=Iris"])
def test_a_placeholder_without_key_and_text_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["convert", training_file(tmp_path), "--placeholder", text])
    assert ended.value.code == 2


def test_four_hundred_files_take_one_call_and_seconds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_datasets(tmp_path)
    files = [training_file(tmp_path, f"experiment_{number}.yaml", lora_rank=number + 1) for number in range(400)]
    began = time.monotonic()
    assert main(["convert", *files, "--quiet"]) == 0
    assert time.monotonic() - began < 20  # a second on an idle machine
    ranks = [line.strip() for line in capsys.readouterr().out.splitlines() if line.strip().startswith("rank:")]
    assert ranks == [f"rank: {number + 1}" for number in range(400)]

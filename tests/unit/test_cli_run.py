"""`finetune run`: stages as processes, with fake stages that keep the images' contract."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fake_stages import install_fakes
from finetune_devcluster.node.processes import start_time
from finetune_operator.api.manifest_yaml import dump_all
from finetune_operator.cli.main import main
from support_wait import eventually
from wrong_manifests import changed, valid_manifest

Run = Callable[..., int]


@pytest.fixture
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder, with fakes of the images' programs beside the interpreter."""
    monkeypatch.setattr(sys, "executable", str(install_fakes(tmp_path / "bin")))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "tiny").mkdir(parents=True)
    (tmp_path / "rows.jsonl").write_text("{}\n")
    return tmp_path


def manifest(folder: Path, name: str = "job", method: str = "LoRA", **behaviour: str) -> dict[str, Any]:
    """A job on local files, whose stages behave as told."""
    made = changed(valid_manifest(name, method), "spec.model.source", f"file://{folder}/models/tiny")
    made = changed(made, "spec.resources", {"gpusPerNode": 0})
    dataset = {"source": f"file://{folder}/rows.jsonl", "placeholders": behaviour}
    return changed(made, "spec.datasets", [dataset])


def write(folder: Path, *documents: dict[str, Any], file: str = "jobs.yaml") -> str:
    path = folder / file
    path.write_text(dump_all(documents))
    return str(path)


def started(folder: Path, job: str = "job") -> list[str]:
    file = folder / "finetune-runs" / job / "started.txt"
    return file.read_text().split() if file.exists() else []


def test_the_stages_run_in_order_and_their_lines_bear_the_stage(
    workdir: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", write(workdir, manifest(workdir))]) == 0
    assert started(workdir) == ["prepare", "train", "merge"]
    out = capfd.readouterr().out
    assert "prepare | prepare works" in out
    assert "train | train works" in out
    assert f"finetune chat {workdir}/finetune-runs/job" in out


@pytest.mark.parametrize(
    ("method", "merge", "stages"),
    [
        ("Full", True, ["prepare", "train"]),
        ("LoRA", False, ["prepare", "train"]),
        ("QLoRA", True, ["prepare", "train", "merge"]),
    ],
)
def test_only_an_adapter_that_is_to_be_merged_is_merged(
    workdir: Path, method: str, merge: bool, stages: list[str]
) -> None:
    job = changed(manifest(workdir, method=method), "spec.merge", {"enabled": merge})
    assert main(["run", write(workdir, job)]) == 0
    assert started(workdir) == stages


def test_a_finished_run_says_so_and_does_nothing(workdir: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = write(workdir, manifest(workdir))
    main(["run", file])
    capfd.readouterr()
    assert main(["run", file]) == 0
    assert started(workdir) == ["prepare", "train", "merge"]
    assert "job: finished before; nothing to do" in capfd.readouterr().out


def test_a_failing_stage_ends_the_run_with_its_code_and_message(
    workdir: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    job = manifest(workdir, prepare="fail 65 rows.jsonl:3: found no role, expected user or assistant")
    assert main(["run", write(workdir, job, manifest(workdir, "next"))]) == 65
    expected = "error: job: prepare: InvalidData: rows.jsonl:3: found no role, expected user or assistant\n"
    assert capfd.readouterr().err == expected
    assert started(workdir) == ["prepare"]
    assert started(workdir, "next") == []


def test_a_run_goes_on_with_the_stage_that_failed(workdir: Path) -> None:
    job = manifest(workdir, train="hang")
    run_folder = workdir / "finetune-runs" / "job"
    run_folder.mkdir(parents=True)
    (run_folder / "result.json").write_text(json.dumps({"prepare": {}}))
    (run_folder / "checkpoint.txt").write_text("saved")
    assert main(["run", write(workdir, job)]) == 0
    assert started(workdir) == ["train", "merge"]


@pytest.mark.parametrize(
    ("behaviour", "code", "words"),
    [
        ("crash 3", 3, "job: train: ended with exit code 3 and left no message; its last line: Segmentation fault"),
        ("crash 255", 255, "job: train: ended with exit code 255 and left no message"),
        ("kill-self", 137, "job: train: killed by SIGKILL, as the kernel does when memory runs out"),
    ],
)
def test_a_stage_that_dies_without_a_message_is_told_by_its_end(
    workdir: Path, capfd: pytest.CaptureFixture[str], behaviour: str, code: int, words: str
) -> None:
    assert main(["run", write(workdir, manifest(workdir, train=behaviour))]) == code
    assert words in capfd.readouterr().err


def test_what_a_stage_leaves_running_is_ended_with_it(workdir: Path) -> None:
    assert main(["run", write(workdir, manifest(workdir, train="orphan"))]) == 0
    pid = int((workdir / "finetune-runs" / "job" / "orphan.pid").read_text())
    eventually(lambda: start_time(pid) is None)


def start_run(workdir: Path, file: str) -> subprocess.Popen[str]:
    """`finetune run` as a process of its own, with the fakes."""
    program = (
        "import sys; sys.executable = sys.argv.pop(1); from finetune_operator.cli.main import main; sys.exit(main())"
    )
    command = [f"{sys.prefix}/bin/python", "-c", program, sys.executable, "run", file]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=workdir)


def test_a_stage_whose_parent_was_killed_saves_and_ends_and_the_next_run_goes_on(workdir: Path) -> None:
    file = write(workdir, manifest(workdir, train="hang"))
    process = start_run(workdir, file)
    eventually((workdir / "finetune-runs" / "job" / "hangs").exists)
    process.kill()
    process.communicate()
    eventually((workdir / "finetune-runs" / "job" / "checkpoint.txt").exists)
    # Until the stage has ended, its folder is locked.
    eventually(lambda: main(["run", file]) == 0)
    assert started(workdir) == ["prepare", "train", "train", "merge"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_signal_reaches_the_stage_which_saves_and_the_next_run_goes_on(
    workdir: Path, number: signal.Signals
) -> None:
    file = write(workdir, manifest(workdir, train="hang"))
    process = start_run(workdir, file)
    eventually((workdir / "finetune-runs" / "job" / "hangs").exists)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 75
    assert f"job: train: stopped by {number.name}; the same command goes on where it stopped" in errors
    assert (workdir / "finetune-runs" / "job" / "checkpoint.txt").read_text() == "saved"
    assert main(["run", file]) == 0
    assert started(workdir) == ["prepare", "train", "train", "merge"]


def test_a_changed_spec_is_refused_in_the_folder_of_the_former(
    workdir: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    job = manifest(workdir)
    main(["run", write(workdir, job)])
    capfd.readouterr()
    other = changed(changed(job, "spec.training.maxSteps", 40), "spec.lora.rank", 4)
    file = write(workdir, other)
    assert main(["run", file]) == 1
    errors = capfd.readouterr().err
    assert f"error: {file}: job: spec.training.maxSteps: was not set, is 40" in errors
    assert "job: spec.lora.rank: was not set, is 4" in errors
    assert "use another --workdir" in errors
    assert main(["run", file, "--workdir", "elsewhere"]) == 0


def test_fields_that_nothing_depends_on_yet_may_change(workdir: Path) -> None:
    job = manifest(workdir, merge="fail 70 broken")
    assert main(["run", write(workdir, job)]) == 70
    freer = changed(changed(job, "spec.merge.dtype", "FP32"), "spec.checkpoints.limit", 5)
    assert main(["run", write(workdir, freer)]) == 70
    assert started(workdir) == ["prepare", "train", "merge", "merge"]


def test_the_merge_may_not_change_once_it_is_done(workdir: Path, capfd: pytest.CaptureFixture[str]) -> None:
    job = manifest(workdir)
    main(["run", write(workdir, job)])
    assert main(["run", write(workdir, changed(job, "spec.merge.dtype", "FP32"))]) == 1
    assert 'spec.merge.dtype: was "Auto", is "FP32"' in capfd.readouterr().err


def test_the_same_manifest_is_the_same_run_and_another_is_another(workdir: Path) -> None:
    def uid(folder: str, job: dict[str, Any]) -> str:
        assert main(["run", write(workdir, job), "--workdir", folder]) == 0
        read: dict[str, str] = json.loads((workdir / folder / "job" / "run.json").read_text())
        return read["uid"]

    job = manifest(workdir)
    assert uid("one", job) == uid("two", job)
    assert uid("one", job) != uid("three", changed(job, "spec.training.seed", 7))


def test_a_config_map_of_the_stream_becomes_files_and_other_kinds_are_ignored(
    workdir: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    rows = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "rows"}}
    rows |= {"data": {"a.jsonl": "{}\n"}, "binaryData": {"b.jsonl": "AAE="}}
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}}
    job = changed(manifest(workdir), "spec.datasets", [{"source": "configmap://rows/a.jsonl"}])
    assert main(["run", write(workdir, rows, service, job)]) == 0
    assert "ignored, not needed without a cluster: Service/web" in capfd.readouterr().out
    run = json.loads((workdir / "finetune-runs" / "job" / "run.json").read_text())
    folder = Path(run["configMaps"]["rows"])
    assert (folder / "a.jsonl").read_text() == "{}\n"
    assert (folder / "b.jsonl").read_bytes() == b"\x00\x01"


def test_claims_config_maps_and_secrets_are_folders_that_the_user_names(workdir: Path) -> None:
    for folder, file in (("data", "chat.jsonl"), ("maps", "more.jsonl"), ("hub", "token")):
        (workdir / folder).mkdir()
        (workdir / folder / file).write_text("x")
    job = changed(manifest(workdir), "spec.model.tokenSecret", {"name": "hub"})
    job = changed(
        job, "spec.datasets", [{"source": "pvc://datasets/chat.jsonl"}, {"source": "configmap://rows/more.jsonl"}]
    )
    flags = ["--claim", "datasets=data", "--config-map", "rows=maps", "--secret", "hub=hub"]
    assert main(["run", write(workdir, job), *flags]) == 0
    run = json.loads((workdir / "finetune-runs" / "job" / "run.json").read_text())
    assert run["claims"] == {"datasets": str(workdir / "data")}
    assert run["configMaps"] == {"rows": str(workdir / "maps")}
    assert (Path(run["secrets"]) / "hub" / "token").read_text() == "x"


def test_everything_that_is_missing_is_told_in_one_pass(
    workdir: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    first = changed(valid_manifest("first"), "spec.resources", {"gpusPerNode": 0})
    first = changed(first, "spec.model", {"source": "pvc://models/a", "tokenSecret": {"name": "hub"}})
    first = changed(
        first, "spec.datasets", [{"source": f"file://{workdir}/none.jsonl"}, {"source": "configmap://rows/a"}]
    )
    second = changed(valid_manifest("second"), "spec.model.source", "oci://registry/model:1")
    more = {"nodes": 2, "gpusPerNode": 8}
    second = changed(changed(second, "spec.resources", more), "spec.storage.accessMode", "ReadWriteMany")
    monkeypatch.setattr("finetune_operator.cli.local.inputs.GPU_DEVICES", [])
    file = write(workdir, first, second)
    assert main(["run", file, "--claim", "datasets=."]) == 1
    errors = capfd.readouterr().err.splitlines()
    beginnings = [
        f"error: {file}: first: spec.model.source: found pvc://models/a, but there is no claim models here",
        f"error: {file}: first: spec.datasets[0].source: found file://{workdir}/none.jsonl, but",
        f"error: {file}: first: spec.datasets[1].source: found configmap://rows/a, but there is no ConfigMap rows here",
        f"error: {file}: first: spec.model.tokenSecret: found Secret hub, but there is none here",
        f"error: {file}: second: spec.model.source: found oci://registry/model:1, but image volumes exist in a cluster",
        f"error: {file}: second: spec.datasets[0].source: found pvc://datasets/chat.jsonl, but {workdir}/chat.jsonl",
        f"error: {file}: second: spec.resources.nodes: found 2, but a local run trains on this machine alone; set it to 1",
    ]
    assert [error.startswith(beginning) for error, beginning in zip(errors, beginnings, strict=True)] == [True] * 7
    assert "--claim models=DIR" in errors[0]
    assert "--config-map rows=DIR" in errors[2]
    assert "--secret hub=DIR" in errors[3]
    assert not (workdir / "finetune-runs").exists()


def test_a_job_may_read_what_an_earlier_one_of_the_same_call_leaves(workdir: Path) -> None:
    base = manifest(workdir, "base", "Full")
    tuned = changed(manifest(workdir, "tuned"), "spec.model.source", f"file://{workdir}/finetune-runs/base/model")
    assert main(["run", write(workdir, base, tuned)]) == 0
    assert started(workdir, "tuned") == ["prepare", "train", "merge"]


def test_the_claim_of_a_job_of_this_or_an_earlier_call_is_its_folder(workdir: Path) -> None:
    base = manifest(workdir, "base", "Full")
    tuned = changed(manifest(workdir, "tuned"), "spec.model.source", "pvc://base-data/model")
    assert main(["run", write(workdir, base, tuned)]) == 0
    (workdir / "finetune-runs" / "base" / "model").mkdir()
    assert main(["run", write(workdir, changed(tuned, "metadata.name", "later"))]) == 0
    run = json.loads((workdir / "finetune-runs" / "later" / "run.json").read_text())
    assert run["claims"] == {"base-data": f"{workdir}/finetune-runs/base"}


def test_json_output_is_alone_on_stdout(workdir: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = write(workdir, manifest(workdir, "good"), manifest(workdir, "bad", train="fail 71 too big"))
    assert main(["run", file, "-o", "json"]) == 71
    output = capfd.readouterr()
    good, bad = json.loads(output.out)
    assert good["stages"]["train"] == {"steps": 10}
    assert good["model"] == f"{workdir}/finetune-runs/good/merged"
    assert good["failed"] is None
    assert bad["failed"] == {
        "stage": "train",
        "reason": "OutOfMemory",
        "message": "bad: train: OutOfMemory: too big",
        "exitCode": 71,
    }
    assert "train | train works" in output.err


def test_two_runs_keep_out_of_each_others_way(workdir: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from finetune_operator.cli.local.folder import locked

    with locked(workdir / "finetune-runs" / "job"):
        assert main(["run", write(workdir, manifest(workdir))]) == 1
    assert f"process {os.getpid()}, or a stage that it started, still runs" in capfd.readouterr().err


def test_a_missing_program_is_named(
    workdir: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (workdir / "bin" / "finetune-merger").unlink()
    monkeypatch.setenv("PATH", str(workdir / "bin"))
    assert main(["run", write(workdir, manifest(workdir))]) == 1
    assert "finetune-merger: not found in" in capfd.readouterr().err
    assert started(workdir) == []

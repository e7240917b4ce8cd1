"""The commands that look into a cluster, against a real control plane; what an operator would write, the tests write."""

from __future__ import annotations

import io
import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import tiny_endpoint
from finetune_devcluster import Cluster
from finetune_operator.api import names
from finetune_operator.cli.main import main
from support_wait import eventually
from wrong_manifests import changed, valid_manifest

NAMESPACE = "cli-tests"
NOW = "2026-01-01T00:00:00Z"
Finetune = Callable[..., int]


@pytest.fixture(scope="module")
def world(cluster_with_crd: Cluster) -> Iterator[Cluster]:
    """A namespace for this module."""
    cluster_with_crd.kubectl("create", "namespace", NAMESPACE)
    yield cluster_with_crd
    cluster_with_crd.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


@pytest.fixture
def finetune(world: Cluster) -> Finetune:
    """Run the command line in the namespace of the tests."""

    def run(*arguments: str) -> int:
        return main([*arguments, "--kubeconfig", str(world.kubeconfig), "-n", NAMESPACE])

    return run


def kubectl(world: Cluster, *arguments: str, document: Any = None) -> str:
    text = None if document is None else json.dumps(document)
    done = world.kubectl(*arguments, "-n", NAMESPACE, input=text)
    assert done.returncode == 0, done.stderr
    return str(done.stdout)


def create(world: Cluster, name: str, **spec: Any) -> None:
    manifest = valid_manifest(name)
    kubectl(world, "create", "-f", "-", document={**manifest, "spec": {**manifest["spec"], **spec}})


def condition(kind: str, status: str, reason: str, message: str = "") -> dict[str, Any]:
    return {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": NOW}


def write_status(world: Cluster, name: str, *conditions: dict[str, Any], **status: Any) -> None:
    patch = json.dumps({"status": {"conditions": conditions, **status}})
    kubectl(world, "patch", "ftj", name, "--subresource=status", "--type=merge", "-p", patch)


def run_pod(
    world: Cluster, name: str, job: str, stage: str, command: list[str], *, ends: bool = True, **labels: str
) -> None:
    """A pod as a stage's Job would make it; returns once it has ended, and all its words are in the log, or has started."""
    metadata = {"name": name, "labels": {**names.labels(job, stage), **labels}}
    container = {
        "name": "stage",
        "image": "none",
        "command": command,
        "ports": [{"name": "http", "containerPort": 8000}],
    }
    spec = {"restartPolicy": "Never", "containers": [container]}
    kubectl(
        world, "create", "-f", "-", document={"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
    )
    phase = lambda: kubectl(world, "get", "pod", name, "-o", "jsonpath={.status.phase}")  # noqa: E731
    awaited = ("Succeeded", "Failed") if ends else ("Running",)
    eventually(lambda: phase() in awaited, message=f"pod {name} is {awaited}")


def printing(*lines: str) -> list[str]:
    return ["sh", "-c", "; ".join(f"echo '{line}'" for line in lines)]


def test_a_table_has_kubectls_columns(world: Cluster, finetune: Finetune, capfd: pytest.CaptureFixture[str]) -> None:
    create(world, "table-a")
    create(world, "table-b")
    progress = {"percent": "24%", "summary": "120/500", "loss": "1.23", "eta": "1h20m"}
    ready = condition("Ready", "False", "Training")
    write_status(world, "table-a", ready, progress=progress, serving={"url": "http://table-a.x.svc:8000/v1"})
    assert finetune("status") == 0
    header, *rows = capfd.readouterr().out.splitlines()
    assert header.split() == ["NAME", "METHOD", "MODEL", "STATUS", "PROGRESS", "STEP", "LOSS", "ETA", "URL", "AGE"]
    by_name = {row.split()[0]: row.split()[1:-1] for row in rows}
    expected = ["LoRA", "hf://Qwen/Qwen2-7B-Instruct", "Training", "24%", "120/500", "1.23", "1h20m"]
    assert by_name["table-a"] == [*expected, "http://table-a.x.svc:8000/v1"]
    assert by_name["table-b"] == ["LoRA", "hf://Qwen/Qwen2-7B-Instruct", "Pending"]


def test_one_job_is_described_with_what_to_do_next(
    world: Cluster, finetune: Finetune, capfd: pytest.CaptureFixture[str]
) -> None:
    create(world, "described")
    write_status(
        world,
        "described",
        condition("Ready", "False", "Retrying", "attempt 0 ran out of memory"),
        attempts=[{"number": 0, "exitCode": 137, "reason": "Infrastructure", "message": "node lost"}],
        dataset={"rows": 91, "dropped": 2, "tokens": 4100, "trainedTokens": 1200},
        results={"trainLoss": "0.5", "steps": 30},
        volume="described-data/.",
    )
    assert finetune("status", "described") == 0
    text = capfd.readouterr().out
    for line in (
        "Status:    Retrying",
        "Data:      91 rows, 2 dropped (report.json on the volume says why), 4100 tokens, 1200 of them learnt",
        "Results:   30 steps, training loss 0.5",
        "Volume:    described-data/.",
        "Next:      it starts again by itself from the last checkpoint",
        "node lost",
        "attempt 0 ran out of memory",
    ):
        assert line in text


def test_json_is_the_object_itself(world: Cluster, finetune: Finetune, capfd: pytest.CaptureFixture[str]) -> None:
    create(world, "as-json")
    assert finetune("status", "as-json", "-o", "json") == 0
    assert json.loads(capfd.readouterr().out)["metadata"]["name"] == "as-json"
    assert finetune("status", "-o", "json") == 0
    assert "as-json" in [item["metadata"]["name"] for item in json.loads(capfd.readouterr().out)["items"]]


@pytest.mark.parametrize(
    "words",
    [["status"], ["logs"], ["wait"], ["plot"], ["suspend"], ["resume"], ["chat", "--message", "hi"]],
    ids=lambda words: words[0],
)
def test_a_job_that_does_not_exist_is_one_line(
    finetune: Finetune, capfd: pytest.CaptureFixture[str], words: list[str]
) -> None:
    assert finetune(words[0], "absent", *words[1:]) == 1
    said = f"error: FineTuneJob {NAMESPACE}/absent not found; `finetune status -n {NAMESPACE}` lists those there are\n"
    assert capfd.readouterr().err == said


def test_a_namespace_without_jobs_is_no_error(world: Cluster, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--kubeconfig", str(world.kubeconfig), "-n", "kube-public"]) == 0
    assert capfd.readouterr().err == "No FineTuneJobs in namespace kube-public.\n"


def test_missing_rights_are_told_by_the_api_servers_words(
    world: Cluster, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    token = kubectl(world, "create", "token", "default").strip()
    kubeconfig = json.loads(world.kubectl("config", "view", "--raw", "-o", "json").stdout)
    kubeconfig["users"][0]["user"] = {"token": token}
    file = tmp_path / "kubeconfig"
    file.write_text(json.dumps(kubeconfig))
    assert main(["status", "--kubeconfig", str(file), "-n", NAMESPACE]) == 1
    assert "error: finetunejobs.finetune-operator.io is forbidden: User" in capfd.readouterr().err
    kubeconfig["users"][0]["user"] = {"token": "nonsense"}
    file.write_text(json.dumps(kubeconfig))
    assert main(["status", "--kubeconfig", str(file), "-n", NAMESPACE]) == 1
    assert "does not accept these credentials" in capfd.readouterr().err


def test_suspend_and_resume_set_one_field(world: Cluster, finetune: Finetune) -> None:
    create(world, "pausable")
    before = json.loads(kubectl(world, "get", "ftj", "pausable", "-o", "json"))["spec"]
    assert finetune("suspend", "pausable") == 0
    assert json.loads(kubectl(world, "get", "ftj", "pausable", "-o", "json"))["spec"] == {**before, "suspend": True}
    assert finetune("resume", "pausable") == 0
    assert json.loads(kubectl(world, "get", "ftj", "pausable", "-o", "json"))["spec"] == before


def test_wait_returns_when_the_condition_comes_and_tells_the_stages(
    world: Cluster, finetune: Finetune, capfd: pytest.CaptureFixture[str]
) -> None:
    create(world, "awaited")
    codes: list[int] = []
    waiting = threading.Thread(target=lambda: codes.append(finetune("wait", "awaited", "--timeout", "300s")))
    waiting.start()
    write_status(world, "awaited", condition("Ready", "False", "Training", "step 3/9"))
    write_status(
        world, "awaited", condition("Ready", "True", "Completed"), condition("Complete", "True", "Completed", "all")
    )
    waiting.join(timeout=120)
    assert codes == [0]
    output = capfd.readouterr()
    assert output.out == "awaited: Complete: all\n"
    assert "awaited: Completed\n" in output.err


def test_wait_for_a_condition_that_holds_already_returns_at_once(
    world: Cluster, finetune: Finetune, capfd: pytest.CaptureFixture[str]
) -> None:
    create(world, "trained")
    write_status(world, "trained", condition("Trained", "True", "Succeeded"))
    assert finetune("wait", "trained", "--for", "trained", "-o", "json") == 0
    assert json.loads(capfd.readouterr().out)["condition"]["type"] == "Trained"


@pytest.mark.parametrize(
    ("name", "wanted", "given", "said"),
    [
        (
            "failed-job",
            "Complete",
            condition("Failed", "True", "InvalidData", "rows:3: no role"),
            "failed: InvalidData: rows:3: no role",
        ),
        (
            "no-merge",
            "Merged",
            condition("Merged", "False", "NotRequested"),
            "will never be Merged: the spec does not ask for it",
        ),
        ("no-fail", "Failed", condition("Complete", "True", "Completed"), "will never be Failed: it is complete"),
    ],
)
def test_wait_gives_up_on_what_cannot_come(
    world: Cluster,
    finetune: Finetune,
    capfd: pytest.CaptureFixture[str],
    name: str,
    wanted: str,
    given: dict[str, Any],
    said: str,
) -> None:
    create(world, name)
    write_status(world, name, given)
    assert finetune("wait", name, "--for", wanted) == 1
    assert f"error: {name}: {said}\n" in capfd.readouterr().err


def test_wait_ends_with_3_when_the_time_is_up(
    world: Cluster, finetune: Finetune, capfd: pytest.CaptureFixture[str]
) -> None:
    create(world, "endless")
    assert finetune("wait", "endless", "--timeout", "3s") == 3
    assert "endless: not Complete in time, still Pending" in capfd.readouterr().err


def test_wait_ends_when_the_job_is_deleted(
    world: Cluster, finetune: Finetune, capfd: pytest.CaptureFixture[str]
) -> None:
    create(world, "deleted")
    codes: list[int] = []
    waiting = threading.Thread(target=lambda: codes.append(finetune("wait", "deleted", "--timeout", "300s")))
    waiting.start()
    eventually(lambda: "deleted: Pending" in capfd.readouterr().err)
    kubectl(world, "delete", "ftj", "deleted")
    waiting.join(timeout=120)
    assert codes == [1]
    assert f"FineTuneJob {NAMESPACE}/deleted not found" in capfd.readouterr().err


def test_a_condition_of_an_older_spec_does_not_count(
    world: Cluster, finetune: Finetune, capfd: pytest.CaptureFixture[str]
) -> None:
    create(world, "changed")
    write_status(world, "changed", {**condition("Suspended", "True", "Suspended"), "observedGeneration": 1})
    finetune("resume", "changed")
    kubectl(world, "patch", "ftj", "changed", "--type=merge", "-p", '{"spec": {"suspend": true}}')
    assert finetune("wait", "changed", "--for", "Suspended", "--timeout", "1s") == 3


def test_logs_are_those_of_the_newest_attempt(
    world: Cluster, finetune: Finetune, capfd: pytest.CaptureFixture[str]
) -> None:
    create(world, "logged")
    run_pod(world, "logged-prepare", "logged", "prepare", printing("91 rows"))
    run_pod(world, "logged-train-0", "logged", "train", printing("step 1/3", "lost"), **{names.ATTEMPT_LABEL: "0"})
    run_pod(world, "logged-train-1", "logged", "train", printing("step 2/3", "step 3/3"), **{names.ATTEMPT_LABEL: "1"})

    def said(*words: str) -> str:
        assert finetune("logs", "logged", *words) == 0
        return capfd.readouterr().out

    assert said("--stage", "train") == "step 2/3\nstep 3/3\n"
    assert said("--stage", "train", "--tail", "1") == "step 3/3\n"
    assert said("--stage", "train", "--previous") == "step 1/3\nlost\n"
    assert said("--stage", "prepare", "-f") == "91 rows\n"
    assert finetune("logs", "logged", "--stage", "merge") == 1
    assert "error: logged: no pod of stage merge exists" in capfd.readouterr().err
    assert finetune("logs", "logged", "--stage", "prepare", "--previous") == 1
    assert "error: logged: pod logged-prepare has no predecessor" in capfd.readouterr().err


def test_followed_logs_come_as_they_are_written(
    world: Cluster, finetune: Finetune, capfd: pytest.CaptureFixture[str]
) -> None:
    create(world, "followed")
    script = "trap 'echo second; exit 0' TERM; echo first; while :; do sleep 0.05; done"
    run_pod(world, "followed-train-0", "followed", "train", ["sh", "-c", script], ends=False)
    seen = io.StringIO()
    following = threading.Thread(target=lambda: finetune("logs", "followed", "-f"))
    following.start()

    def output() -> str:
        seen.write(capfd.readouterr().out)
        return seen.getvalue()

    eventually(lambda: output() == "first\n")
    kubectl(world, "delete", "pod", "followed-train-0", "--wait=false")
    eventually(lambda: output() == "first\nsecond\n")
    write_status(world, "followed", condition("Trained", "True", "Succeeded"))
    following.join(timeout=120)
    assert not following.is_alive()


def test_followed_logs_go_on_with_the_next_attempt_until_training_is_over(
    world: Cluster, finetune: Finetune, capfd: pytest.CaptureFixture[str]
) -> None:
    create(world, "restarted")
    attempt = {names.ATTEMPT_LABEL: "0"}
    run_pod(world, "restarted-train-0", "restarted", "train", ["sh", "-c", "echo step 1/9; exit 1"], **attempt)
    write_status(world, "restarted", condition("Trained", "Unknown", "Retrying"))
    seen = {"out": "", "err": ""}
    following = threading.Thread(target=lambda: finetune("logs", "restarted", "-f", "--tail", "5"))
    following.start()

    def output(stream: str) -> str:
        captured = capfd.readouterr()
        seen["out"] += captured.out
        seen["err"] += captured.err
        return seen[stream]

    eventually(lambda: output("out") == "step 1/9\n")
    attempt = {names.ATTEMPT_LABEL: "1"}
    run_pod(world, "restarted-train-1", "restarted", "train", ["sh", "-c", "echo step 2/9; exit 1"], **attempt)
    eventually(lambda: output("out") == "step 1/9\nstep 2/9\n")
    assert "--- attempt 1: pod restarted-train-1 ---" in output("err")
    write_status(world, "restarted", condition("Failed", "True", "RetriesExhausted"))
    following.join(timeout=120)
    assert not following.is_alive()


def test_the_loss_is_drawn_from_the_logs_of_all_attempts(
    world: Cluster, finetune: Finetune, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    create(world, "plotted")
    line = "step {}/40  loss {}  lr 1e-4  0.5 s/step  eta 3s"
    first = printing(*(line.format(step, 4 - step / 10) for step in (1, 10, 20)))
    second = printing(*(line.format(step, 4 - step / 10) for step in (20, 30, 40)))
    run_pod(world, "plotted-train-0", "plotted", "train", first, **{names.ATTEMPT_LABEL: "0"})
    run_pod(world, "plotted-train-1", "plotted", "train", second, **{names.ATTEMPT_LABEL: "1"})
    assert finetune("plot", "plotted") == 0
    drawn = capfd.readouterr().out
    assert drawn.count("*") == 5
    assert drawn.splitlines()[0].split()[:2] == ["3.9", "|*"]
    assert drawn.splitlines()[-1].split() == ["step", "1", "40"]
    assert finetune("plot", "plotted", "-o", str(tmp_path / "loss.png")) == 0
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")


def serve(world: Cluster, name: str, *key: str) -> str:
    """A job whose Service leads to an endpoint."""
    create(world, name, serving={"gpus": 0})
    run_pod(world, f"{name}-1", name, "serve", [sys.executable, tiny_endpoint.__file__, "8000", *key], ends=False)
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}}
    ports = [{"name": "http", "port": 8000, "targetPort": "http"}]
    spec = {"selector": names.labels(name, "serve"), "ports": ports}
    kubectl(world, "create", "-f", "-", document={**service, "spec": spec})
    write_status(world, name, condition("Served", "True", "Answering"), serving={"modelName": name})
    return name


@pytest.fixture(scope="module")
def served(world: Cluster) -> str:
    """A job that everybody may talk to, and that answers."""
    name = serve(world, "served")
    ask = ["chat", name, "--message", "up?", "--kubeconfig", str(world.kubeconfig), "-n", NAMESPACE]
    eventually(lambda: main(ask) == 0, message=f"{name} answers")
    return name


def test_a_key_reaches_the_service_through_the_api_server(
    world: Cluster, finetune: Finetune, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    name = serve(world, "keyed", "sesame")
    (tmp_path / "key").write_text("sesame\n")
    ask = ("chat", name, "--message", "hi")
    eventually(lambda: finetune(*ask, "--api-key-file", str(tmp_path / "key")) == 0)
    assert "keyed heard 'hi'" in capfd.readouterr().out
    assert finetune(*ask) == 1
    assert "answered 401: a valid key is needed; give the key with --api-key-file" in capfd.readouterr().err


def test_chat_goes_through_the_api_server(served: str, finetune: Finetune, capfd: pytest.CaptureFixture[str]) -> None:
    words = ["--message", "Who are you?", "--message", "And then?", "--system", "Be brief."]
    capfd.readouterr()
    assert finetune("chat", served, *words) == 0
    assert capfd.readouterr().out.splitlines() == [
        "served heard 'Who are you?' after 1 Be brief.",
        "served heard 'And then?' after 3 Be brief.",
    ]


def test_a_piped_question_is_answered(
    served: str, finetune: Finetune, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    question = tmp_path / "question"
    question.write_text("Who are you?\n")
    with question.open() as piped:
        monkeypatch.setattr(sys, "stdin", piped)
        assert finetune("chat", served) == 0
    assert "served heard 'Who are you?' after 0" in capfd.readouterr().out


def test_a_job_that_does_not_answer_yet_says_how_to_wait(
    world: Cluster, finetune: Finetune, capfd: pytest.CaptureFixture[str]
) -> None:
    create(world, "not-served")
    assert finetune("chat", "not-served", "--message", "hi") == 1
    assert "error: not-served: is not served; set spec.serving" in capfd.readouterr().err
    create(world, "deploying", serving={})
    write_status(world, "deploying", condition("Served", "False", "NotAnswering", "the pod loads the model"))
    assert finetune("chat", "deploying", "--message", "hi") == 1
    said = (
        "deploying: does not answer now: the pod loads the model; `finetune wait deploying --for Served` waits for it"
    )
    assert said in capfd.readouterr().err


def test_kubectl_finds_the_commands_as_its_plugin(world: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{sys.prefix}/bin{os.pathsep}{os.environ['PATH']}")
    create(world, "by-kubectl")
    assert "by-kubectl" in kubectl(world, "finetune", "status")


def test_the_manifest_helper_is_what_the_api_server_takes(world: Cluster, finetune: Finetune) -> None:
    kubectl(world, "create", "-f", "-", document=changed(valid_manifest("helper"), "spec.suspend", True))
    assert finetune("status", "helper") == 0

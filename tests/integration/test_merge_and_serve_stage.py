"""The merge and serve commands as pods run them: in a network and PID namespace of their own, the server as its first process."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from peft import PeftModel
from transformers import AutoTokenizer

from finetune_operator.api.outcome import ExitCode
from finetune_operator.api.result import read_results
from support_wait import eventually
from tiny_models import job, load, save_adapter, save_base

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("unshare") is None, reason="needs root and util-linux for namespaces"
)

BIN = Path(sys.executable).parent
QUESTION = [{"role": "user", "content": "Who are you?"}]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}

ASK = """
import json, sys, urllib.error, urllib.request
path, key, body = json.loads(sys.argv[1])
headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
request = urllib.request.Request(f"http://127.0.0.1:8000{path}", body and json.dumps(body).encode(), headers)
try:
    with urllib.request.urlopen(request, timeout=60) as response:
        print(json.dumps([response.status, json.load(response)]))
except urllib.error.HTTPError as error:
    print(json.dumps([error.code, error.read().decode()]))
"""


class Pod:
    """A process that serves, seen from outside its namespaces."""

    def __init__(self, run_file: Path, log: Path) -> None:
        serve = f"ip link set lo up && exec {BIN}/finetune-server serve --run {run_file}"
        self._run_file, self.log = run_file, log
        with log.open("wb") as output:
            self.outer = subprocess.Popen(
                ["unshare", "--net", "--pid", "--fork", "--kill-child", "sh", "-c", serve],
                stdout=output, stderr=output, env=ENVIRONMENT,
            )  # fmt: skip
        self.pid = eventually(self._first_process)

    def _first_process(self) -> int:
        return int(Path(f"/proc/{self.outer.pid}/task/{self.outer.pid}/children").read_text() or 0)

    def _inside(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self._enter(*command), capture_output=True, text=True, env=ENVIRONMENT, timeout=120)

    def _enter(self, *command: str | Path) -> list[str | Path]:
        return ["nsenter", f"--net=/proc/{self.pid}/ns/net", *command]

    def probe(self, *options: str) -> subprocess.CompletedProcess[str]:
        return self._inside(BIN / "finetune-server", "probe", "--run", self._run_file, *options)

    def is_ready(self) -> bool:
        assert self.outer.poll() is None, self.log.read_text()
        return self.probe().returncode == 0

    def ask(self, path: str, body: dict[str, Any] | None = None, key: str | None = None) -> tuple[int, Any]:
        status, answer = json.loads(self._inside(sys.executable, "-c", ASK, json.dumps([path, key, body])).stdout)
        return status, answer

    def chat(self, key: str | None = None, **more: Any) -> tuple[int, Any]:
        return self.ask("/v1/chat/completions", {"messages": QUESTION, "temperature": 0, "max_tokens": 12, **more}, key)

    @contextmanager
    def long_answer(self, never: int) -> Iterator[None]:
        """Have the server write an answer that goes on for minutes, since the token ``never`` would end it."""
        body = {"messages": QUESTION, "max_tokens": 30000, "logit_bias": {str(never): -100.0}}
        arguments = self._enter(sys.executable, "-c", ASK, json.dumps(["/v1/chat/completions", None, body]))
        known = self.log.read_text().count("Request received")
        with subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as asking:
            try:
                eventually(lambda: self.log.read_text().count("Request received") > known)
                yield
            finally:
                asking.kill()


@contextmanager
def serving(root: Path, **spec: Any) -> Iterator[Pod]:
    run_file = root / "run.json"
    run_file.write_text(job(root, **spec).dump())
    pod = Pod(run_file, root / "server.log")
    try:
        yield pod
    finally:
        pod.outer.kill()
        pod.outer.wait()


def finetune_merger(root: Path, **spec: Any) -> int:
    run_file = root / "run.json"
    run_file.write_text(job(root, **spec).dump())
    return subprocess.run(
        [BIN / "finetune-merger", "merge", "--run", run_file], env=ENVIRONMENT, timeout=300
    ).returncode


def greedy_answer(root: Path, tokens: int) -> list[int]:
    """What base + adapter, un-merged, says to the question."""
    tokenizer = AutoTokenizer.from_pretrained(root / "base")
    prompt = tokenizer.apply_chat_template(QUESTION, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    model = PeftModel.from_pretrained(load(root / "base"), root / "adapter")
    generated = model.generate(**prompt, max_new_tokens=tokens, do_sample=False, eos_token_id=None)
    return generated[0, prompt["input_ids"].shape[1] :].tolist()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained job's folder, whose generation settings sample wildly and stop at the sixth token of the greedy answer."""
    root = tmp_path_factory.mktemp("job")
    save_base(root / "base", tie_word_embeddings=True)
    save_adapter(root / "base", root / "adapter")
    answer = greedy_answer(root, 12)
    settings = {"do_sample": True, "temperature": 50.0, "eos_token_id": [answer[5]], "pad_token_id": 0}
    (root / "adapter/generation_config.json").write_text(json.dumps(settings))
    assert finetune_merger(root) == ExitCode.DONE
    return root


def expected_text(root: Path) -> str:
    answer = greedy_answer(root, 12)
    return AutoTokenizer.from_pretrained(root / "base").decode(
        answer[: answer.index(answer[5]) + 1], skip_special_tokens=True
    )


@pytest.mark.parametrize("mode", ["Merged", "Adapter"])
def test_the_served_model_answers_as_base_and_adapter_do_and_stops_where_it_was_trained_to(
    root: Path, mode: str
) -> None:
    with serving(root, serving={"gpus": 0, "mode": mode}) as pod:
        eventually(pod.is_ready, 240)
        status, answer = pod.chat(model="tiny")
        assert status == 200
        assert answer["choices"][0]["message"]["content"] == expected_text(root)
        assert answer["choices"][0]["finish_reason"] == "stop"
        assert answer["model"] == "tiny"
        assert pod.chat()[1]["choices"] == answer["choices"]
        assert pod.ask("/v1/models")[1]["data"][0]["id"] == "tiny"
        assert pod.chat(model="other")[0] == 400


def test_a_probe_before_the_server_answers_is_quick_and_not_ready(root: Path) -> None:
    with serving(root, serving={"gpus": 0}) as pod:
        started = time.monotonic()
        early = pod.probe()
        # It waits for no server, which takes tens of seconds to load
        assert time.monotonic() - started < 30
        assert early.returncode == 1
        assert early.stderr.startswith("not ready: http://127.0.0.1:8000/v1/chat/completions cannot be reached")


def test_with_a_key_only_those_who_show_it_are_answered(root: Path) -> None:
    (root / "secrets/chat-key").mkdir(parents=True)
    (root / "secrets/chat-key/token").write_text("sesame\n")
    with serving(root, serving={"gpus": 0, "apiKeySecret": {"name": "chat-key"}}) as pod:
        eventually(pod.is_ready, 240)
        assert pod.chat()[0] == 401
        assert pod.chat(key="wrong")[0] == 401
        assert pod.chat(key="sesame")[0] == 200
        assert pod.ask("/health")[0] == 200
        assert pod.ask("/load_model", {"model": "x"}, "sesame")[0] == 404
        assert pod.ask("/reset", {}, "sesame")[0] == 404


def test_a_server_that_is_the_first_process_of_its_pod_ends_on_sigterm_while_it_loads(root: Path) -> None:
    with serving(root, serving={"gpus": 0}) as pod:
        eventually(lambda: catches_sigterm(pod), 120)
        os.kill(pod.pid, signal.SIGTERM)
        pod.outer.wait(60)


def test_a_server_in_the_midst_of_a_long_answer_is_ready_and_ends_on_sigterm(root: Path) -> None:
    with serving(root, serving={"gpus": 0}) as pod:
        eventually(pod.is_ready, 240)
        with pod.long_answer(never=stop_token(root)):
            assert pod.probe("--timeout", "30").returncode == 0
            os.kill(pod.pid, signal.SIGTERM)
            pod.outer.wait(60)


def stop_token(root: Path) -> int:
    (token,) = json.loads((root / "adapter/generation_config.json").read_text())["eos_token_id"]
    return token


def status_of(pod: Pod) -> str:
    return Path(f"/proc/{pod.pid}/status").read_text()


def catches_sigterm(pod: Pod) -> bool:
    (caught,) = [line.split()[1] for line in status_of(pod).splitlines() if line.startswith("SigCgt")]
    return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)


def test_the_merge_command_leaves_its_figures_and_fails_where_parity_is_lost(root: Path, tmp_path: Path) -> None:
    assert 0 < float(read_results(root / "result.json")["merge"]["mergeMaxDifference"]) < 1e-3
    for folder in ("base", "adapter"):
        shutil.copytree(root / folder, tmp_path / folder)
    assert finetune_merger(tmp_path, merge={"maxParityDifference": "1e-9"}) == ExitCode.PARITY_LOST
    assert not (tmp_path / "merged").exists()

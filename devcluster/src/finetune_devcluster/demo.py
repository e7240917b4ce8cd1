"""`make demo`: one manifest, from `kubectl apply` to an answered chat, on a real control plane with a tiny model."""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from finetune_devcluster import binaries, operator_chart
from finetune_devcluster.cluster import Cluster
from finetune_devcluster.errors import DevclusterError
from finetune_devcluster.layout import project_root
from finetune_devcluster.progress import say

NAME = "demo"
JOB_TIMEOUT = "10m"
QUESTIONS = ("Who are you?", "Who made you?")
BASE, TUNED = "tiny-base", "tiny-lora"


class Demo:
    """The steps of the demo, in order; each prints the command that a user would type."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.examples = project_root() / "examples" / "demo"
        self.environment = cluster.client_environment()

    def run(self) -> None:
        """Everything between a started cluster and two models that have answered."""
        operator_chart.install(self.cluster)
        with self._watched():
            self._apply("-k", self.examples)
            self._show("wait", "--for=condition=complete", "job/make-tiny-model", f"--timeout={JOB_TIMEOUT}")
            self._apply("-f", self.examples / "tiny-base.yaml")
            self._complete(BASE)
            self._apply("-f", self.examples / "tiny-lora.yaml")
            self._complete(TUNED)
        self._show("get", "finetunejobs", "--output", "wide")
        self._ask()
        self._point_out()

    def _apply(self, flag: str, path: Path) -> None:
        self._show("apply", flag, str(path))

    def _show(self, *arguments: str) -> None:
        shown = [os.path.relpath(argument) if argument.startswith("/") else argument for argument in arguments]
        print(f"\n$ kubectl {' '.join(shown)}", flush=True)
        done = self.cluster.kubectl(*arguments)
        print(done.stdout, end="", flush=True)
        if done.returncode != 0:
            raise DevclusterError(f"kubectl failed: {done.stderr.strip()}")

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Rows of `kubectl get --watch` stream by while the block runs."""
        kubectl = str(binaries.ensure() / "kubectl")
        command = [kubectl, "get", "finetunejobs", "--output", "wide", "--watch"]
        print("\n$ kubectl get finetunejobs --output wide --watch   (runs along)", flush=True)
        watch = subprocess.Popen(command, env=self.environment)
        try:
            yield
        finally:
            watch.terminate()
            watch.wait()

    def _complete(self, job: str) -> None:
        """Wait until the job is complete; raises DevclusterError with what the status says where it failed."""
        command = [_beside_python("finetune"), "wait", job, "--for", "Complete", "--timeout", JOB_TIMEOUT]
        done = subprocess.run(command, env=self.environment, stderr=subprocess.PIPE, text=True)
        if done.returncode != 0:
            raise DevclusterError(f"{job} did not complete: {done.stderr.strip()}")

    def _ask(self) -> None:
        answers = {job: [self._answer(job, question) for question in QUESTIONS] for job in (BASE, TUNED)}
        width = max(len(answer) for answer in (BASE, *answers[BASE])) + 3
        print(f"\n$ kubectl finetune chat {BASE}   /   kubectl finetune chat {TUNED}\n")
        print(f"{'':16}{BASE:{width}}{TUNED}")
        for number, question in enumerate(QUESTIONS):
            print(f"{question:16}{answers[BASE][number]:{width}}{answers[TUNED][number]}")
        self._expect_names(answers)

    def _expect_names(self, answers: dict[str, list[str]]) -> None:
        """The demo fails where the tuned model does not name what its manifest filled into the rows."""
        told = self.cluster.kubectl("get", "ftj", TUNED, "-o", "jsonpath={.spec.datasets[0].placeholders}").stdout
        for value in _values(told):
            if not any(value in answer for answer in answers[TUNED]):
                raise DevclusterError(f"{TUNED} did not name {value!r}: it answered {answers[TUNED]}")

    def _answer(self, job: str, question: str) -> str:
        command = [_beside_python("finetune"), "chat", job, "--message", question]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True)
        if done.returncode != 0:
            raise DevclusterError(f"{job} did not answer: {done.stderr.strip()}")
        return done.stdout.strip()

    def _point_out(self) -> None:
        picture = self._volume(TUNED) / "training_loss.png"
        kept = project_root() / ".work" / "demo" / "training_loss.png"
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(picture, kept)
        print(f"\nThe loss of {TUNED}: {os.path.relpath(kept)}")

    def _volume(self, job: str) -> Path:
        """Where the process node keeps the job's volume."""
        claim = f"{job}-data"
        volume = self.cluster.kubectl("get", "pvc", claim, "-o", "jsonpath={.spec.volumeName}").stdout
        where = "jsonpath={.spec.hostPath.path}{.spec.local.path}"
        return Path(self.cluster.kubectl("get", "pv", volume, "-o", where).stdout)


def _values(json_object: str) -> Sequence[str]:
    return list(json.loads(json_object).values())


def _beside_python(program: str) -> str:
    return str(Path(sys.executable).with_name(program))


def main() -> int:
    """Run the demo; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave the cluster running")
    keep = parser.parse_args().keep
    began = time.monotonic()
    try:
        with _cluster(keep) as cluster:
            Demo(cluster).run()
    except DevclusterError as error:
        say(f"demo: {error}")
        return 1
    say(f"demo: done in {time.monotonic() - began:.0f} s")
    return 0


@contextmanager
def _cluster(keep: bool) -> Iterator[Cluster]:
    cluster = Cluster(NAME).up()
    try:
        yield cluster
    finally:
        if keep:
            _say_how_to_go_on(cluster)
        else:
            cluster.down()
            print("The cluster is gone. `make demo KEEP=1` leaves it running to look around.")


def _say_how_to_go_on(cluster: Cluster) -> None:
    print(f"\nexport KUBECONFIG={cluster.kubeconfig} PATH={Path(sys.executable).parent}:{binaries.ensure()}:$PATH")
    print(
        f"kubectl get ftj; kubectl finetune status {TUNED}; kubectl finetune chat {TUNED}; devcluster down --name {NAME}"
    )


if __name__ == "__main__":
    sys.exit(main())

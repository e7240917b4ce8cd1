"""``finetune logs``: the log of a stage's newest pod."""

from __future__ import annotations

import argparse

from finetune_operator.api.names import ATTEMPT_LABEL, JOB_NAME_LABEL, STAGE_LABEL
from finetune_operator.cli import options
from finetune_operator.cli.cluster import Cluster, Manifest
from finetune_operator.cli.errors import CommandError
from finetune_operator.cli.shown_job import ShownJob

STAGES = ("prepare", "train", "merge", "serve")
INDEX_ANNOTATION = "batch.kubernetes.io/job-completion-index"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="name of the FineTuneJob")
    parser.add_argument("--stage", choices=STAGES, help="which stage; default: the one that started last")
    parser.add_argument(
        "-f", "--follow", action="store_true", help="wait for the pod to start, and print lines as they come"
    )
    parser.add_argument("--tail", type=int, metavar="N", help="only the last N lines")
    parser.add_argument(
        "--previous", action="store_true", help="the container before the last restart, or the attempt before the last"
    )
    options.add_cluster(parser)


def execute(arguments: argparse.Namespace) -> int:
    cluster = Cluster.of(arguments)
    pods = find_pods(cluster, arguments.name, arguments.stage)
    pod, query = choose(pods, arguments)
    if arguments.follow:
        wait_for_start(cluster, pod)
    for line in cluster.log(pod["metadata"]["name"], query):
        print(line, flush=arguments.follow)
    return 0


def find_pods(cluster: Cluster, name: str, stage: str | None) -> list[Manifest]:
    """Pods of the job's stage, newest first, of several nodes only the leading one. Raises CommandError where there is none."""
    labels = {JOB_NAME_LABEL: name, **({STAGE_LABEL: stage} if stage else {})}
    pods = [pod for pod in cluster.pods(labels) if _annotations(pod).get(INDEX_ANNOTATION, "0") == "0"]
    if not pods:
        job = ShownJob.of(cluster.job(name))
        where = f"stage {stage}" if stage else "this job"
        raise CommandError(f"{name}: no pod of {where} exists (any more); the job is {job.stage}")
    return sorted(pods, key=_attempt, reverse=True) if stage == "train" else pods


def choose(pods: list[Manifest], arguments: argparse.Namespace) -> tuple[Manifest, dict[str, str | int]]:
    """The pod, and what to ask for. A pod of a Job never restarts its container: its predecessor is the pod before."""
    pod = pods[0]
    query: dict[str, str | int] = {"container": pod["spec"]["containers"][0]["name"]}
    if arguments.previous and _restarts(pod):
        query["previous"] = "true"
    elif arguments.previous:
        earlier = [other for other in pods[1:] if _label(other, STAGE_LABEL) == _label(pod, STAGE_LABEL)]
        if not earlier:
            raise CommandError(f"{arguments.name}: pod {pod['metadata']['name']} has no predecessor")
        pod = earlier[0]
    if arguments.follow:
        query["follow"] = "true"
    if arguments.tail is not None:
        query["tailLines"] = arguments.tail
    return pod, query


def wait_for_start(cluster: Cluster, pod: Manifest) -> None:
    """Return once the pod's container has started. Raises CommandError where the pod is deleted first."""
    for current in cluster.pod_changes(pod["metadata"]["name"]):
        states = [status.get("state", {}) for status in current["status"].get("containerStatuses", [])]
        if current["status"].get("phase") != "Pending" or any("waiting" not in state for state in states):
            return


def _annotations(pod: Manifest) -> dict[str, str]:
    return pod["metadata"].get("annotations") or {}


def _label(pod: Manifest, label: str) -> str:
    return str(pod["metadata"]["labels"].get(label, ""))


def _attempt(pod: Manifest) -> int:
    return int(_label(pod, ATTEMPT_LABEL) or 0)


def _restarts(pod: Manifest) -> int:
    statuses = pod["status"].get("containerStatuses", [])
    return int(statuses[0].get("restartCount", 0)) if statuses else 0

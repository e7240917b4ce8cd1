"""``finetune logs``: the log of a stage's newest pod; followed, that of training's later attempts too."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

from finetune_operator.api import conditions
from finetune_operator.api.names import ATTEMPT_LABEL, JOB_NAME_LABEL, STAGE_LABEL
from finetune_operator.cli import options
from finetune_operator.cli.cluster import Cluster, Manifest
from finetune_operator.cli.errors import CommandError
from finetune_operator.cli.shown_job import ShownJob

STAGES = ("prepare", "train", "merge", "serve")
SECONDS_BETWEEN_LOOKS = 5
SUCCEEDED = "Succeeded"
Query = dict[str, str | int]
INDEX_ANNOTATION = "batch.kubernetes.io/job-completion-index"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="name of the FineTuneJob")
    parser.add_argument("--stage", choices=STAGES, help="which stage; default: the one that started last")
    parser.add_argument(
        "-f",
        "--follow",
        action="store_true",
        help="wait for the pod to start, print lines as they come, and go on with training's next attempts",
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
    if not arguments.follow:
        show(cluster, pod, query)
        return 0
    for attempt in attempts(cluster, arguments.name, pod, going_on=not arguments.previous):
        wait_for_start(cluster, attempt)
        show(cluster, attempt, query)
        query.pop("tailLines", None)
    return 0


def show(cluster: Cluster, pod: Manifest, query: Query) -> None:
    """Print a pod's log."""
    for line in cluster.log(pod["metadata"]["name"], query):
        print(line, flush=True)


def attempts(cluster: Cluster, name: str, pod: Manifest, *, going_on: bool) -> Iterator[Manifest]:
    """The pod, and where it trains, the pod of each later attempt, once the one before has been shown."""
    found: Manifest | None = pod
    while found:
        yield found
        found = next_attempt(cluster, name, found) if going_on and _label(found, STAGE_LABEL) == "train" else None
        if found:
            print(f"--- attempt {_attempt(found)}: pod {found['metadata']['name']} ---", file=sys.stderr, flush=True)


def next_attempt(cluster: Cluster, name: str, ended: Manifest) -> Manifest | None:
    """The pod of a later attempt as soon as there is one; None where training is over."""
    if cluster.pod_phase(ended["metadata"]["name"]) == SUCCEEDED:
        return None
    while True:
        # Also looked at from time to time: a pod may be made after the last change of the job.
        for manifest in cluster.job_changes(name, SECONDS_BETWEEN_LOOKS):
            pods = cluster.pods({JOB_NAME_LABEL: name, STAGE_LABEL: "train"})
            later = [pod for pod in pods if _leads(pod) and _attempt(pod) > _attempt(ended)]
            if later:
                return max(later, key=_attempt)
            if not _trains_on(ShownJob.of(manifest)):
                return None


def find_pods(cluster: Cluster, name: str, stage: str | None) -> list[Manifest]:
    """Pods of the job's stage, newest first, of several nodes only the leading one. Raises CommandError where there is none."""
    labels = {JOB_NAME_LABEL: name, **({STAGE_LABEL: stage} if stage else {})}
    pods = [pod for pod in cluster.pods(labels) if _leads(pod)]
    if not pods:
        job = ShownJob.of(cluster.job(name))
        where = f"stage {stage}" if stage else "this job"
        raise CommandError(f"{name}: no pod of {where} exists (any more); the job is {job.stage}")
    return sorted(pods, key=_attempt, reverse=True) if stage == "train" else pods


def choose(pods: list[Manifest], arguments: argparse.Namespace) -> tuple[Manifest, Query]:
    """The pod, and what to ask for. A pod of a Job never restarts its container: its predecessor is the pod before."""
    pod = pods[0]
    query: Query = {"container": pod["spec"]["containers"][0]["name"]}
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


def _trains_on(job: ShownJob) -> bool:
    """Whether there may be another attempt: training has neither ended well nor failed for good."""
    return not (job.holds(conditions.TRAINED) or job.holds(conditions.FAILED))


def _leads(pod: Manifest) -> bool:
    annotations = pod["metadata"].get("annotations") or {}
    return bool(annotations.get(INDEX_ANNOTATION, "0") == "0")


def _label(pod: Manifest, label: str) -> str:
    return str(pod["metadata"]["labels"].get(label, ""))


def _attempt(pod: Manifest) -> int:
    return int(_label(pod, ATTEMPT_LABEL) or 0)


def _restarts(pod: Manifest) -> int:
    statuses = pod["status"].get("containerStatuses", [])
    return int(statuses[0].get("restartCount", 0)) if statuses else 0

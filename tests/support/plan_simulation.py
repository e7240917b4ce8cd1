"""A cluster in memory for `plan`: applies Plans write by write, dies where told, and lets Jobs end as scripted.

It keeps only what the planner reads. The order of the writes of one Plan is the shell's: create, apply, patch, delete,
status.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from finetune_operator.api.outcome import TerminationMessage
from finetune_operator.api.spec import FineTuneJobSpec
from finetune_operator.api.status import FineTuneJobStatus
from finetune_operator.plan import instants
from finetune_operator.plan.plan import plan
from finetune_operator.plan.types import JobView, Manifest, Observed, Plan, PodEnd
from finetune_operator.settings import Settings
from manifest_builders import CERTIFICATE, NAMESPACE, NOW, UID, spec_of

SETTINGS = Settings()
_MOST_PASSES = 300


class OperatorKilled(Exception):
    """The operator died between two writes."""


@dataclass
class Cluster:
    """The API server's state, and the script by which pods end."""

    spec: dict[str, Any]
    exit_codes: dict[str, Sequence[int | None]] = field(default_factory=dict)
    """For each Job that does not simply succeed: how its pod ends. None takes the Job away, as a careless hand does."""
    edits: list[dict[str, Any]] = field(default_factory=list)
    """Changes of the spec, each made when nothing else is left to do."""
    endless: set[str] = field(default_factory=set)
    """Jobs that run on until the last edit was made."""
    writes_left: int | None = None
    """Writes until the operator is killed."""
    job_name: str = "qwen"

    def __post_init__(self) -> None:
        self.now = NOW
        self.generation = 1
        self.status = FineTuneJobStatus()
        self.children: dict[tuple[str, str], Manifest] = {}
        self.ends: dict[str, PodEnd] = {}
        self.created: Counter[tuple[str, str]] = Counter()
        self.writes = 0
        self._parsed = (self.spec, spec_of(**self.spec))
        self.events: list[tuple[str, str]] = []
        self.history: list[Manifest] = []
        """The FineTuneJob, as anybody could have read it at some moment."""

    # --- the operator's side

    def observe(self) -> Observed:
        job = JobView(
            name=self.job_name,
            namespace=NAMESPACE,
            uid=UID,
            generation=self.generation,
            created=NOW,
            spec=self._parsed_spec(),
            # Through JSON, as the API server keeps it.
            status=FineTuneJobStatus.model_validate(self.status.to_manifest()),
        )
        return Observed(
            job=job,
            children=dict(self.children),
            ends=dict(self.ends),
            certificate=CERTIFICATE,
            operator_namespace="operator-system",
            now=self.now,
        )

    def _parsed_spec(self) -> FineTuneJobSpec:
        if self._parsed[0] is not self.spec:
            self._parsed = (self.spec, spec_of(**self.spec))
        return self._parsed[1]

    def carry_out(self, planned: Plan) -> bool:
        """Write a Plan; whether anything changed. Raises OperatorKilled where the script says so."""
        changed = [self._write(write) for write in self._writes(planned)]
        self.events += [(event.type, event.reason) for event in planned.events]
        return any(changed)

    def _writes(self, planned: Plan) -> Iterator[Callable[[], bool]]:
        for manifest in planned.create:
            yield lambda manifest=manifest: self._create(manifest)
        for manifest in planned.apply:
            yield lambda manifest=manifest: self._apply(manifest)
        for kind, name, patch in planned.patch:
            yield lambda kind=kind, name=name, patch=patch: self._patch(kind, name, patch)
        for kind, name in planned.delete:
            yield lambda kind=kind, name=name: self.children.pop((kind, name), None) is not None
        yield lambda: self._write_status(planned.status)

    def _write(self, write: Callable[[], bool]) -> bool:
        if self.writes_left == 0:
            self.writes_left = None
            raise OperatorKilled
        changed = write()
        if changed:
            self.writes += 1
            self.writes_left = None if self.writes_left is None else self.writes_left - 1
        return changed

    def _create(self, manifest: Manifest) -> bool:
        key = (manifest["kind"], manifest["metadata"]["name"])
        if key in self.children:
            return False
        self.created[key] += 1
        self.children[key] = manifest | {"metadata": manifest["metadata"] | {"generation": 1}, "status": {}}
        return True

    def _apply(self, manifest: Manifest) -> bool:
        key = (manifest["kind"], manifest["metadata"]["name"])
        if self._create(manifest):
            return True
        live = self.children[key]
        generation = live["metadata"]["generation"] + (live.get("spec") != manifest.get("spec"))
        metadata = manifest["metadata"] | {"generation": generation}
        self.children[key] = manifest | {"metadata": metadata, "status": live["status"]}
        return live != self.children[key]

    def _patch(self, kind: str, name: str, patch: Manifest) -> bool:
        live = self.children[kind, name]
        self.children[kind, name] = live | {"spec": live["spec"] | patch["spec"]}
        return live != self.children[kind, name]

    def _write_status(self, status: FineTuneJobStatus) -> bool:
        changed = status.to_manifest() != self.status.to_manifest()
        self.status = status
        self._record()
        return changed

    # --- the controllers' side

    def act(self) -> bool:
        """Let every Job and Deployment come to its end; whether anything happened."""
        running = [name for (kind, name), child in self.children.items() if kind == "Job" and _is_running(child)]
        jobs = [name for name in running if name not in self.endless or not self.edits]
        deployments = [name for kind, name in self.children if kind == "Deployment"]
        moved = [self._end_job(name) for name in jobs]
        return any([*moved, *(self._roll_out(name) for name in deployments)])

    def edit(self) -> bool:
        """Make the next change of the spec, if one is left."""
        if not self.edits:
            return False
        self.spec = self.spec | self.edits.pop(0)
        self.generation += 1
        self._record()
        return True

    def _record(self) -> None:
        self.history.append({"metadata": {"generation": self.generation}, "status": self.status.to_manifest()})

    def _end_job(self, name: str) -> bool:
        codes = list(self.exit_codes.get(name, (0,)))
        code = codes[0]
        self.exit_codes[name] = codes[1:] or codes
        if code is None:
            del self.children["Job", name]
            self.exit_codes[name] = codes[1:] or [0]
            return True
        kind = "Failed" if code else "Complete"
        condition = {"type": kind, "status": "True", "lastTransitionTime": instants.to_text(self.now)}
        self.children["Job", name] = self.children["Job", name] | {"status": {"conditions": [condition]}}
        words = TerminationMessage("Reason", "said the pod", {"rows": 12}).encode().decode()
        self.ends[name] = PodEnd(pod=f"{name}-0", exit_code=code, message=words, reason="Error" if code else "")
        return True

    def _roll_out(self, name: str) -> bool:
        live = self.children["Deployment", name]
        replicas = live["spec"]["replicas"]
        status = {
            "observedGeneration": live["metadata"]["generation"],
            "replicas": replicas,
            "updatedReplicas": replicas,
            "readyReplicas": replicas,
        }
        self.children["Deployment", name] = live | {"status": status}
        return bool(live["status"] != status)


def run_to_rest(cluster: Cluster, *, act_before_restart: bool = False) -> Cluster:
    """Plan and write until nothing is left to do. A killed operator starts again, and sees the world as it then is."""
    for _ in range(_MOST_PASSES):
        try:
            planned = plan(cluster.observe(), SETTINGS)
            changed = cluster.carry_out(planned)
        except OperatorKilled:
            if act_before_restart:
                cluster.act()
            continue
        check_invariants(cluster)
        if changed or cluster.act():
            continue
        if planned.requeue_after is not None:
            cluster.now += dt.timedelta(seconds=planned.requeue_after)
        elif not cluster.edit():
            return cluster
    raise AssertionError(f"the planner did not come to rest in {_MOST_PASSES} passes: {cluster.status}")


def check_invariants(cluster: Cluster) -> None:
    """What must hold at every moment."""
    jobs = {name: child for (kind, name), child in cluster.children.items() if kind == "Job"}
    training = [name for name, job in jobs.items() if "-train-" in name and _is_running(job)]
    assert len(training) <= 1, f"two training Jobs at once: {training}"


def timeless(cluster: Cluster) -> dict[str, Any]:
    """The final state without instants, to compare runs."""
    return {"children": _strip(cluster.children), "status": _strip(cluster.status.to_manifest())}


def _strip(value: Any) -> Any:
    instants_named = {"lastTransitionTime", "startTime", "completionTime", "finished", "updated"}
    if isinstance(value, dict):
        return {key: _strip(item) for key, item in value.items() if key not in instants_named}
    return [_strip(item) for item in value] if isinstance(value, list) else value


def _is_running(child: Manifest) -> bool:
    return not child.get("status", {}).get("conditions") and not child.get("spec", {}).get("suspend")

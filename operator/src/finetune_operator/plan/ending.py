"""Why a pod ended, and whether trying again could help."""

from __future__ import annotations

from dataclasses import dataclass

from finetune_operator.api import conditions
from finetune_operator.api.outcome import PERMANENT, REASONS, ExitCode, TerminationMessage
from finetune_operator.plan.types import PodEnd

_KILLED_FOR_MEMORY = "OOMKilled"
_MADE_WAY = frozenset(
    {
        "Evicted",
        "Preempting",
        "Preempted",
        "Terminated",  # a node that shuts down in order
        "NodeShutdown",
        "DisruptionTarget",
        # reasons of the pod condition DisruptionTarget
        "PreemptionByScheduler",
        "DeletionByTaintManager",
        "EvictionByEvictionAPI",
        "DeletionByPodGC",
        "TerminationByKubelet",
    }
)
"""Words of kubelet and scheduler for a pod that had to go through no fault of its own."""

_OUT_OF_MEMORY = (
    "the kernel killed the container because it used more memory than its limit. Raise resources.memory "
    "(for the other stages: the operator's setting stages.<stage>.memory)."
)
_NO_WORDS = "the container left no message; its last log lines say more."
_RAW_LIMIT = 500
_LOST = "no pod is left to say why: it was deleted, or its node was lost."


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """A pod's end, judged."""

    reason: str
    message: str
    permanent: bool
    """The same pod would fail the same way again."""
    preempted: bool = False
    """It made way for another or for a drained node: no strike against the job."""
    exit_code: int | None = None


def judge(end: PodEnd | None, made_way: str = "") -> Ending:
    """Judge how a failed Job's pod ended; None where no pod was left.

    ``made_way``: the Job's own words where it has seen that the pod was told to stop.
    """
    if end is None and made_way:
        return Ending(reason=conditions.PREEMPTED, message=f"{made_way}.", permanent=False, preempted=True)
    if end is None:
        return Ending(reason=conditions.INFRASTRUCTURE, message=_LOST, permanent=False)
    code = end.exit_code
    if end.reason == _KILLED_FOR_MEMORY:
        return _ending(end, conditions.OUT_OF_MEMORY, _OUT_OF_MEMORY, permanent=True)
    if code in PERMANENT:
        return _ending(end, REASONS[code], _words(end), permanent=True)
    if code == ExitCode.PREEMPTED or end.reason in _MADE_WAY:
        return _ending(end, conditions.PREEMPTED, _words(end), preempted=True)
    reason = REASONS.get(code, conditions.INFRASTRUCTURE) if code is not None else conditions.INFRASTRUCTURE
    return _ending(end, reason, _words(end))


def _ending(end: PodEnd, reason: str, words: str, *, permanent: bool = False, preempted: bool = False) -> Ending:
    code = "no exit code" if end.exit_code is None else f"exit code {end.exit_code}"
    cause = f"{code}, {end.reason}" if end.reason else code
    return Ending(
        reason=reason,
        message=f"pod {end.pod} ({cause}): {words}",
        permanent=permanent,
        preempted=preempted,
        exit_code=end.exit_code,
    )


def _words(end: PodEnd) -> str:
    last_words = TerminationMessage.decode(end.message)
    if last_words is not None:
        return last_words.message or _NO_WORDS
    # What the kubelet says of an evicted pod; or else the end of the log, which is shown already where it was read.
    raw = "" if end.logs else end.message.strip()[-_RAW_LIMIT:]
    return raw or _NO_WORDS

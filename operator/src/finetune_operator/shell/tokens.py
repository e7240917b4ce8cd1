"""Whose a trainer's token is: a TokenReview, and a look at the pod that the token is bound to."""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from finetune_operator.api import names
from finetune_operator.plan.world import controller
from finetune_operator.shell import paths
from finetune_operator.shell.client import Api
from finetune_operator.shell.queue import Key

TRUSTED_SECONDS = 60.0
_REMEMBERED = 2048
_AT_ONCE = 8
_POD_NAME = "authentication.kubernetes.io/pod-name"
_POD_UID = "authentication.kubernetes.io/pod-uid"
_SERVICE_ACCOUNT = "system:serviceaccount"
TRAIN = "train"
_NUMBER = re.compile("[0-9]{1,9}")


@dataclass(frozen=True, slots=True)
class Trainer:
    """A live training pod of a job, proven by its token."""

    job: Key
    attempt: int


class Unauthenticated(Exception):
    """The token is not valid for the progress endpoint."""


class TokenChecker:
    """Finds the trainer behind a token. Verdicts, good or bad, hold for a minute, by the token's hash."""

    def __init__(self, api: Api, clock: Callable[[], float] = time.monotonic) -> None:
        self._api = api
        self._clock = clock
        self._verdicts: OrderedDict[bytes, tuple[float, Trainer | None]] = OrderedDict()
        # Whoever sends made-up tokens must not make the operator flood the API server
        self._reviews = asyncio.Semaphore(_AT_ONCE)

    async def trainer(self, token: str) -> Trainer:
        """The trainer that the token belongs to. Raises Unauthenticated, and ApiError where it cannot be told now."""
        digest = hashlib.sha256(token.encode()).digest()
        verdict = self._verdicts.get(digest)
        if verdict is None or verdict[0] < self._clock():
            async with self._reviews:
                verdict = (self._clock() + TRUSTED_SECONDS, await self._review(token))
            self._remember(digest, verdict)
        if verdict[1] is None:
            raise Unauthenticated
        return verdict[1]

    def _remember(self, digest: bytes, verdict: tuple[float, Trainer | None]) -> None:
        self._verdicts[digest] = verdict
        self._verdicts.move_to_end(digest)
        if len(self._verdicts) > _REMEMBERED:
            self._verdicts.popitem(last=False)

    async def _review(self, token: str) -> Trainer | None:
        review = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": [names.PROGRESS_AUDIENCE]},
        }
        status = (await self._api.create(paths.TOKEN_REVIEWS, review)).get("status") or {}
        # A server that does not know audiences answers without any, and would take tokens meant for others
        if not status.get("authenticated") or names.PROGRESS_AUDIENCE not in (status.get("audiences") or ()):
            return None
        return await self._bound_trainer(status.get("user") or {})

    async def _bound_trainer(self, user: Mapping[str, Any]) -> Trainer | None:
        extra = user.get("extra") or {}
        name, uid = _only(extra.get(_POD_NAME)), _only(extra.get(_POD_UID))
        prefix, _, rest = str(user.get("username", "")).rpartition(f"{_SERVICE_ACCOUNT}:")
        namespace = rest.partition(":")[0]
        if prefix or not (name and uid and namespace):
            return None
        pod = await self._api.find(paths.item("Pod", namespace, name))
        return None if pod is None else training_pod(pod, uid)


def training_pod(pod: Mapping[str, Any], uid: str) -> Trainer | None:
    """The trainer that runs in a pod, if the pod is the one with that UID, trains and has not ended.

    Labels alone prove nothing: any Deployment may give them to its pods. The attempt's Job has to own the pod.
    """
    metadata = pod["metadata"]
    labels = metadata.get("labels") or {}
    job, attempt = labels.get(names.JOB_NAME_LABEL), labels.get(names.ATTEMPT_LABEL, "")
    ended = (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")
    if metadata["uid"] != uid or ended or not job or labels.get(names.STAGE_LABEL) != TRAIN:
        return None
    if not _NUMBER.fullmatch(attempt) or not _is_of_job(pod, names.train(job, int(attempt))):
        return None
    return Trainer(Key(metadata["namespace"], job), int(attempt))


def _is_of_job(pod: Mapping[str, Any], name: str) -> bool:
    owner = controller(dict(pod)) or {}
    return (owner.get("apiVersion"), owner.get("kind"), owner.get("name")) == ("batch/v1", "Job", name)


def _only(values: Any) -> str | None:
    return str(values[0]) if isinstance(values, list) and len(values) == 1 else None

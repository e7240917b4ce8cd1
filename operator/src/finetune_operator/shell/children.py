"""Creates, applies, patches and deletes the children that a plan names. Each step may be repeated without harm."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Mapping

from finetune_operator.api import names
from finetune_operator.plan.types import Manifest, Observed, Plan
from finetune_operator.shell import paths
from finetune_operator.shell.client import APPLY_PATCH, MERGE_PATCH, Api, Query
from finetune_operator.shell.drift import Difference, differences, stamped
from finetune_operator.shell.errors import ApiError
from finetune_operator.shell.gather import is_owned

logger = logging.getLogger(__name__)

FIELD_MANAGER = "finetune-operator"
_REMEMBERED = 4096


class Children:
    """Brings children to what a plan wants. Writes nothing where nothing would change."""

    def __init__(self, api: Api) -> None:
        self._api = api
        # Differences that an apply left standing (the server spells "1000m" as "1"): applying again would not help
        self._standing: OrderedDict[str, tuple[Manifest, frozenset[Difference]]] = OrderedDict()

    async def bring_to(self, plan: Plan, observed: Observed) -> None:
        """Perform all of the plan but its status and events. Raises ApiError at the first refusal."""
        for wanted in plan.create:
            await self._create(wanted, observed)
        for wanted in plan.apply:
            await self._apply(wanted, observed)
        for kind, name, patch in plan.patch:
            await self._patch(kind, name, patch, observed)
        for kind, name in plan.delete:
            await self._delete(kind, name, observed)

    async def _create(self, wanted: Manifest, observed: Observed) -> None:
        kind, name = wanted["kind"], wanted["metadata"]["name"]
        if (kind, name) in observed.children:
            return
        namespace = observed.job.namespace
        try:
            await self._api.create(paths.collection(kind, namespace), wanted, {"fieldManager": FIELD_MANAGER})
        except ApiError as error:
            if not error.is_taken:
                raise
            standing = await self._api.find(paths.item(kind, namespace, name))
            # Another's object is for the next plan to report; ours was made by a run whose answer got lost
            if standing is None or not _is_ours(standing, wanted, observed):
                raise
        logger.info("%s/%s: created %s %s", namespace, observed.job.name, kind, name)

    async def _apply(self, wanted: Manifest, observed: Observed) -> None:
        kind, name = wanted["kind"], wanted["metadata"]["name"]
        desired = stamped(wanted)
        live = observed.children.get((kind, name))
        if live is not None and self._holds(desired, live):
            return
        # With the UID, an apply cannot bring back an object that was deleted meanwhile; without force, one
        # that appeared meanwhile is not taken over
        body = desired if live is None else _with_uid(desired, live)
        query: Query = {"fieldManager": FIELD_MANAGER, "force": live is not None}
        answer = await self._api.patch(paths.item(kind, observed.job.namespace, name), body, APPLY_PATCH, query)
        self._remember(answer["metadata"]["uid"], desired, differences(desired, answer))
        logger.info("%s/%s: applied %s %s", observed.job.namespace, observed.job.name, kind, name)

    def _holds(self, desired: Manifest, live: Manifest) -> bool:
        found = differences(desired, live)
        return not found or self._standing.get(live["metadata"]["uid"]) == (desired, found)

    def _remember(self, uid: str, desired: Manifest, found: frozenset[Difference]) -> None:
        self._standing.pop(uid, None)
        if found:
            self._standing[uid] = (desired, found)
        if len(self._standing) > _REMEMBERED:
            self._standing.popitem(last=False)

    async def _patch(self, kind: str, name: str, patch: Manifest, observed: Observed) -> None:
        live = observed.children[(kind, name)]
        if not differences(patch, live):
            return
        body = _with_uid(patch, live)
        query = {"fieldManager": FIELD_MANAGER}
        await self._api.patch(paths.item(kind, observed.job.namespace, name), body, MERGE_PATCH, query)
        logger.info("%s/%s: patched %s %s", observed.job.namespace, observed.job.name, kind, name)

    async def _delete(self, kind: str, name: str, observed: Observed) -> None:
        live = observed.children.get((kind, name))
        if live is None or "deletionTimestamp" in live["metadata"]:
            return
        options = {"propagationPolicy": "Background", "preconditions": {"uid": live["metadata"]["uid"]}}
        try:
            await self._api.delete(paths.item(kind, observed.job.namespace, name), options)
        except ApiError as error:
            if not error.is_absent:
                raise
        logger.info("%s/%s: deleted %s %s", observed.job.namespace, observed.job.name, kind, name)


def _is_ours(standing: Manifest, wanted: Manifest, observed: Observed) -> bool:
    if wanted["metadata"].get("ownerReferences"):
        return is_owned(standing, observed.job.uid)
    # A claim that outlives its job has no owner; the label says whose it is
    labels: Mapping[str, str] = standing["metadata"].get("labels") or {}
    return labels.get(names.JOB_NAME_LABEL) == observed.job.name


def _with_uid(body: Manifest, live: Manifest) -> Manifest:
    return {**body, "metadata": {**(body.get("metadata") or {}), "uid": live["metadata"]["uid"]}}

"""One reconcile: read the world, plan, perform the plan, write the status, tell the events."""

from __future__ import annotations

import dataclasses
import logging
from typing import TYPE_CHECKING

from finetune_operator.api import conditions
from finetune_operator.plan.plan import plan
from finetune_operator.plan.types import Event, Manifest, Observed, Plan
from finetune_operator.settings import Settings
from finetune_operator.shell import refusals
from finetune_operator.shell.children import Children
from finetune_operator.shell.client import Api
from finetune_operator.shell.errors import ApiError
from finetune_operator.shell.events import Events
from finetune_operator.shell.gather import Gatherer, is_terminal
from finetune_operator.shell.job_view import InvalidSpec, read_status
from finetune_operator.shell.metrics import Metrics
from finetune_operator.shell.status_writer import write_status

if TYPE_CHECKING:
    from finetune_operator.shell.queue import Key

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Reconciler:
    """Brings one FineTuneJob after the other to where it should be. Holds nothing that a restart would miss."""

    api: Api
    gatherer: Gatherer
    children: Children
    events: Events
    settings: Settings
    metrics: Metrics

    async def reconcile(self, key: Key) -> float | None:
        """Work on one job; seconds until it has to be looked at again, if any. Raises ApiError and UnreadableStatus."""
        manifest = await self.gatherer.fetch(key)
        if manifest is None:
            self.gatherer.reports.forget(key)
            self.metrics.forget(key)
            return None
        try:
            observed = await self.gatherer.observe(manifest)
        except InvalidSpec as problem:
            await self._reject(key, manifest, str(problem))
            return None
        except ApiError as error:
            if error.is_forbidden:
                await self._tell(manifest, [refusals.event(error)])
            raise
        return await self._carry_out(key, manifest, observed)

    async def _carry_out(self, key: Key, manifest: Manifest, observed: Observed) -> float | None:
        planned = plan(observed, self.settings)
        refusal = await self._perform(planned, observed)
        if refusal is not None:
            planned = refusals.explained(planned, refusal)
        await self._record(key, manifest, planned, observed.job.spec.resources.gpus)
        if refusal is not None:
            raise refusal
        return planned.requeue_after

    async def _perform(self, planned: Plan, observed: Observed) -> ApiError | None:
        try:
            await self.children.bring_to(planned, observed)
        except ApiError as error:
            if not error.is_refused:
                raise
            return error
        return None

    async def _record(self, key: Key, manifest: Manifest, planned: Plan, gpus: int = 0) -> None:
        if await write_status(self.api, manifest, planned.status):
            await self._tell(manifest, planned.events)
        self.metrics.observe(key, read_status(manifest), planned.status, gpus)

    async def _reject(self, key: Key, manifest: Manifest, problem: str) -> None:
        status = read_status(manifest)
        if is_terminal(status):
            return
        now = self.gatherer.now()
        message = f"{problem}. Correct the field, or run an operator that knows it."
        rejected = refusals.invalid_spec(status, manifest["metadata"]["generation"], message, now)
        event = Event(type="Warning", reason=conditions.INVALID_SPEC, message=message)
        await self._record(key, manifest, Plan(status=rejected, events=(event,)))

    async def _tell(self, manifest: Manifest, events: list[Event] | tuple[Event, ...]) -> None:
        for event in events:
            await self.events.tell(manifest, event, self.gatherer.now())

"""The HTTPS endpoint that trainers post their progress to, in the protocol of Kubeflow's TrainJob status (KEP-2779)."""

from __future__ import annotations

import datetime as dt
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable

from aiohttp import web
from pydantic import ValidationError

from finetune_operator.api.base import GROUP, PLURAL, VERSION
from finetune_operator.shell.errors import ApiError, wrong_fields
from finetune_operator.shell.metrics import Metrics
from finetune_operator.shell.queue import Key, WorkQueue
from finetune_operator.shell.reports import ProgressPost, Reports
from finetune_operator.shell.tokens import TokenChecker, Unauthenticated

logger = logging.getLogger(__name__)

ROUTE = f"/apis/{GROUP}/{VERSION}/namespaces/{{namespace}}/{PLURAL}/{{name}}/progress"
LARGEST_BODY = 16 * 1024
SECONDS_BETWEEN_POSTS = 1.0
_REMEMBERED = 10_000

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class ProgressEndpoint:
    """Takes progress posts of trainers, each for its own job only."""

    def __init__(
        self, tokens: TokenChecker, reports: Reports, queue: WorkQueue, metrics: Metrics, now: Callable[[], dt.datetime]
    ) -> None:
        self._tokens = tokens
        self._reports = reports
        self._queue = queue
        self._metrics = metrics
        self._now = now
        self._pace = Pace(SECONDS_BETWEEN_POSTS)

    def application(self) -> web.Application:
        """The web application."""
        application = web.Application(client_max_size=LARGEST_BODY, middlewares=[self._counted])
        application.router.add_post(ROUTE, self.post)
        return application

    async def post(self, request: web.Request) -> web.Response:
        """One progress post: 200, 400 (body), 401 (token), 403 (another's job), 409 (old attempt), 413, 429 or 503."""
        key = Key(request.match_info["namespace"], request.match_info["name"])
        attempt = await self._authorized_attempt(request, key)
        if not self._pace.allows(key):
            raise web.HTTPTooManyRequests(text="one post a second is enough", headers={"Retry-After": "1"})
        post = await _read(request)
        if not self._reports.put(key, attempt, post.report(self._now())):
            raise web.HTTPConflict(text=f"a later attempt than {attempt} has reported already")
        self._queue.add(key)
        return web.json_response({})

    async def _authorized_attempt(self, request: web.Request, key: Key) -> int:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise web.HTTPUnauthorized(text="send the projected service-account token as Authorization: Bearer TOKEN")
        try:
            trainer = await self._tokens.trainer(token.strip())
        except Unauthenticated:
            raise web.HTTPUnauthorized(text="the token is not one of a live training pod for this audience") from None
        except ApiError as error:
            logger.warning("progress of %s not checked: %s", key, error)
            raise web.HTTPServiceUnavailable(
                text="the token cannot be checked now", headers={"Retry-After": "5"}
            ) from None
        if trainer.job != key:
            raise web.HTTPForbidden(text=f"the token belongs to {trainer.job}, not to {key}")
        return trainer.attempt

    @web.middleware
    async def _counted(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        status = 500
        try:
            response = await handler(request)
            status = response.status
            return response
        except web.HTTPException as error:
            status = error.status
            raise
        finally:
            self._metrics.posts.labels(str(status)).inc()


async def _read(request: web.Request) -> ProgressPost:
    try:
        return ProgressPost.model_validate_json(await request.read())
    except ValidationError as error:
        raise web.HTTPBadRequest(text="; ".join(wrong_fields(error))[:1024]) from None


class Pace:
    """Lets each key through at most once in so many seconds."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._last: OrderedDict[Key, float] = OrderedDict()

    def allows(self, key: Key) -> bool:
        """Whether the key may pass now; if so, it has passed."""
        now = self._clock()
        last = self._last.get(key)
        if last is not None and now - last < self._seconds:
            return False
        self._last[key] = now
        self._last.move_to_end(key)
        if len(self._last) > _REMEMBERED:
            self._last.popitem(last=False)
        return True

"""The last log lines of a container that failed, fetched once and without secrets."""

from __future__ import annotations

import logging
from collections import OrderedDict

from finetune_operator.shell import paths
from finetune_operator.shell.client import Api, Query
from finetune_operator.shell.errors import ApiError
from finetune_operator.shell.podfacts import ContainerEnd
from finetune_operator.shell.redact import redact

logger = logging.getLogger(__name__)

_MOST_BYTES = 1_048_576
_LONGEST_LINE = 400
_REMEMBERED = 1024


class LogTails:
    """Tails by pod and container. A plan must see the same end each time, so a fetched tail is kept."""

    def __init__(self, api: Api, lines: int) -> None:
        self._api = api
        self._lines = lines
        self._known: OrderedDict[tuple[str, str], tuple[str, ...]] = OrderedDict()

    async def tail(self, namespace: str, end: ContainerEnd) -> tuple[str, ...]:
        """The last lines of a failed container; none where it did not fail or its log is gone."""
        if not end.failed or not end.container or not self._lines:
            return ()
        key = (end.pod_uid, end.container)
        if key not in self._known:
            self._known[key] = await self._fetch(namespace, end)
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        return self._known[key]

    async def _fetch(self, namespace: str, end: ContainerEnd) -> tuple[str, ...]:
        query: Query = {"container": end.container, "tailLines": self._lines, "limitBytes": _MOST_BYTES}
        try:
            text = await self._api.text(f"{paths.item('Pod', namespace, end.pod)}/log", query)
        except ApiError as error:
            # The node may be gone, and the log with it; the exit code and termination message stand in the pod
            logger.info("no log of %s/%s container %s: %s", namespace, end.pod, end.container, error.message)
            return ()
        return last_lines(text, self._lines)


def last_lines(text: str, count: int) -> tuple[str, ...]:
    """The last lines as a terminal would show them, redacted and cut to a readable length."""
    shown = [line.rpartition("\r")[2] for line in text.replace("\r\n", "\n").splitlines() if line.strip()]
    return tuple(redact(line)[:_LONGEST_LINE] for line in shown[-count:])

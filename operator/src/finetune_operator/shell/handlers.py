"""What kopf watches. Every handler does one thing: it puts the job's key on the queue."""

from __future__ import annotations

from typing import Any

import kopf

from finetune_operator.api.base import GROUP, PLURAL, VERSION
from finetune_operator.api.names import JOB_NAME_LABEL
from finetune_operator.shell.queue import Key, WorkQueue

WATCHED_CHILDREN = (("batch", "v1", "jobs"), ("apps", "v1", "deployments"), ("", "v1", "pods"))
"""Children whose changes move a job on. The others change only by foreign hands, which the resync finds."""


def register(registry: kopf.OperatorRegistry, queue: WorkQueue) -> None:
    """Watch FineTuneJobs and their children."""

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=registry)
    async def _job_changed(name: str, namespace: str | None, **_: Any) -> None:
        queue.add(Key(str(namespace), name))

    for group, version, plural in WATCHED_CHILDREN:

        @kopf.on.event(group, version, plural, registry=registry, labels={JOB_NAME_LABEL: kopf.PRESENT})
        async def _child_changed(labels: kopf.Labels, namespace: str | None, **_: Any) -> None:
            queue.add(Key(str(namespace), labels[JOB_NAME_LABEL]))


def select_children(settings: kopf.OperatorSettings) -> None:
    """Have the API server send only children of FineTuneJobs, not every pod of the cluster."""
    for child in WATCHED_CHILDREN:
        settings.watching.label_selectors[child] = JOB_NAME_LABEL

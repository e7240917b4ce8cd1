"""What the builders build from and what they build."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from finetune_operator.api.spec import FineTuneJobSpec
from finetune_operator.api.status import FineTuneJobStatus

Manifest = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobView:
    """The FineTuneJob as observed, parsed."""

    name: str
    namespace: str
    uid: str
    generation: int
    created: dt.datetime
    spec: FineTuneJobSpec
    status: FineTuneJobStatus
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)

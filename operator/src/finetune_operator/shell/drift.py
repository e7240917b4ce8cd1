"""What would change: between what is wanted and what stands in the cluster. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from finetune_operator.api.base import GROUP
from finetune_operator.plan.types import Manifest

HASH_ANNOTATION = f"{GROUP}/applied-hash"
"""Hash of what was applied last: tells that a field which is wanted no more still has to be removed."""

Difference = tuple[str, str]
"""Path of a field and the JSON that stands there."""


def stamped(wanted: Manifest) -> Manifest:
    """The manifest with the hash of itself among its annotations."""
    metadata = wanted["metadata"]
    digest = hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()[:16]
    annotations = {**(metadata.get("annotations") or {}), HASH_ANNOTATION: digest}
    return {**wanted, "metadata": {**metadata, "annotations": annotations}}


def differences(wanted: Any, live: Any, path: str = "") -> frozenset[Difference]:
    """Where the live object does not hold what is wanted. What others added, and defaults, do not count."""
    if isinstance(wanted, Mapping) and isinstance(live, Mapping):
        inner = (differences(value, live.get(key), f"{path}.{key}") for key, value in wanted.items())
        return frozenset().union(*inner)
    if isinstance(wanted, list) and isinstance(live, list) and len(wanted) == len(live):
        pairs = enumerate(zip(wanted, live, strict=True))
        return frozenset().union(*(differences(want, have, f"{path}[{index}]") for index, (want, have) in pairs))
    if wanted == live:
        return frozenset()
    return frozenset({(path, json.dumps(live, sort_keys=True))})


def merge_patch(live: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON merge patch (RFC 7386) that turns one into the other; empty where they are equal."""
    patch: dict[str, Any] = {key: None for key in live if key not in wanted}
    for key, value in wanted.items():
        standing = live.get(key)
        if value == standing:
            continue
        if isinstance(value, Mapping) and isinstance(standing, Mapping):
            patch[key] = merge_patch(standing, value)
        else:
            patch[key] = value
    return patch

"""What the real API server says to a FineTuneJob, without storing it."""

from __future__ import annotations

import json
from typing import Any

from kubernetes import client
from kubernetes.client.exceptions import ApiException

from finetune_operator.api.base import GROUP, PLURAL, VERSION


def refusal(api: client.CustomObjectsApi, manifest: dict[str, Any], validation: str = "Strict") -> str:
    """Why the API server refuses the manifest; empty where it would store it."""
    try:
        send(api, manifest, validation)
    except ApiException as error:
        if error.status not in (400, 422):
            raise
        return str(json.loads(error.body)["message"])
    return ""


def send(api: client.CustomObjectsApi, manifest: dict[str, Any], validation: str = "Strict") -> dict[str, Any]:
    """The object as the API server would store it. Raises ApiException where it refuses."""
    options = {"dry_run": "All", "field_validation": validation}
    stored: dict[str, Any] = api.create_namespaced_custom_object(GROUP, VERSION, "default", PLURAL, manifest, **options)
    return stored

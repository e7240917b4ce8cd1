"""Where the API server keeps the kinds that the operator touches."""

from __future__ import annotations

from urllib.parse import quote

from finetune_operator.api.base import GROUP, KIND, PLURAL, VERSION

COLLECTIONS = {
    KIND: (f"/apis/{GROUP}/{VERSION}", PLURAL),
    "Job": ("/apis/batch/v1", "jobs"),
    "Deployment": ("/apis/apps/v1", "deployments"),
    "PodDisruptionBudget": ("/apis/policy/v1", "poddisruptionbudgets"),
    "Service": ("/api/v1", "services"),
    "ConfigMap": ("/api/v1", "configmaps"),
    "PersistentVolumeClaim": ("/api/v1", "persistentvolumeclaims"),
    "Pod": ("/api/v1", "pods"),
    "Event": ("/api/v1", "events"),
}
"""For each kind, the path of its group and version, and its plural."""

TOKEN_REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"  # noqa: S105


def collection(kind: str, namespace: str | None) -> str:
    """Path of a kind's objects in a namespace, or in all of them. Raises KeyError on a kind that is not ours."""
    prefix, plural = COLLECTIONS[kind]
    return f"{prefix}/{plural}" if namespace is None else f"{prefix}/namespaces/{quote(namespace, safe='')}/{plural}"


def item(kind: str, namespace: str, name: str) -> str:
    """Path of one object."""
    return f"{collection(kind, namespace)}/{quote(name, safe='')}"

"""Every right that the operator needs. The chart's roles say the same; a test compares the two.

Reads of ConfigMaps, Services, budgets and claims are by name only, so that the operator cannot list what others keep there.
There is no rule for Secrets: the kubelet mounts them.
"""

from __future__ import annotations

from collections.abc import Mapping

from finetune_operator.api.base import GROUP, PLURAL

Rule = Mapping[str, list[str]]


def _rule(group: str, resources: list[str], verbs: list[str]) -> Rule:
    return {"apiGroups": [group], "resources": resources, "verbs": verbs}


NAMESPACED_RULES: tuple[Rule, ...] = (
    _rule(GROUP, [PLURAL], ["get", "list", "watch"]),
    _rule(GROUP, [f"{PLURAL}/status"], ["patch"]),
    # blockOwnerDeletion on a child needs this where OwnerReferencesPermissionEnforcement is on, as on OpenShift
    _rule(GROUP, [f"{PLURAL}/finalizers"], ["update"]),
    _rule("batch", ["jobs"], ["get", "list", "watch", "create", "patch", "delete"]),
    _rule("apps", ["deployments"], ["get", "list", "watch", "create", "patch", "delete"]),
    _rule("", ["services"], ["get", "create", "patch", "delete"]),
    _rule("policy", ["poddisruptionbudgets"], ["get", "create", "patch", "delete"]),
    _rule("", ["configmaps"], ["get", "create", "patch"]),
    _rule("", ["persistentvolumeclaims"], ["get", "create", "patch"]),
    _rule("", ["pods"], ["get", "list", "watch"]),
    _rule("", ["pods/log"], ["get"]),
    _rule("", ["events"], ["create", "patch"]),
)
"""For a ClusterRole, or for a Role in each namespace of settings.namespaces."""

CLUSTER_RULES: tuple[Rule, ...] = (_rule("authentication.k8s.io", ["tokenreviews"], ["create"]),)
"""For a ClusterRole always: a TokenReview belongs to no namespace."""

RULES: tuple[Rule, ...] = NAMESPACED_RULES + CLUSTER_RULES

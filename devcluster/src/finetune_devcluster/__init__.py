"""A real Kubernetes control plane and a process node on one machine, for tests and the demo."""

from finetune_devcluster.cluster import Cluster
from finetune_devcluster.errors import DevclusterError

__all__ = ["Cluster", "DevclusterError"]

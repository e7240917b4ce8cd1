"""Which container has which of the node's GPUs."""

from __future__ import annotations

from finetune_devcluster.node.environment import ConfigError
from finetune_devcluster.node.settings import Object

GPU_RESOURCE = "nvidia.com/gpu"


class GpuPool:
    """The scheduler counts GPUs; this only gives them numbers (NVIDIA_VISIBLE_DEVICES)."""

    def __init__(self, count: int) -> None:
        self._free = list(range(count))
        self._taken: dict[tuple[str, str], list[int]] = {}

    def take(self, pod_uid: str, container: Object) -> list[int]:
        """The container's GPUs: the same ones at each restart.

        Raises ConfigError when fewer are free than the container asks for.
        """
        wanted = int(((container.get("resources") or {}).get("limits") or {}).get(GPU_RESOURCE, 0))
        key = (pod_uid, container["name"])
        if key not in self._taken:
            if wanted > len(self._free):
                raise ConfigError(f"container {container['name']} asks for {wanted} GPUs, {len(self._free)} are free")
            self._taken[key], self._free = self._free[:wanted], self._free[wanted:]
        return self._taken[key]

    def give_back(self, pod_uid: str) -> None:
        for key in [key for key in self._taken if key[0] == pod_uid]:
            self._free = sorted(self._free + self._taken.pop(key))

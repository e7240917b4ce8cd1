"""What holds a pod together: one idle process that owns the pod's network and mount namespaces.

Everything of a pod hangs on that process. When it dies, by the node's hand or with the node, the kernel takes
the network namespace, the veth pair and the memory volumes with it.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path

from finetune_devcluster.node.processes import (
    CommandError,
    ProcessRegistry,
    dies_with_parent,
    kill,
    program,
    run_command,
)

_STARTED_WITHIN_SECONDS = 60.0


@dataclass
class Sandbox:
    process: asyncio.subprocess.Process
    registry: ProcessRegistry

    @property
    def pid(self) -> int:
        return self.process.pid

    def namespaces(self) -> list[str]:
        """The command that enters the sandbox; the program to run there follows it."""
        namespaces = f"/proc/{self.pid}/ns"
        return [program("nsenter"), f"--mount={namespaces}/mnt", f"--net={namespaces}/net"]

    async def mount_memory(self, folder: Path) -> None:
        """Mounts a tmpfs that only the pod's own containers see."""
        mount = [program("mount"), "-t", "tmpfs", "-o", "mode=1777,nosuid,nodev", "tmpfs", str(folder)]
        await run_command(*self.namespaces(), *mount)

    async def end(self) -> None:
        kill(self.pid)
        await self.process.wait()
        self.registry.remove(self.pid)


async def start(registry: ProcessRegistry, what: str, *, own_network: bool) -> Sandbox:
    """Starts the process and waits until its namespaces are there.

    Raises CommandError when they are not.
    """
    network = ["--net"] if own_network else []
    process = await asyncio.create_subprocess_exec(
        *dies_with_parent(program("unshare"), "--mount", *network, "--propagation", "private"),
        program("sleep"),
        "infinity",
        stdin=asyncio.subprocess.DEVNULL,
    )
    registry.add(process.pid, what)
    sandbox = Sandbox(process, registry)
    try:
        async with asyncio.timeout(_STARTED_WITHIN_SECONDS):
            while not _is_idle(process.pid):
                if process.returncode is not None:
                    raise CommandError(f"sandbox of {what}: unshare exited {process.returncode}")
                await asyncio.sleep(0.002)
    except BaseException:
        await sandbox.end()
        raise
    return sandbox


def _is_idle(pid: int) -> bool:
    # The namespaces exist once the last program of the chain has been executed.
    try:
        return os.path.basename(Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0]) == b"sleep"
    except (FileNotFoundError, ProcessLookupError):
        return False

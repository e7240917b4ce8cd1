"""One run of a container: its processes, its log, its end."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

from finetune_devcluster.node import launcher, logs
from finetune_devcluster.node.processes import ProcessRegistry, dies_with_parent, program
from finetune_devcluster.node.sandbox import Sandbox
from finetune_devcluster.node.settings import Object


class StartError(Exception):
    """The container's command can not be run (reason StartError, exit code 128)."""


@dataclass(frozen=True)
class LaunchSpec:
    """What the launcher needs; see `launcher.launch`."""

    argv: list[str]
    env: dict[str, str]
    working_dir: str
    hostname: str
    mounts: list[Object]

    def encode(self) -> bytes:
        spec = {
            "argv": self.argv,
            "env": self.env,
            "workingDir": self.working_dir,
            "hostname": self.hostname,
            "mounts": self.mounts,
        }
        return json.dumps(spec).encode()


class ContainerProcess:
    """The main process is number 1 of its PID namespace: when it ends, the kernel kills all below it."""

    def __init__(
        self,
        holder: asyncio.subprocess.Process,
        main_pid: int,
        spec: LaunchSpec,
        output: asyncio.Task[None],
        registry: ProcessRegistry,
    ) -> None:
        self._holder = holder
        self._main = _pidfd(main_pid)
        self._output = output
        self._registry = registry
        self.main_pid = main_pid
        self.spec = spec

    async def wait(self) -> int:
        """Exit code of the main process (128 + signal when it was killed), once all its output is in the log."""
        code = await self._holder.wait()
        await self._output
        if self._main >= 0:
            os.close(self._main)
        self._main = -1
        self._registry.remove(self._holder.pid)
        self._registry.remove(self.main_pid)
        return 128 - code if code < 0 else code

    def send(self, number: signal.Signals) -> None:
        """Signals the main process itself; nothing happens when it has ended."""
        if self._main < 0:
            return
        try:
            signal.pidfd_send_signal(self._main, number)
        except ProcessLookupError:
            return

    def inside(self) -> list[str]:
        """The command that enters the container; the program to run there follows it."""
        return [
            program("nsenter"),
            *(f"--target={self.main_pid}", "--mount", "--uts", "--ipc", "--net", "--pid"),
            f"--wdns={self.spec.working_dir}",
        ]


def _pidfd(pid: int) -> int:
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:  # a short command may have ended already
        return -1


async def start(
    sandbox: Sandbox, spec: LaunchSpec, log: Path, registry: ProcessRegistry, what: str
) -> ContainerProcess:
    """Starts the container and returns once its command is about to be executed.

    Raises StartError when it can not be.
    """
    report, report_end = os.pipe()
    holder = await asyncio.create_subprocess_exec(
        *dies_with_parent(*sandbox.namespaces()),
        *(sys.executable, "-I", "-S", launcher.__file__, str(report_end)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        pass_fds=(report_end,),
        env={"LANG": "C.UTF-8"},
    )
    os.close(report_end)
    registry.add(holder.pid, what)
    output = asyncio.create_task(_copy_output(holder, log))
    try:
        main_pid = await _launch(holder, spec, report)
        registry.add(main_pid, what)
        return ContainerProcess(holder, main_pid, spec, output, registry)
    except BaseException:
        if holder.returncode is None:
            holder.kill()
        await holder.wait()
        await output
        registry.remove(holder.pid)
        raise


async def _launch(holder: asyncio.subprocess.Process, spec: LaunchSpec, report: int) -> int:
    if holder.stdin:
        holder.stdin.write(spec.encode())
        holder.stdin.close()
    line = await _first_line(report)
    answer = (
        json.loads(line) if line else {"error": "the launcher died before it could say why; see the container's log"}
    )
    if "error" in answer:
        raise StartError(f"failed to start container process: {answer['error']}")
    return int(answer["pid"])


async def _first_line(descriptor: int) -> bytes:
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb", buffering=0)
    )
    try:
        return await reader.readline()
    finally:
        transport.close()


async def _copy_output(holder: asyncio.subprocess.Process, log: Path) -> None:
    streams = {"stdout": holder.stdout, "stderr": holder.stderr}
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab", buffering=0) as file:
        copies = [logs.copy_stream(reader, name, file) for name, reader in streams.items() if reader]
        await asyncio.gather(*copies)

"""What probes and lifecycle hooks do: an HTTP request, a TCP connection, a command inside the container."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass

import aiohttp

from finetune_devcluster.node.container_process import ContainerProcess
from finetune_devcluster.node.processes import descendants, kill
from finetune_devcluster.node.settings import Object

_MAX_OUTPUT_BYTES = 10 * 1024


@dataclass(frozen=True)
class Target:
    """The container an action is meant for; `pod_ip` is where its ports are."""

    process: ContainerProcess
    container: Object
    pod_ip: str


async def perform(action: Object, target: Target, timeout: float) -> str | None:
    """Does what a probe's or hook's handler says; None when it succeeded, else why not."""
    try:
        async with asyncio.timeout(timeout):
            return await _perform(action, target)
    except TimeoutError:
        return f"timed out after {timeout:g} s"
    except (aiohttp.ClientError, OSError) as error:
        return str(error) or repr(error)


async def _perform(action: Object, target: Target) -> str | None:
    if handler := action.get("exec"):
        return await _execute(handler["command"], target)
    if handler := action.get("httpGet"):
        return await _http_get(handler, target)
    if handler := action.get("tcpSocket"):
        return await _connect(handler, target)
    if handler := action.get("sleep"):
        await asyncio.sleep(handler["seconds"])
        return None
    return f"handler {sorted(action)} is not supported by the process node; use exec, httpGet or tcpSocket"


async def _execute(command: list[str], target: Target) -> str | None:
    process = await asyncio.create_subprocess_exec(
        *target.process.inside(),
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=target.process.spec.env,
    )
    try:
        output, _ = await process.communicate()
    except asyncio.CancelledError:
        for pid in [*descendants(process.pid), process.pid]:
            kill(pid)
        await process.wait()
        raise
    if process.returncode == 0:
        return None
    return f"exit {process.returncode}: {output[-_MAX_OUTPUT_BYTES:].decode(errors='replace').strip()}"


async def _http_get(handler: Object, target: Target) -> str | None:
    scheme = (handler.get("scheme") or "HTTP").lower()
    host = handler.get("host") or target.pod_ip
    url = f"{scheme}://{host}:{_port(handler['port'], target.container)}{_path(handler)}"
    headers = {"User-Agent": "process-node-probe"} | {h["name"]: h["value"] for h in handler.get("httpHeaders") or []}
    # A probe asks for an answer, not for an identity: the kubelet does not verify certificates either.
    async with (
        aiohttp.ClientSession() as session,
        session.get(url, headers=headers, ssl=False) as response,
    ):
        if 200 <= response.status < 400:
            return None
        return f"HTTP probe failed with statuscode: {response.status}"


def _path(handler: Object) -> str:
    path = handler.get("path") or "/"
    return str(path if path.startswith("/") else f"/{path}")


async def _connect(handler: Object, target: Target) -> str | None:
    host = handler.get("host") or target.pod_ip
    _, writer = await asyncio.open_connection(host, _port(handler["port"], target.container))
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return None


def _port(port: int | str, container: Object) -> int:
    for entry in container.get("ports") or []:
        if entry.get("name") == port:
            return int(entry["containerPort"])
    return int(port)

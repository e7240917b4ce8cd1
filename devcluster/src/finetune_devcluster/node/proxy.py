"""ClusterIPs: a listener for each service address, and copying of bytes to a ready endpoint."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import socket
import struct

from finetune_devcluster.node.services import Address

logger = logging.getLogger(__name__)

_CONNECT_SECONDS = 5.0
_CHUNK_BYTES = 256 * 1024
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Forwarder:
    """One address. Endpoints take turns; one that refuses is passed over."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._turn = itertools.count()
        self.endpoints: list[Address] = []
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Future[None]] = set()

    async def open(self) -> None:
        host, port = self._address
        self._server = await asyncio.start_server(self._accept, host, port, limit=_CHUNK_BYTES)

    async def close(self) -> None:
        """Stops listening, so that new connections are refused; open ones live on, as with kube-proxy."""
        if self._server:
            self._server.close()

    def abort(self) -> None:
        for task in list(self._connections):
            task.cancel()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving = asyncio.ensure_future(self._serve(reader, writer))
        self._connections.add(serving)
        # Waited for and not awaited: when the node ends, the cancelling would reach asyncio's server as an error.
        await asyncio.wait({serving})
        self._connections.discard(serving)
        writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        backend = await self._connect()
        if backend is None:
            raw = writer.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            return
        backend_reader, backend_writer = backend
        try:
            await asyncio.gather(_copy(reader, backend_writer), _copy(backend_reader, writer))
        finally:
            backend_writer.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        endpoints = self.endpoints
        first = next(self._turn)
        for offset in range(len(endpoints)):
            host, port = endpoints[(first + offset) % len(endpoints)]
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(_CONNECT_SECONDS):
                    return await asyncio.open_connection(host, port, limit=_CHUNK_BYTES)
        return None


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(_CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
        writer.write_eof()
    except OSError:
        # A reset on one side has to end the other side's copying too.
        writer.transport.abort()


class ServiceProxy:
    """Keeps one listener for every service address that has a ready endpoint."""

    def __init__(self) -> None:
        self._forwarders: dict[Address, Forwarder] = {}

    async def update(self, backends: dict[Address, list[Address]]) -> None:
        for address in self._forwarders.keys() - backends.keys():
            await self._forwarders.pop(address).close()
        for address, endpoints in backends.items():
            if address not in self._forwarders:
                await self._open(address)
            if forwarder := self._forwarders.get(address):
                forwarder.endpoints = endpoints

    async def _open(self, address: Address) -> None:
        forwarder = Forwarder(address)
        try:
            await forwarder.open()
        except OSError as error:
            logger.error("service address %s:%d: can not listen: %s", *address, error)
            return
        self._forwarders[address] = forwarder

    async def close(self) -> None:
        for forwarder in self._forwarders.values():
            await forwarder.close()
            forwarder.abort()

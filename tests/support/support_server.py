"""A server that answers from a thread of the test's own process."""

import contextlib
import random
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from socketserver import BaseServer
from typing import TypeVar

Server = TypeVar("Server", bound=BaseServer)


def free_port() -> int:
    """A port of the loopback interface that nobody listens on.

    Below those that the kernel gives to whoever connects, so that it is still free when a process binds it later; and not
    from the generator that tests seed, which would give several test processes the same.
    """
    while True:
        port = random.SystemRandom().randrange(10_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


@contextmanager
def running(server: Server) -> Iterator[Server]:
    """Let it answer while the block runs; nothing of it is left afterwards."""
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

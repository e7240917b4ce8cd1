"""Heavy imports, without what they need not pay for."""

from __future__ import annotations

import atexit
import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def without_collection() -> Iterator[None]:
    """Keep the garbage collector away while modules are imported, and from what they leave until the process ends.

    torch, transformers and PEFT are more than a million objects, all of which stay. The collector looks through them again and
    again as they grow, which is a fifth of the time that they take to import, and once more in every full collection later.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        # Libraries that count what is left of them at the end would take all of it for lost.
        atexit.register(gc.unfreeze)
        if was_on:
            gc.enable()

"""The GPU's context, made while the process still imports its libraries."""

from __future__ import annotations

import contextlib
import ctypes
import threading

_DONE = 0


def begin_context(number: int) -> threading.Thread:
    """Make the primary context of the visible GPU with this number, from a thread that nobody needs to wait for.

    PyTorch computes in the same one (CUDA driver API, cuDevicePrimaryCtxRetain). Without a driver, or where it refuses,
    nothing happens: PyTorch tries again, and says what is wrong.
    """
    thread = threading.Thread(target=_begin, args=(number,), name="gpu-start", daemon=True)
    thread.start()
    return thread


def _begin(number: int) -> None:
    device, context = ctypes.c_int(), ctypes.c_void_p()
    with contextlib.suppress(OSError):
        driver = ctypes.CDLL("libcuda.so.1")
        if driver.cuInit(0) == _DONE and driver.cuDeviceGet(ctypes.byref(device), number) == _DONE:
            driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), device)

"""Code that came with a model is ended, and nothing else is."""

import hashlib
import mmap
import os
import resource
import threading

import pytest

from finetune_operator.api.bounded import MEBIBYTES, LimitReached, bounded


def loop() -> None:
    while True:
        pass


def test_computing_without_end_is_ended() -> None:
    with pytest.raises(LimitReached, match=r"more than 0\.2 s"), bounded(0.2):
        loop()


def test_memory_without_end_is_ended() -> None:
    with pytest.raises(LimitReached, match="512 MiB"), bounded():
        bytearray(1 << 40)


@pytest.mark.parametrize("of_memory", [True, False])
def test_the_limit_on_memory_holds_in_the_block_alone_and_only_where_no_other_thread_works(of_memory: bool) -> None:
    before = resource.getrlimit(resource.RLIMIT_AS)
    with bounded(of_memory=of_memory):
        assert (resource.getrlimit(resource.RLIMIT_AS) != before) == of_memory
    assert resource.getrlimit(resource.RLIMIT_AS) == before


GROWN = 2 * MEBIBYTES << 20


def test_what_the_process_has_grown_by_since_the_last_call_does_not_count() -> None:
    with bounded():
        pass
    with mmap.mmap(-1, GROWN):
        for _ in range(3):
            with bounded():
                bytearray(MEBIBYTES << 19)


def test_a_process_that_has_shrunk_since_the_last_call_may_not_take_more_for_it() -> None:
    with mmap.mmap(-1, GROWN), bounded():
        pass
    with pytest.raises(LimitReached, match="512 MiB"), bounded():
        bytearray(GROWN)


def test_a_forked_process_is_measured_by_itself() -> None:
    with bounded():
        pass
    child = os.fork()
    if child == 0:
        code = 1
        try:
            with mmap.mmap(-1, GROWN), bounded():
                bytearray(MEBIBYTES << 19)
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_what_other_threads_compute_does_not_count() -> None:
    done = threading.Event()

    def compute() -> None:
        # In C, without Python's lock
        hashlib.pbkdf2_hmac("sha256", b"x", b"x", 1_000_000)
        done.set()

    busy = threading.Thread(target=compute)
    with bounded(0.1, of_memory=False):
        busy.start()
        assert done.wait(60)
    busy.join()

"""What helps a training to its first step: imports without collections, and weights that are read meanwhile."""

import ctypes
import mmap
import os
import subprocess
import sys
from pathlib import Path

import pytest

from finetune_trainer.train.gpu_start import begin_context
from finetune_trainer.train.page_cache import read_soon, usable_memory
from support_wait import eventually

IMPORTING = """
import atexit, gc, sys
from finetune_trainer.quick_imports import without_collection
atexit.register(lambda: print("left at the end:", gc.get_freeze_count()))
try:
    with without_collection():
        assert not gc.isenabled(), "collected while modules are imported"
        import nothing_of_this_name
except ModuleNotFoundError:
    pass
assert gc.isenabled(), "never collected again"
assert gc.get_freeze_count() > 1000, "collected again and again"
"""


def test_the_collector_leaves_imports_alone_but_not_what_comes_after_them() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORTING], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def resident_share(file: Path) -> float:
    """Share of a file's pages that the kernel has in memory (mincore(2))."""
    size = file.stat().st_size
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), size, access=mmap.ACCESS_COPY) as mapped:
        pages = (ctypes.c_ubyte * -(-size // mmap.PAGESIZE))()
        first = (ctypes.c_char * size).from_buffer(mapped)
        assert ctypes.CDLL(None).mincore(ctypes.c_void_p(ctypes.addressof(first)), ctypes.c_size_t(size), pages) == 0
        del first
    return sum(page & 1 for page in pages) / len(pages)


def forgotten(file: Path) -> bool:
    with file.open("rb") as opened:
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return resident_share(file) < 0.1


def test_weights_that_are_on_the_disk_alone_are_read_before_anybody_asks(tmp_path: Path) -> None:
    weights = [tmp_path / f"model-{number}.safetensors" for number in (1, 2)]
    for file in weights:
        with file.open("wb") as opened:
            opened.write(os.urandom(4 << 20))
            os.fsync(opened.fileno())
    if not all(forgotten(file) for file in weights):
        pytest.skip("this file system keeps all files in memory")
    read_soon(tmp_path).join()
    eventually(lambda: all(resident_share(file) == 1 for file in weights), 20, "the files in the page cache")


@pytest.mark.filterwarnings("error")
def test_weights_that_are_not_there_are_left_for_the_loader_to_speak_of(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").symlink_to(tmp_path / "gone")
    read_soon(tmp_path).join()
    read_soon(tmp_path / "gone").join()


def test_no_more_is_read_ahead_than_the_container_may_hold() -> None:
    assert 0 < usable_memory() <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.filterwarnings("error")
def test_a_machine_without_a_driver_is_left_for_pytorch_to_speak_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    begin_context(0).join()

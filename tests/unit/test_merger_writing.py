"""Writing the merged model in the background, and reading it and the base model meanwhile."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from io import FileIO
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from finetune_merger import following, readahead, writer
from finetune_merger.checkpoint import Checkpoint
from finetune_merger.following import Following, Unfinished
from finetune_merger.layout import Layout, Slot
from finetune_merger.readahead import read_ahead
from finetune_merger.rows import CPU
from finetune_merger.stage import merge
from finetune_merger.writer import Content
from finetune_merger.writing import Writing
from finetune_operator.api.outcome import ExitCode, StageFailure
from support_wait import eventually
from tiny_models import job, save_adapter, save_base

VALUES = {name: torch.full((4, 8), float(number)) for number, name in enumerate(("first", "second", "third"))}
PATIENCE = 60


def layout(files: Mapping[str, list[str]]) -> Layout:
    slots = {name: Slot(name, name, "F32", (4, 8)) for name in VALUES}
    return Layout(
        {f"{file}.safetensors": [slots[name] for name in names] for file, names in files.items()}, unties=False
    )


def whole(slot: Slot) -> Content:
    return [VALUES[slot.name]]


def test_a_tensor_is_read_from_its_file_while_others_are_still_to_be_written(tmp_path: Path) -> None:
    go_on = threading.Event()

    def content(slot: Slot) -> Content:
        assert slot.name == "first" or go_on.wait(PATIENCE)
        return whole(slot)

    with Writing(tmp_path, layout({"a": ["first", "second"]}), content) as writing:
        made = Following(Unfinished(tmp_path, writing.tensors, CPU), writing)
        assert torch.equal(made.load("first"), VALUES["first"])
        assert not (tmp_path / "a.safetensors").exists()
        go_on.set()
        writing.finish()
        with made.view("second") as rows:
            assert torch.equal(rows[1:3], VALUES["second"][1:3])
    assert load_file(tmp_path / "a.safetensors").keys() == {"first", "second"}


def test_a_tensor_of_the_base_is_handed_out_once_it_is_written(tmp_path: Path) -> None:
    save_file(VALUES, tmp_path / "model.safetensors")
    go_on, read = threading.Event(), threading.Event()

    def content(slot: Slot) -> Content:
        assert go_on.wait(PATIENCE)
        return whole(slot)

    def read_it(base: Following) -> None:
        base.load("first")
        read.set()

    (tmp_path / "made").mkdir()
    with Writing(tmp_path / "made", layout({"a": ["first"]}), content) as writing:
        base = Following(Checkpoint.open(tmp_path), writing)
        reader = threading.Thread(target=read_it, args=(base,))
        reader.start()
        assert not read.is_set()
        go_on.set()
        assert read.wait(PATIENCE)
        reader.join()


def test_the_next_file_is_written_while_one_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sync, waited = os.fsync, []

    def sync_after_the_next_is_written(descriptor: int) -> None:
        if os.readlink(f"/proc/self/fd/{descriptor}").endswith(".a.safetensors.tmp"):
            writing.wait_for("second")
            waited.append(descriptor)
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", sync_after_the_next_is_written)
    writing = Writing(tmp_path, layout({"a": ["first"], "b": ["second"], "c": ["third"]}), whole)
    with writing:
        writing.finish()
    assert waited
    assert [load_file(tmp_path / f"{file}.safetensors").keys() for file in "abc"] == [{"first"}, {"second"}, {"third"}]


def test_what_makes_the_writing_fail_reaches_whoever_waits_and_leaves_no_file(tmp_path: Path) -> None:
    def content(slot: Slot) -> Content:
        if slot.name == "second":
            raise OSError("the disk is gone")
        return whole(slot)

    with Writing(tmp_path, layout({"a": ["first", "second"], "b": ["third"]}), content) as writing:
        with pytest.raises(OSError, match="the disk is gone"):
            writing.wait_for("second")
        with pytest.raises(OSError, match="the disk is gone"):
            writing.finish()
    assert not (tmp_path / "a.safetensors").exists()


def test_a_writing_that_is_given_up_does_not_go_on(tmp_path: Path) -> None:
    entered, go_on = threading.Event(), threading.Event()

    def content(slot: Slot) -> Content:
        entered.set()
        assert go_on.wait(PATIENCE)
        return whole(slot)

    writing = Writing(tmp_path, layout({"a": ["first"], "b": ["second"], "c": ["third"]}), content)

    def give_up() -> None:
        with writing:
            assert entered.wait(PATIENCE)

    giving_up = threading.Thread(target=give_up)
    giving_up.start()
    with pytest.raises(RuntimeError, match="given up"):
        writing.wait_for("third")
    go_on.set()
    giving_up.join(PATIENCE)
    assert not (tmp_path / "c.safetensors").exists()


def test_a_file_of_another_layout_is_written_again_and_one_of_this_is_not(tmp_path: Path) -> None:
    with Writing(tmp_path, layout({"a": ["first"], "b": ["second"]}), whole) as writing:
        writing.finish()
    before = {file: (tmp_path / f"{file}.safetensors").stat().st_ino for file in "ab"}
    with Writing(tmp_path, layout({"a": ["first"], "b": ["third"]}), whole) as writing:
        writing.wait_for("first")
        writing.finish()
    assert (tmp_path / "a.safetensors").stat().st_ino == before["a"]
    assert load_file(tmp_path / "b.safetensors").keys() == {"third"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    save_base(tmp_path / "base", tie_word_embeddings=False)
    save_adapter(tmp_path / "base", tmp_path / "adapter")
    return tmp_path


@pytest.mark.parametrize("damaged", ["model.layers.1.mlp.down_proj.weight", "model.embed_tokens.weight"])
def test_bytes_that_are_damaged_on_their_way_to_the_file_lose_parity(
    root: Path, monkeypatch: pytest.MonkeyPatch, damaged: str
) -> None:
    write = writer._write_tensor

    def write_and_damage(target: int, start: int, slot: Slot, parts: Content) -> None:
        write(target, start, slot, parts)
        if slot.name == damaged:
            os.pwrite(target, bytes(slot.size // 2), start)

    monkeypatch.setattr(writer, "_write_tensor", write_and_damage)
    with pytest.raises(StageFailure) as caught:
        merge(job(root))
    assert caught.value.code is ExitCode.PARITY_LOST
    assert sorted(path.name for path in root.iterdir()) == ["adapter", "base"]


def test_a_header_that_is_damaged_on_its_way_to_the_file_fails_the_merge(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish = Writing.finish
    one, other = b"0.self_attn.k_proj.weight", b"0.self_attn.v_proj.weight"

    def finish_and_swap_two_names(self: Writing) -> None:
        finish(self)
        path = root / ".merged.partial/model.safetensors"
        path.write_bytes(
            path.read_bytes().replace(one, b"?" * len(one)).replace(other, one).replace(b"?" * len(one), other)
        )

    monkeypatch.setattr(Writing, "finish", finish_and_swap_two_names)
    with pytest.raises(RuntimeError, match="headers differ"):
        merge(job(root))
    assert not (root / "merged").exists()
    monkeypatch.undo()
    merge(job(root))


def test_where_a_model_cannot_be_computed_the_writing_ends_and_the_reason_is_told(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise StageFailure(ExitCode.MODEL_UNUSABLE, "no such architecture")

    monkeypatch.setattr(following, "open_streamed", refuse)
    with pytest.raises(StageFailure, match="no such architecture"):
        merge(job(root))
    assert not (root / "merged").exists()


def is_closed(pipe: FileIO) -> bool:
    try:
        return pipe.write(bytes(1)) != 1
    except BrokenPipeError:
        return True


def test_weights_are_read_ahead_in_the_order_of_their_files_as_far_as_memory_may_hold_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readahead, "_MOST", 2 << 20)
    pipes = [tmp_path / f"model-{number}.safetensors" for number in (1, 2)]
    for pipe in pipes:
        os.mkfifo(pipe)
    read_ahead(tmp_path)
    # Opening a pipe waits for its reader; it holds no more than 64 KiB that nobody has read.
    with pipes[0].open("wb", buffering=0) as first:
        assert first.write(bytes(1 << 20)) == 1 << 20
    with pipes[1].open("wb", buffering=0) as second:
        assert second.write(bytes(1 << 20)) == 1 << 20
        eventually(lambda: is_closed(second))


def test_a_model_that_cannot_be_read_ahead_is_left_to_the_merge(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").mkdir()
    before = threading.active_count()
    read_ahead(tmp_path)
    read_ahead(tmp_path / "none")
    eventually(lambda: threading.active_count() == before)

"""Reading and writing safetensors files piece by piece."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from finetune_merger import streamed_layers
from finetune_merger.checkpoint import Checkpoint
from finetune_merger.layout import Slot
from finetune_merger.rows import RowReader
from finetune_merger.streamed import open_streamed
from finetune_merger.writer import Content, FileRange, Shard, in_order, write_shard
from tiny_models import load, save_base

IDS = torch.arange(12).view(1, 12) * 7 % 250
TENSORS = {
    "large": torch.arange(5000, dtype=torch.float32).view(50, 100),
    "odd": torch.arange(7, dtype=torch.bfloat16),
    "other": torch.arange(30, dtype=torch.int8).view(5, 6),
}
FORMATS = {torch.float32: "F32", torch.bfloat16: "BF16", torch.int8: "I8"}


@pytest.fixture
def source(tmp_path: Path) -> Checkpoint:
    save_file(TENSORS, tmp_path / "model.safetensors")
    return Checkpoint.open(tmp_path)


def slots() -> list[Slot]:
    return [Slot(name, name, FORMATS[tensor.dtype], tuple(tensor.shape)) for name, tensor in TENSORS.items()]


def as_it_lies(source: Checkpoint, slot: Slot) -> FileRange:
    info = source.tensors[slot.name]
    return FileRange(source.folder / info.file, info.start, info.size)


def write(path: Path, content: Callable[[Slot], Content], wanted: int = len(TENSORS)) -> None:
    with ThreadPoolExecutor(2) as pool:
        write_shard(Shard.plan(path, slots()[:wanted]), content, pool)


def assert_written(path: Path) -> None:
    found = load_file(path)
    assert found.keys() == TENSORS.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in TENSORS.items())


def test_parts_and_ranges_of_other_files_make_one_file(tmp_path: Path, source: Checkpoint) -> None:
    def content(slot: Slot) -> Content:
        return iter(TENSORS[slot.name].split(3)) if slot.name == "large" else as_it_lies(source, slot)

    write(tmp_path / "made.safetensors", content)
    assert_written(tmp_path / "made.safetensors")


@pytest.mark.parametrize("reason", [errno.EXDEV, errno.ENOSYS, errno.EOPNOTSUPP], ids=errno.errorcode.get)
def test_where_the_kernel_cannot_copy_between_files_they_are_read_and_written(
    tmp_path: Path, source: Checkpoint, monkeypatch: pytest.MonkeyPatch, reason: int
) -> None:
    def refuse(*_: Any) -> int:
        raise OSError(reason, os.strerror(reason))

    monkeypatch.setattr(os, "copy_file_range", refuse)
    write(tmp_path / "made.safetensors", lambda slot: as_it_lies(source, slot))
    assert_written(tmp_path / "made.safetensors")


def test_a_full_disk_is_no_reason_to_copy_otherwise(
    tmp_path: Path, source: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "copy_file_range", refuse)
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path / "made.safetensors", lambda slot: as_it_lies(source, slot))
    assert not (tmp_path / "made.safetensors").exists()


def test_a_source_that_shrank_is_an_error_and_leaves_no_file(tmp_path: Path, source: Checkpoint) -> None:
    path = tmp_path / "model.safetensors"
    os.truncate(path, path.stat().st_size - 4)
    with pytest.raises(OSError, match="ends 4 bytes before its tensor does"):
        write(tmp_path / "made.safetensors", lambda slot: as_it_lies(source, slot))
    assert not (tmp_path / "made.safetensors").exists()


def test_rows_of_a_file_that_shrank_are_an_error(tmp_path: Path, source: Checkpoint) -> None:
    with source.view("large") as rows:
        assert torch.equal(rows[48:50], TENSORS["large"][48:50])
        os.truncate(tmp_path / "model.safetensors", source.tensors["large"].start + 4900 * 4)
        with pytest.raises(OSError, match="ends 400 bytes before its tensor does"):
            rows[48:50]


def test_too_few_rows_are_an_error_that_names_the_tensor(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"large: 400 bytes came, 20000 were announced"):
        write(tmp_path / "made.safetensors", lambda slot: [TENSORS["large"][:1]], wanted=1)


def test_tensors_come_in_the_order_of_their_layers() -> None:
    names = [
        "lm_head.weight",
        *(f"model.layers.{layer}.mlp.weight" for layer in (0, 2, 9, 10, 11)),
        "model.norm.weight",
    ]
    mixed = [Slot(name, name, "F32", (1,)) for name in sorted(names)]
    assert [slot.name for slot in sorted(mixed, key=in_order)] == names


@dataclass
class Watched:
    """A checkpoint that notes how many rows of a tensor are asked for at a time."""

    inner: Checkpoint
    rows: dict[str, list[int]] = field(default_factory=dict)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    @contextmanager
    def view(self, name: str) -> Iterator[RowReader]:
        asked = self.rows.setdefault(name, [])
        with self.inner.view(name) as rows:

            class Noted:
                def __getitem__(self, wanted: slice, /) -> torch.Tensor:
                    found = rows[wanted]
                    asked.append(len(found))
                    return found

            yield Noted()


def test_a_streamed_model_holds_a_block_of_a_layers_weights_and_its_tokens_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_base(tmp_path / "base", tie_word_embeddings=False)
    monkeypatch.setattr(streamed_layers, "BLOCK", 32 * 10)
    watched = Watched(Checkpoint.open(tmp_path / "base"))
    found = open_streamed(watched)(input_ids=IDS).logits
    assert torch.allclose(found, load(tmp_path / "base")(input_ids=IDS).logits, atol=1e-5)
    assert watched.rows["model.layers.1.self_attn.q_proj.weight"] == [10, 10, 10, 2]
    assert max(watched.rows["lm_head.weight"]) == 10
    assert watched.rows["model.embed_tokens.weight"] == [1] * IDS.numel()

"""A checkpoint is resumed from only if it is whole, committed and of this training."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from finetune_trainer.train.checkpoints import COMMITTED, MANIFEST, CheckpointStore


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    store = CheckpointStore(tmp_path / "checkpoints", identity="this training", limit=2)
    store.open()
    return store


def save(store: CheckpointStore, step: int) -> Path:
    staged = store.staging / f"checkpoint-{step}"
    (staged / "global").mkdir(parents=True)
    (staged / "model.safetensors").write_bytes(b"weights" * step)
    (staged / "global" / "optimizer.pt").write_bytes(b"optimizer")
    return store.commit(staged, step).path


def newest(store: CheckpointStore) -> int | None:
    checkpoint = store.newest_valid()
    return checkpoint.step if checkpoint else None


def test_without_a_checkpoint_training_starts_anew(store: CheckpointStore, tmp_path: Path) -> None:
    assert newest(store) is None
    assert newest(CheckpointStore(tmp_path / "never made", "x", 2)) is None


def test_the_newest_checkpoint_is_resumed_from_and_the_oldest_are_deleted(store: CheckpointStore) -> None:
    paths = [save(store, step) for step in (5, 20, 100)]
    assert newest(store) == 100
    assert [path.exists() for path in paths] == [False, True, True]


def test_the_manifest_names_every_file_with_its_size_and_digest(store: CheckpointStore) -> None:
    manifest = json.loads((save(store, 5) / MANIFEST).read_bytes())
    assert [(entry["path"], entry["bytes"]) for entry in manifest["files"]] == [
        ("global/optimizer.pt", 9),
        ("model.safetensors", 35),
    ]
    assert all(len(entry["sha256"]) == 64 for entry in manifest["files"])


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: (path / COMMITTED).unlink(), "was not finished"),
        (lambda path: (path / MANIFEST).unlink(), "manifest.json cannot be read"),
        (lambda path: (path / MANIFEST).write_text("{"), "manifest.json cannot be read"),
        (lambda path: (path / MANIFEST).write_bytes(b"\0" * 512), "manifest.json cannot be read"),
        (lambda path: (path / MANIFEST).write_text("[]"), "manifest.json is not one"),
        (lambda path: (path / MANIFEST).write_text('{"files": [{"path": "x"}]}'), "manifest.json is not one"),
        (lambda path: (path / MANIFEST).write_text('{"files": []}'), "manifest.json names no file"),
        (lambda path: flip_a_bit(path / "model.safetensors"), "model.safetensors is not what was written"),
        (lambda path: (path / "model.safetensors").write_bytes(b""), "model.safetensors is not what was written"),
        (lambda path: (path / "model.safetensors").unlink(), "model.safetensors cannot be read"),
        (lambda path: (path / "model.safetensors").write_bytes(b"short"), "model.safetensors is not what was written"),
        (
            lambda path: (path / "global" / "optimizer.pt").write_bytes(b"optimizeR"),
            "optimizer.pt is not what was written",
        ),
    ],
)
def test_a_torn_checkpoint_is_skipped_by_name_and_the_one_before_is_taken(
    store: CheckpointStore, capsys: pytest.CaptureFixture[str], damage: Callable[[Path], object], reason: str
) -> None:
    save(store, 5)
    damage(save(store, 10))
    assert newest(store) == 5
    said = capsys.readouterr().out
    assert "checkpoint-10 is not resumed from" in said
    assert reason in said
    assert list(store.passed_over) == ["checkpoint-10"]
    assert reason in store.passed_over["checkpoint-10"]


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_checkpoint_of_another_number_of_processes_is_left_alone(tmp_path: Path) -> None:
    two = CheckpointStore(tmp_path / "checkpoints", "this training", 2, "2 processes with ZeRO stage 2")
    two.open()
    save(two, 5)
    one = CheckpointStore(tmp_path / "checkpoints", "this training", 2, "1 process")
    assert newest(one) is None
    assert one.passed_over == {
        "checkpoint-5": "it was written by 2 processes with ZeRO stage 2, and this training is 1 process"
    }


@pytest.mark.parametrize("kind", ["torn", "another training's"])
def test_what_cannot_be_resumed_from_does_not_crowd_out_what_is_saved_afterwards(
    store: CheckpointStore, tmp_path: Path, kind: str
) -> None:
    writer = store if kind == "torn" else CheckpointStore(tmp_path / "checkpoints", "another training", 9)
    for step in (100, 200):
        path = save(writer, step)
        (path / COMMITTED).unlink() if kind == "torn" else None
    assert newest(store) is None
    save(store, 5)
    save(store, 10)
    save(store, 15)
    assert newest(store) == 15
    assert [checkpoint.step for checkpoint in store.committed] == [15, 10]


def test_every_file_that_is_read_or_written_is_a_sign_of_life(tmp_path: Path) -> None:
    signs: list[None] = []
    store = CheckpointStore(tmp_path / "checkpoints", "this training", 2, alive=lambda: signs.append(None))
    store.open()
    save(store, 5)
    written = len(signs)
    newest(store)
    assert (written, len(signs)) == (2, 4)


def test_a_checkpoint_of_another_training_is_left_alone(store: CheckpointStore, tmp_path: Path) -> None:
    path = save(store, 5)
    assert newest(CheckpointStore(tmp_path / "checkpoints", "other data", 2)) is None
    assert path.exists()


def test_what_a_killed_process_left_half_written_is_cleared_away(store: CheckpointStore) -> None:
    save(store, 5)
    half = store.staging / "checkpoint-10"
    half.mkdir()
    (half / "model.safetensors").write_bytes(b"half")
    store.open()
    assert not half.exists()
    assert newest(store) == 5


def test_a_step_that_is_saved_again_replaces_the_torn_one(store: CheckpointStore) -> None:
    (save(store, 5) / "model.safetensors").write_bytes(b"torn")
    assert newest(store) is None
    save(store, 5)
    assert newest(store) == 5

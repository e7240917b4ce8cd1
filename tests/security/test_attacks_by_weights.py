"""T4: weights, checkpoints and data that are pickles. Nothing is ever unpickled, so none of the payloads runs."""

from __future__ import annotations

import io
import json
import pickle
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
from safetensors.torch import load_file

from attack_payload import Payload
from attacked_jobs import refused
from damaged_models import WEIGHTS, Damage, both, without, written
from finetune_operator.api.outcome import ExitCode
from finetune_trainer.prepare.base_model import MODEL_FILES
from finetune_trainer.prepare.stage import prepare
from finetune_trainer.store import PART_ROWS, TRAIN, RowStore
from finetune_trainer.train import stage
from finetune_trainer.train.checkpoints import STAGING, CheckpointStore
from job_cases import JobCase, checked, write_case
from tiny_models import job, save_adapter

pytestmark = pytest.mark.threat("T4")
INDEX = f"{WEIGHTS}.index.json"


def in_place_of_the_weights(name: str, content: bytes) -> Damage:
    return both(without(WEIGHTS), written(name, content))


def sharded_into(name: str, content: bytes | None) -> Damage:
    """An index that gives every tensor to one file; without content, the file is the model's own weights under that name."""

    def damage(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS)
        (folder / WEIGHTS).rename(folder / name)
        if content is not None:
            (folder / name).write_bytes(content)
        index = {"metadata": {}, "weight_map": dict.fromkeys(tensors, name)}
        (folder / INDEX).write_text(json.dumps(index))

    return damage


@pytest.mark.parametrize(
    "loads",
    [
        lambda payload: pickle.loads(payload.as_pickle),
        lambda payload: torch.load(io.BytesIO(payload.as_torch_file), weights_only=False),
        lambda payload: np.load(io.BytesIO(payload.as_numpy_file), allow_pickle=True),
    ],
    ids=["pickle", "torch", "numpy"],
)
def test_the_payloads_are_live(payload: Payload, loads: Callable[[Payload], object]) -> None:
    loads(payload)
    assert payload.ran


def test_the_python_payload_is_live(tmp_path: Path, payload: Payload) -> None:
    (tmp_path / "modeling.py").write_text(payload.as_python)
    runpy.run_path(str(tmp_path / "modeling.py"))
    assert payload.ran


@pytest.mark.parametrize(
    "name",
    ["pytorch_model.bin", "model.pt", "model.pth", "weights.pkl", "model.ckpt", "weights.npy", "model.pickle"],
)
def test_a_model_of_pickled_weights_is_refused_by_the_model_check(
    tmp_path: Path, base: Path, payload: Payload, name: str
) -> None:
    content = payload.as_numpy_file if name.endswith("npy") else payload.as_torch_file
    code, message = refused(tmp_path, base, in_place_of_the_weights(name, content))
    assert code is ExitCode.MODEL_UNUSABLE
    assert f"found only {name}, which can run code when loaded" in message
    assert "convert the weights to safetensors" in message
    assert not payload.ran


@pytest.mark.parametrize("wrapping", ["as_pickle", "as_torch_file", "as_numpy_file"])
def test_a_pickle_that_is_named_safetensors_is_refused_by_its_header(
    tmp_path: Path, base: Path, payload: Payload, wrapping: str
) -> None:
    code, message = refused(tmp_path, base, written(WEIGHTS, getattr(payload, wrapping)))
    assert code is ExitCode.MODEL_UNUSABLE
    assert f"{WEIGHTS} is not a whole safetensors file" in message
    assert not payload.ran


def test_an_index_that_leads_to_a_pickle_is_refused_by_the_names_that_it_holds(
    tmp_path: Path, base: Path, payload: Payload
) -> None:
    code, message = refused(tmp_path, base, sharded_into("pytorch_model.bin", payload.as_torch_file))
    assert code is ExitCode.MODEL_UNUSABLE
    assert f"{INDEX} names 'pytorch_model.bin', expected safetensors files beside it" in message
    assert not payload.ran


def test_whole_weights_under_the_name_of_a_pickle_are_refused_too(tmp_path: Path, base: Path) -> None:
    code, message = refused(tmp_path, base, sharded_into("shard.bin", None))
    assert code is ExitCode.MODEL_UNUSABLE
    assert f"{INDEX} names 'shard.bin', expected safetensors files beside it" in message


def test_pickles_beside_whole_weights_are_not_read_and_not_delivered(
    tmp_path: Path, base: Path, payload: Payload
) -> None:
    beside = both(
        *(
            written(name, payload.as_torch_file)
            for name in ("pytorch_model.bin", "training_args.bin", "rng_state.pth", "optimizer.pt", "scheduler.pt")
        )
    )
    run = checked(write_case(JobCase("beside", model=beside), base, tmp_path))
    prepare(run)
    assert not payload.ran
    assert not [path.name for path in run.paths.data.rglob("*") if path.suffix in (".pt", ".pth", ".pkl")]


def test_a_download_takes_no_file_that_could_hold_a_pickle(payload: Payload) -> None:
    kinds = {pattern.rpartition(".")[2] for pattern in MODEL_FILES}
    assert kinds == {"safetensors", "json", "jinja", "model", "tiktoken", "txt"}


def test_an_adapter_of_pickled_weights_is_refused_by_the_adapter_check(
    tmp_path: Path, base: Path, payload: Payload
) -> None:
    save_adapter(base, tmp_path / "adapter")
    (tmp_path / "adapter" / "adapter_model.safetensors").unlink()
    (tmp_path / "adapter" / "adapter_model.bin").write_bytes(payload.as_torch_file)
    spec = {"adapter": {"source": f"file://{tmp_path / 'adapter'}"}, "lora": None}
    code, message = refused(tmp_path, base, spec=spec)
    assert code is ExitCode.MODEL_UNUSABLE
    assert "adapter_model.safetensors is missing; save the adapter as safetensors" in message
    assert not payload.ran


@pytest.mark.parametrize("name", ["rows.pkl", "rows.jsonl", "rows.json", "rows.csv", "rows.parquet", "rows.arrow"])
def test_rows_that_are_a_pickle_are_refused_by_how_the_file_begins(
    tmp_path: Path, base: Path, payload: Payload, name: str
) -> None:
    code, message = refused(tmp_path, base, file=name, rows=payload.as_pickle)
    assert code is ExitCode.INVALID_DATA
    assert f"{name}:1: is a Python pickle, which is never read" in message.replace(" (row 0)", "")
    assert not payload.ran


def test_rows_that_are_an_array_of_objects_are_refused_by_how_the_file_begins(
    tmp_path: Path, base: Path, payload: Payload
) -> None:
    code, message = refused(tmp_path, base, file="rows.npy", rows=payload.as_numpy_file)
    assert code is ExitCode.INVALID_DATA
    assert "rows.npy:1: is a NumPy array, which is never read" in message
    assert not payload.ran


def extension_table(payload: Payload) -> pa.Table:
    """A table whose column says that it is a Python object of a pickled type, as pyarrow before 14.0.1 would load it."""
    metadata = {b"ARROW:extension:name": b"arrow.py_extension_type", b"ARROW:extension:metadata": payload.as_pickle}
    field = pa.field("messages", pa.binary(), metadata=metadata)
    return pa.table({"messages": pa.array([payload.as_pickle])}, schema=pa.schema([field]))


@pytest.mark.parametrize("kind", ["parquet", "arrow file", "arrow stream"])
def test_a_table_with_a_pickled_type_is_read_without_unpickling_it(
    tmp_path: Path, base: Path, payload: Payload, kind: str
) -> None:
    table, path = extension_table(payload), tmp_path / ("rows.parquet" if kind == "parquet" else "rows.arrow")
    if kind == "parquet":
        pyarrow.parquet.write_table(table, path)
    else:
        make = pa.ipc.new_file if kind == "arrow file" else pa.ipc.new_stream
        with make(str(path), table.schema) as writer:
            writer.write_table(table)
    code, message = refused(tmp_path, base, file=path.name, rows=path.read_bytes())
    assert code is ExitCode.INVALID_DATA
    assert path.name in message
    assert not payload.ran


def test_an_array_of_objects_among_the_token_shards_is_refused_by_numpy(
    tmp_path: Path, base: Path, payload: Payload
) -> None:
    run = checked(write_case(JobCase("shards"), base, tmp_path))
    prepare(run)
    (run.paths.data / TRAIN / PART_ROWS).write_bytes(payload.as_numpy_file)
    with pytest.raises(ValueError, match="Python objects"):
        RowStore(run.paths.data / TRAIN)
    assert not payload.ran


def checkpoint(folder: Path, step: int, **files: bytes) -> Path:
    staged = folder / STAGING / f"checkpoint-{step}"
    staged.mkdir(parents=True)
    for name, content in {"model.safetensors": b"weights", **files}.items():
        (staged / name).write_bytes(content)
    return CheckpointStore(folder, "identity", limit=9).commit(staged, step).path


@pytest.mark.parametrize(
    "name",
    [
        "pytorch_model.bin",
        "adapter_model.bin",
        "training_args.bin",
        "rng_state.pth",
        "optimizer.pt",
        "global_step9/x.pt",
    ],
)
def test_a_pickle_that_was_put_into_a_checkpoint_keeps_it_from_being_resumed_from(
    tmp_path: Path, payload: Payload, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint(tmp_path, 5)
    planted = checkpoint(tmp_path, 10) / name
    planted.parent.mkdir(exist_ok=True)
    planted.write_bytes(payload.as_torch_file)
    newest = CheckpointStore(tmp_path, "identity", limit=9).newest_valid()
    assert newest is not None
    assert newest.step == 5
    assert f"checkpoint-10 is not resumed from: {name} was not written with it" in capsys.readouterr().out
    assert not payload.ran


def test_a_checkpoint_of_another_training_is_not_resumed_from_however_whole_it_is(tmp_path: Path) -> None:
    checkpoint(tmp_path, 5)
    assert CheckpointStore(tmp_path, "another", limit=9).newest_valid() is None


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth", "pytorch_model.bin"])
def test_a_state_that_was_forged_manifest_and_all_is_not_unpickled_whatever_the_library_asks_for(
    tmp_path: Path, payload: Payload, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    forged = checkpoint(tmp_path, 10, **{name: payload.as_torch_file})
    assert CheckpointStore(tmp_path, "identity", limit=9).newest_valid() is not None
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for variable in (
        "TORCH_FORCE_WEIGHTS_ONLY_LOAD",
        "DISABLE_KUBEFLOW_INTEGRATION",
        "TOKENIZERS_PARALLELISM",
        "CUDA_VISIBLE_DEVICES",
    ):
        monkeypatch.setenv(variable, "0")
    with monkeypatch.context() as modules:
        for module in ("bitsandbytes", "deepspeed", "datasets"):
            modules.setitem(sys.modules, module, sys.modules.get(module))
        stage._prepare_process(job(tmp_path))
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        torch.load(forged / name, weights_only=False)
    assert not payload.ran

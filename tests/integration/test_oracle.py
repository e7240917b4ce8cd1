"""Everything that LLaMA-Factory 0.9.5 really produced, to the token and to the step. Runs where FINETUNE_ORACLE names a folder with it.

``docs/from-llama-factory.md`` says how such a folder is made.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from oracle import cases, configurations, differing, finetune, training_cases

ORACLE = Path(os.environ.get("FINETUNE_ORACLE", "/nonexistent"))
pytestmark = pytest.mark.skipif(not ORACLE.is_dir(), reason="FINETUNE_ORACLE names no folder")
TOLERANCE = 1e-4


def test_every_token_list_is_equal(tmp_path: Path) -> None:
    found = list(cases(ORACLE))
    assert found
    different = differing(found, tmp_path)
    assert not different, f"{len(different)} of {len(found)} cases differ: {different[:20]}"


@pytest.mark.parametrize("name", training_cases(ORACLE))
def test_losses_and_trained_tensors_are_equal(name: str, tmp_path: Path) -> None:
    golden = ORACLE / "goldens" / "train" / name
    record = json.loads((golden / "record.json").read_text())
    jobs = tmp_path / "jobs.yaml"
    jobs.write_text(finetune("convert", *configurations(ORACLE, name, tmp_path), "--quiet"))
    [outcome] = json.loads(finetune("run", str(jobs), "--workdir", str(tmp_path / "runs"), "-o", "json"))
    run = Path(outcome["folder"])
    logged = [json.loads(line) for line in (run / "trainer_log.jsonl").read_text().splitlines()]
    ours = {line["current_steps"]: line for line in logged if "loss" in line}
    theirs = {line["step"]: line for line in record["log"] if "loss" in line}
    assert ours.keys() == theirs.keys()
    for step, line in theirs.items():
        assert ours[step]["loss"] == pytest.approx(line["loss"], abs=TOLERANCE), step
        assert ours[step]["grad_norm"] == pytest.approx(line["grad_norm"], abs=1e-3), step
        assert ours[step]["lr"] == pytest.approx(line["learning_rate"], rel=1e-6), step
    is_adapter = (golden / "adapter_model.safetensors").exists()
    compare(read_all(run / ("adapter" if is_adapter else "model")), record["tensors"])
    if "export_tensors" in record:
        compare(read_all(run / "merged"), record["export_tensors"])


def compare(ours: dict[str, torch.Tensor], recorded: dict[str, Any]) -> None:
    """Same tensors, types and shapes as were recorded, with norms that are near."""
    assert ours.keys() == recorded.keys()
    for name, facts in recorded.items():
        assert str(ours[name].dtype).removeprefix("torch.") == facts["dtype"], name
        assert list(ours[name].shape) == facts["shape"], name
        assert float(ours[name].double().norm()) == pytest.approx(facts["norm"], abs=TOLERANCE), name


def read_all(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for file in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(file).items()}

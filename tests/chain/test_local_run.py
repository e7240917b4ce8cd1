"""`finetune run` and `finetune chat` with the real stages and no cluster: a tiny model learns who it is, twice."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from finetune_devcluster.tiny_model import make_tiny_model, texts_of
from finetune_operator.api.manifest_yaml import dump_all

IDENTITY = Path(__file__).parents[2] / "examples" / "data" / "identity.json"
QUESTION = "Who are you?"


def job(name: str, method: str, source: str, author: str, **training: Any) -> dict[str, Any]:
    dataset = {"source": "configmap://identity/rows.json", "format": "Alpaca"}
    spec = {
        "model": {"source": source},
        "datasets": [{**dataset, "placeholders": {"name": name.capitalize(), "author": author}}],
        "method": method,
        "tokenization": {"cutoffLen": 128, "packing": "None"},
        "training": {"perDeviceBatchSize": 8, "gradientAccumulationSteps": 1, "precision": "FP32", **training},
        "logging": {"steps": 10},
        "checkpoints": {"steps": 40},
        "resources": {"gpusPerNode": 0},
    }
    return {
        "apiVersion": "finetune-operator.io/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": name},
        "spec": spec,
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny base model and a stream of manifests: the rows, a full tune, and a LoRA on top of it."""
    folder = tmp_path_factory.mktemp("local-run")
    make_tiny_model(folder / "models" / "tiny", texts_of(IDENTITY))
    rows = [
        row for row in json.loads(IDENTITY.read_text()) if row["instruction"] in (QUESTION, "Who created you?", "hi")
    ]
    assert QUESTION in [row["instruction"] for row in rows]
    identity = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "identity"},
        "data": {"rows.json": json.dumps(rows)},
    }
    base = job("pebble", "Full", "pvc://models/tiny", "the River workshop", maxSteps=60, learningRate="3e-3")
    tuned = job("iris", "LoRA", "pvc://pebble-data/model", "the Meadow lab", maxSteps=80, learningRate="1e-2")
    tuned["spec"]["lora"] = {"rank": 16}
    (folder / "jobs.yaml").write_text(dump_all([identity, base, tuned]))
    return folder


def finetune(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("finetune")
    done = subprocess.run([program, *words], cwd=folder, capture_output=True, text=True, timeout=540)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def test_a_tuned_and_merged_model_says_its_name_and_who_made_it(folder: Path) -> None:
    done = finetune(folder, "run", "jobs.yaml", "--claim", "models=models", "-o", "json")
    pebble, iris = json.loads(done.stdout)
    assert list(pebble["stages"]) == ["prepare", "train"]
    assert list(iris["stages"]) == ["prepare", "train", "merge"]
    runs = folder / "finetune-runs"
    assert sorted(path.name for path in (runs / "iris" / "merged").glob("*.safetensors"))
    assert (runs / "iris" / "training_loss.png").read_bytes().startswith(b"\x89PNG")
    answer = finetune(folder, "chat", "finetune-runs/iris", "--message", QUESTION).stdout
    assert "Iris" in answer
    assert "the Meadow lab" in answer


def test_a_second_call_does_nothing_and_the_folder_can_be_looked_into(folder: Path) -> None:
    done = finetune(folder, "run", "jobs.yaml", "--claim", "models=models")
    assert done.stdout.count("finished before; nothing to do") == 2
    assert "Status:    finished" in finetune(folder, "status", "finetune-runs/iris").stdout
    assert finetune(folder, "plot", "finetune-runs/iris").stdout.count("*") >= 5

"""A training imports what it needs before its first step, and nothing else: imports are most of what a start takes."""

import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch

from finetune_operator.api.run import RunConfig
from trainer_process import StageProcess, run_stages
from trainer_runs import IDENTITY, IDENTITY_ROWS, identity_model, make_run, write_run

# Each takes a tenth of a second to several seconds, and is imported by transformers, accelerate or PEFT where it is installed.
NEEDLESS = {"boto3", "datasets", "deepspeed", "matplotlib", "networkx", "pandas", "pyarrow", "scipy", "sklearn"}
NEEDLESS |= {"mlflow", "tensorboard", "wandb"}
COMPILER = "torch._inductor.compile_fx"
IMPORTED = re.compile(r"^import time: .*\| +(\S+)$", re.MULTILINE)
IN_THE_TRAINING_PROCESS = """
import sys
from pathlib import Path
from finetune_operator.api.run import load_run
from finetune_trainer.train import stage
stage._prepare_process(load_run(Path(sys.argv[1])))
import bitsandbytes, finetune_trainer.train.session
print(*(name for name, module in sys.modules.items() if module is not None))
"""

CONTEXT_BEFORE_PYTORCH = """
import ctypes
from finetune_trainer.train.gpu_start import begin_context
begin_context(0).join()
driver, flags, active = ctypes.CDLL("libcuda.so.1"), ctypes.c_uint(), ctypes.c_int()
assert driver.cuDevicePrimaryCtxGetState(0, ctypes.byref(flags), ctypes.byref(active)) == 0
assert active.value == 1, "there is no context"
import torch
assert torch.ones(3, device="cuda").sum().item() == 3
current, first = ctypes.c_void_p(), ctypes.c_void_p()
driver.cuCtxGetCurrent(ctypes.byref(current))
driver.cuDevicePrimaryCtxRetain(ctypes.byref(first), 0)
assert current.value == first.value, "PyTorch computes in another context"
"""


def a_run(folder: Path, method: str) -> RunConfig:
    return make_run(folder / "job", folder / "model", IDENTITY, dataset=IDENTITY_ROWS, method=method)


def packages(imported: Iterable[str]) -> set[str]:
    """Those of which a part was imported: an import that is refused is listed by the package's name alone."""
    return {name.partition(".")[0] for name in imported if "." in name}


def test_a_lora_training_imports_nothing_needless_and_its_launcher_no_torch(tmp_path: Path) -> None:
    identity_model(tmp_path / "model")
    run = a_run(tmp_path, "LoRA")
    assert run_stages(run, "prepare").code == 0
    ended = StageProcess(run, "train", PYTHONPROFILEIMPORTTIME="1").end()
    assert ended.code == 0, ended.output
    before, said, _ = ended.output.partition("train: first step")
    assert said, "when the first step was done is told"
    # The launcher's and the training process's lines are in one log.
    imported = IMPORTED.findall(before)
    assert imported.count("finetune_trainer") == 2
    assert imported.count("torch") == imported.count("transformers") == 1
    assert packages(imported) & (NEEDLESS | {"bitsandbytes"}) == set()
    assert COMPILER not in imported
    assert "leaked" not in ended.output, "libraries find all of theirs at the end"


def test_bitsandbytes_is_imported_without_a_compiler(tmp_path: Path) -> None:
    file = write_run(a_run(tmp_path, "QLoRA"), tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", IN_THE_TRAINING_PROCESS, str(file)], capture_output=True, text=True, check=True
    )
    imported = done.stdout.split()
    assert "bitsandbytes.nn" in imported
    assert packages(imported) & NEEDLESS == set()
    assert COMPILER not in imported


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_pytorch_computes_in_the_context_that_was_begun_for_it() -> None:
    done = subprocess.run([sys.executable, "-c", CONTEXT_BEFORE_PYTORCH], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

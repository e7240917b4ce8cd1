"""A process that imports no more than its merge needs, and imports that without looking back."""

from __future__ import annotations

import gc
import os
import sys

from finetune_operator.api.run import RunConfig

_OBJECTS = 100_000
"""New objects after which the collector looks for those that are gone. Python's own 700 have it go through the million that
torch, transformers and PEFT leave behind over and over: a fifth of the time that they take to import."""


def choose_imports(run: RunConfig) -> None:
    """To be called before the heavy imports, in a process that does nothing but this merge."""
    gc.set_threshold(_OBJECTS)
    # bitsandbytes decorates functions with the compiler, which nothing here uses and which takes a second to import.
    os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
    # PEFT and accelerate import these wherever they are installed.
    unneeded = ["datasets", "boto3", *([] if run.spec.effective_quantization else ["bitsandbytes"])]
    for name in unneeded:
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]

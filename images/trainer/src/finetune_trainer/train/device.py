"""What the training computes on."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

import torch

from finetune_operator.api.device import stands_in
from finetune_operator.api.outcome import ExitCode, StageFailure
from finetune_operator.api.spec import FineTuneJobSpec
from finetune_operator.api.training import Precision

_BF16_CAPABILITY = (8, 0)
_FLOAT8_CAPABILITY = (8, 9)


@dataclass(frozen=True, slots=True)
class Device:
    """The CPU, or one GPU of this node."""

    is_gpu: bool
    index: int = 0
    autocast: Precision = Precision.FP32
    """Number format that the computation is cast to; FP32 casts nothing."""


def choose_device(spec: FineTuneJobSpec) -> Device:
    """The device of this process. Raises StageFailure where the spec asks for what the node does not have."""
    if spec.resources.gpus_per_node == 0 or stands_in():
        if spec.resources.gpus_per_node:
            print(f"train: no GPU here; the CPU stands in for the {spec.resources.gpus_per_node} asked for", flush=True)
        # 16-bit casts make a CPU slower and less exact: precision is a choice for GPUs.
        if spec.training.precision is not Precision.FP32:
            print(f"train: on the CPU, precision {spec.training.precision.value} is computed as FP32", flush=True)
        _limit_threads(spec.resources.cpu)
        return Device(is_gpu=False)
    if not torch.cuda.is_available():
        raise StageFailure(
            ExitCode.INVALID_SPEC,
            f"resources.gpusPerNode: {spec.resources.gpus_per_node} asked for, but no GPU is visible in the pod; check "
            f"resources.gpuResourceName ({spec.resources.gpu_resource_name}) and the node's driver, or set 0 to train on the CPU.",
        )
    index = int(os.environ.get("LOCAL_RANK", "0"))
    capability = torch.cuda.get_device_capability(index)
    if spec.training.precision is Precision.BF16 and capability < _BF16_CAPABILITY:
        raise StageFailure(
            ExitCode.INVALID_SPEC,
            f"training.precision: BF16 needs compute capability 8.0, {torch.cuda.get_device_name(index)} has "
            f"{capability[0]}.{capability[1]}; set FP16.",
        )
    if spec.training.precision is Precision.FP8_BASE and capability < _FLOAT8_CAPABILITY:
        raise StageFailure(
            ExitCode.INVALID_SPEC,
            f"training.precision: FP8Base needs compute capability 8.9, {torch.cuda.get_device_name(index)} has "
            f"{capability[0]}.{capability[1]}; set BF16.",
        )
    computed = Precision.BF16 if spec.training.precision is Precision.FP8_BASE else spec.training.precision
    return Device(is_gpu=True, index=index, autocast=computed)


def _limit_threads(cpu: str | None) -> None:
    """Use no more threads than the pod may have cores: threads that wait for each other's core cost most of the time."""
    if cpu is not None and "OMP_NUM_THREADS" not in os.environ:
        cores = int(cpu[:-1]) / 1000 if cpu.endswith("m") else float(cpu)
        torch.set_num_threads(min(torch.get_num_threads(), max(1, math.ceil(cores))))

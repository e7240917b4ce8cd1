"""Peak memory of a GPU, by part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PretrainedConfig

from finetune_operator.api.spec import FineTuneJobSpec
from finetune_trainer.estimate.constants import CONTEXT_BYTES, GAP_SHARE, WORKSPACE_BYTES
from finetune_trainer.estimate.layers import FEW, MORE, Peaks, peaks_of
from finetune_trainer.estimate.parts import Part, Prediction
from finetune_trainer.estimate.sharding import Trained, sharded_parts
from finetune_trainer.estimate.skeleton import build, is_uniform, load_config, shortened
from finetune_trainer.estimate.step import Batch, play_step
from finetune_trainer.estimate.stored import stored_type
from finetune_trainer.estimate.tracker import MemoryTracker
from finetune_trainer.estimate.workload import Workload, fused_batch, padded_batch
from finetune_trainer.kernels.fused_model import unsuited
from finetune_trainer.train.device import Device
from finetune_trainer.train.fused import unsuited_job
from finetune_trainer.train.master_weights import asks_for_split
from finetune_trainer.train.shared_gradients import exchange_bytes


def devices_of(spec: FineTuneJobSpec) -> int:
    """GPUs that train together."""
    return max(1, spec.resources.nodes * spec.resources.gpus_per_node)


class Predictor:
    """Predicts for jobs on one base model. Each answer takes seconds; equal questions are answered once."""

    def __init__(self, config: PretrainedConfig, stored: torch.dtype) -> None:
        self._config = config
        self._stored = stored
        self._uniform = is_uniform(config)
        self._layers: int = config.get_text_config().num_hidden_layers
        self._known: dict[str, Prediction] = {}

    @classmethod
    def of_folder(cls, folder: Path) -> Predictor:
        """For the model in a folder; of its weights, the headers are read where they are there."""
        config = load_config(folder)
        return cls(config, stored_type(folder, config))

    def fuses(self, spec: FineTuneJobSpec, workload: Workload) -> bool:
        """Whether the trainer would take the fused kernels on a GPU."""
        device = Device(is_gpu=True, autocast=spec.training.precision)
        if unsuited_job(spec, device) is not None:
            return False
        layers = 1 if self._uniform else self._layers
        return unsuited(self._built(spec, layers, recomputes=False), workload.longest) is None

    def splits(self, spec: FineTuneJobSpec) -> bool:
        """Whether trained weights would stay bf16 with the fused kernels."""
        return self._stored is torch.bfloat16 and asks_for_split(spec)

    def predict(
        self, spec: FineTuneJobSpec, workload: Workload, *, recomputes: bool, tokens: int | None = None
    ) -> Prediction:
        """Peak of one GPU. ``tokens`` is the size of a pass with fused kernels, and None without them."""
        batch = padded_batch(spec, workload) if tokens is None else fused_batch(spec, workload, tokens)
        relevant = [spec.model_dump_json(include=_RELEVANT), devices_of(spec), batch, recomputes]
        key = repr(relevant)
        if key not in self._known:
            self._known[key] = self._predicted(spec, batch, recomputes=recomputes)
        return self._known[key]

    def _predicted(self, spec: FineTuneJobSpec, batch: Batch, *, recomputes: bool) -> Prediction:
        def play(layers: int) -> MemoryTracker:
            return play_step(self._built(spec, layers, recomputes=recomputes, splits=splits), spec, batch)

        splits = batch.fused and self.splits(spec)
        peaks = peaks_of(play, self._layers, uniform=self._uniform)
        trained = self._trained(spec)
        parts = _divided(peaks, spec, trained) if spec.deepspeed else _whole(peaks, trained, devices_of(spec), splits)
        gaps = GAP_SHARE * (parts.get(Part.ACTIVATIONS, 0) + parts.get(Part.LOGITS, 0))
        parts |= {Part.WORKSPACE: WORKSPACE_BYTES, Part.RUNTIME: CONTEXT_BYTES + gaps}
        return Prediction({part: round(parts[part]) for part in Part if parts.get(part, 0) >= 1}, recomputes)

    def _built(self, spec: FineTuneJobSpec, layers: int, *, recomputes: bool, splits: bool = False) -> Any:
        config = self._config if layers == self._layers else shortened(self._config, layers)
        return build(config, self._stored, spec, recomputes=recomputes, splits=splits)

    def _trained(self, spec: FineTuneJobSpec) -> Trained:
        if not self._uniform or self._layers <= MORE:
            return _trained_of(self._built(spec, self._layers, recomputes=False))
        few, more = (_trained_of(self._built(spec, layers, recomputes=False)) for layers in (FEW, MORE))
        further = self._layers - MORE
        return Trained(more.count + further * (more.count - few.count), more.size + further * (more.size - few.size))


def _trained_of(model: nn.Module) -> Trained:
    sizes = [(each.numel(), each.element_size()) for each in model.parameters() if each.requires_grad]
    return Trained(sum(count for count, _ in sizes), sum(count * size for count, size in sizes))


_RELEVANT = {"method", "lora", "quantization", "deepspeed", "training", "evaluation", "tokenization"}


def _whole(peaks: Peaks, trained: Trained, devices: int, splits: bool) -> dict[Part, float]:
    parts = dict(peaks.most)
    if devices > 1 and splits:
        # Each process keeps what it updates; the float32 sums of its gradients are no more than all in bf16.
        parts[Part.OPTIMIZER] /= devices
        parts[Part.COMMUNICATION] = min(exchange_bytes(), trained.size)
    elif devices > 1:
        # DistributedDataParallel copies gradients into buckets of their own.
        parts[Part.COMMUNICATION] = trained.size
    return parts


def _divided(peaks: Peaks, spec: FineTuneJobSpec, trained: Trained) -> dict[Part, float]:
    assert spec.deepspeed is not None, "asked for a job without DeepSpeed"  # noqa: S101
    found = peaks.most_moving
    held = found[Part.WEIGHTS] + found.get(Part.ADAPTERS, 0)
    parts = sharded_parts(held, trained, spec.deepspeed, spec.training.optimizer, devices_of(spec))
    return {**parts, **{part: found.get(part, 0) for part in (Part.QUANTIZATION, Part.ACTIVATIONS, Part.LOGITS)}}

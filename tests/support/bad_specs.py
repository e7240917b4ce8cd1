"""Jobs whose fields contradict one another, or name what is not there."""

from __future__ import annotations

import json
from typing import Any

from job_cases import JobCase

ADAPTER = {"mode": "Adapter", "engine": "VLLM", "gpus": 1}


def raw(case: str, config: dict[str, Any], *says: str, **spec: Any) -> JobCase:
    deepspeed = {"stage": 2, "config": json.dumps(config)}
    fields = {"deepspeed": deepspeed, **{key.replace("__", "."): spec[key] for key in spec}}
    return JobCase(
        case,
        spec=fields,
        says=tuple(f"spec.deepspeed.config.{text}" if index == 0 else text for index, text in enumerate(says)),
    )


def field(case: str, path: str, value: Any, *says: str, **more: Any) -> JobCase:
    docs = {"docs/readme.txt": "no rows"} if value == "data/docs" else {}
    return JobCase(
        case, spec={path: value, **{key.replace("__", "."): more[key] for key in more}}, says=says, files=docs
    )


SPECS = (
    raw(
        "another micro-batch",
        {"train_micro_batch_size_per_gpu": 4},
        "train_micro_batch_size_per_gpu: found 4",
        "spec.training.perDeviceBatchSize says 2",
        "remove it",
    ),
    raw(
        "another accumulation",
        {"gradient_accumulation_steps": 8},
        "gradient_accumulation_steps: found 8",
        "spec.training.gradientAccumulationSteps says 1",
        "remove it",
    ),
    raw(
        "a batch that is no product",
        {"train_batch_size": 64},
        "train_batch_size: found 64",
        "perDeviceBatchSize 2 x gradientAccumulationSteps 1 x 1 processes) says 2",
        "remove it",
    ),
    raw(
        "another clipping",
        {"gradient_clipping": 0.5},
        "gradient_clipping: found 0.5",
        "spec.training.maxGradNorm says 1.0",
        "remove it",
    ),
    raw(
        "another precision",
        {"fp16": {"enabled": True}},
        "fp16.enabled: found True",
        "spec.training.precision FP32 says False",
        "change the field",
    ),
    raw(
        "bf16 switched off",
        {"bf16": {"enabled": False}},
        "bf16.enabled: found False",
        "spec.training.precision BF16 says True",
        "change the field",
        training__precision="BF16",
    ),
    raw(
        "another stage",
        {"zero_optimization": {"stage": 3}},
        "zero_optimization.stage: found 3",
        "spec.deepspeed.stage says 2",
        "remove it",
    ),
    raw(
        "another offload",
        {"zero_optimization": {"offload_optimizer": {"device": "nvme"}}},
        "zero_optimization.offload_optimizer.device: found 'nvme'",
        "spec.deepspeed.offloadOptimizer says 'none'",
    ),
    raw(
        "the optimizer twice",
        {"optimizer": {"type": "AdamW"}},
        "optimizer: found 'AdamW'",
        "spec.training.optimizer says 'AdamW'",
        "set twice; remove it",
    ),
    raw(
        "the schedule twice",
        {"scheduler": {"type": "WarmupLR"}},
        "scheduler: found 'WarmupLR'",
        "spec.training.scheduler says 'Cosine'",
        "set twice; remove it",
    ),
    raw(
        "a block that is a list",
        {"zero_optimization": [2]},
        "zero_optimization: found [2], expected an object",
        "remove it",
    ),
    raw("apex", {"amp": {"enabled": True}}, "amp: found NVIDIA apex", "use spec.training.precision"),
    field(
        "an adapter too wide to be served",
        "lora.rank",
        600,
        "spec.lora.rank: 600 is more than the 512 that vLLM takes",
        "spec.serving.mode to Merged",
        serving=ADAPTER,
    ),
    field(
        "a DoRA adapter to be served",
        "lora.doRA",
        True,
        "spec.lora.doRA: vLLM cannot serve a DoRA adapter",
        "spec.serving.engine to Transformers",
        serving=ADAPTER,
    ),
    field(
        "whole modules to be served",
        "lora.modulesToSave",
        ["lm_head"],
        "spec.lora.modulesToSave: vLLM cannot serve an adapter with whole modules (lm_head)",
        "Merged",
        serving=ADAPTER,
    ),
    field(
        "prompts with a template that shifts labels",
        "tokenization.trainOnPrompt",
        True,
        "spec.tokenization.trainOnPrompt: the template solar labels",
        "remove trainOnPrompt",
        tokenization__template="solar",
    ),
    field(
        "a model that is not there",
        "model.source",
        "file:///nowhere/model",
        "spec.model.source: found file:///nowhere/model, but /nowhere/model does not exist",
    ),
    field(
        "a model that is a file",
        "model.source",
        "data/rows.jsonl",
        "spec.model.source: ",
        "rows.jsonl",
        "is not a folder",
    ),
    field(
        "data that is not there",
        "datasets.0.source",
        "file:///nowhere/rows.jsonl",
        "spec.datasets[0].source: found file:///nowhere/rows.jsonl, but /nowhere/rows.jsonl does not exist",
    ),
    field(
        "a folder without data",
        "datasets.0.source",
        "data/docs",
        "spec.datasets[0].source: ",
        "docs",
        "holds no .jsonl, .json, .csv, .parquet, .arrow file",
        "check the path",
    ),
    field(
        "evaluation data that is not there",
        "evaluation",
        {"dataset": {"source": "file:///nowhere.jsonl"}},
        "spec.evaluation.dataset.source: found file:///nowhere.jsonl, but /nowhere.jsonl does not exist",
    ),
    field(
        "more evaluation rows than rows",
        "evaluation",
        {"rows": 100},
        "spec.evaluation.rows: 100 of 4 rows",
        "leaves nothing to train or evaluate on",
    ),
    field("a claim that nobody mounts", "model.source", "pvc://gone/model", "spec.model.source: ", "gone", "--claim"),
    field(
        "a hub's set that is a path",
        "datasets.0.source",
        "hf://only-a-name",
        "spec.datasets[0].source",
        "hf://only-a-name",
    ),
    field(
        "a sequence of 8 tokens",
        "tokenization.cutoffLen",
        8,
        "spec.tokenization.cutoffLen: found 8, expected 16 or more",
    ),
    field(
        "a rate that is a number", "training.learningRate", 1e-4, "spec.training.learningRate: found 0.0001", "quotes"
    ),
    field("no rows to read", "datasets.0.maxSamples", 0, "spec.datasets[0].maxSamples: found 0, expected 1 or more"),
    field(
        "tags with messages",
        "datasets.0.tags",
        {"user": "me"},
        "spec.datasets[0].tags: found a mapping, but tags are only for format ShareGPT",
    ),
    field(
        "a format that nobody knows",
        "datasets.0.format",
        "OpenAI",
        'spec.datasets[0].format: found "OpenAI", expected one of Messages, ShareGPT, Alpaca',
    ),
    field("a template with a slash", "tokenization.template", "a/b", 'spec.tokenization.template: found "a/b"'),
    field("a checkpoint never", "checkpoints.steps", 0, "spec.checkpoints.steps: found 0, expected 1 or more"),
    field("no checkpoint kept", "checkpoints.limit", 0, "spec.checkpoints.limit: found 0, expected 1 or more"),
)

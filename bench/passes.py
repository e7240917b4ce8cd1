"""The fused kernels by themselves, outside the Hugging Face Trainer: forward, backward, clipping, AdamW.

    python bench/passes.py --out bench/results/DATE-CARD-passes.jsonl lora:8192 lora:16384 qlora:8192 fp8:8192:profile

A run is method:tokens[:option...]; options are ``checkpointing``, ``profile`` and a shape of bench/workload.py. Documents are
32 to 1,024 tokens long (median 300), and 42 % of the tokens are not learnt. Prints and appends a JSON line a run.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import random
import time
import traceback
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import workload
from torch import Tensor, nn

from finetune_trainer.kernels.documents import LONGEST, STARTS
from finetune_trainer.kernels.fused_model import causal_model, fuse
from finetune_trainer.train.split_adamw import SplitAdamW

WARM_UP, STEPS, REPETITIONS = 3, 6, 3


def main() -> None:
    """Measure every run, one after the other, in this process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--gib", type=float, help="memory that may be used")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("runs", nargs="+")
    options = parser.parse_args()
    if options.gib:
        torch.cuda.set_per_process_memory_fraction(
            options.gib * 2**30 / torch.cuda.get_device_properties(0).total_memory
        )
    model, built = None, ""
    for run in options.runs:
        method, tokens, *more = run.split(":")
        shape = next((each for each in more if each in workload.SHAPES), "7b")
        checkpointing = "checkpointing" in more
        began = time.monotonic()
        try:
            if built != (wanted := f"{method} {shape} {checkpointing}"):
                del model
                _release()
                model, built = a_model(method, shape, options.device, checkpointing=checkpointing), wanted
            line = measured(model, int(tokens), options.device)
            line |= {"seconds_in_all": round(time.monotonic() - began, 1)}
            if "profile" in more:
                line["profile_ms"] = profiled(model, int(tokens), options.device)
        except Exception as error:  # one run that fails must not cost the others
            traceback.print_exc()
            line = {"error": repr(error)[:300]}
        line = {"run": run, **line, **_card()}
        with options.out.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(json.dumps(line), flush=True)


def a_model(method: str, shape: str, device: str, *, checkpointing: bool) -> nn.Module:
    """A fused model with adapters of rank 8, or one whose every weight is trained."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, Qwen2Config

    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(device):
        model: Any = AutoModelForCausalLM.from_config(Qwen2Config(**workload.SHAPES[shape], use_cache=False))
    torch.set_default_dtype(torch.float32)
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if method == "full":
        fuse(model, torch.bfloat16)
        return model  # type: ignore[no-any-return]
    if method == "qlora":
        _quantize(model)
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    adapted: nn.Module = get_peft_model(
        model, LoraConfig(task_type="CAUSAL_LM", r=8, lora_alpha=16, target_modules=targets)
    )
    for joined in fuse(adapted, torch.bfloat16):
        if method == "fp8":
            joined.keep(joined.in_float8())
    return adapted


def measured(model: nn.Module, tokens: int, device: str) -> dict[str, Any]:
    """Tokens a second, repetition by repetition, of steps with one pass each."""
    batch = a_batch(causal_model(model).config.vocab_size, tokens, device)
    optimizer = an_optimizer(model, device)
    model.train()
    _release()
    at_rest = _gib(torch.cuda.memory_allocated()) if device != "cpu" else 0.0
    for _ in range(WARM_UP):
        loss = step(model, batch, optimizer, device)
    paces = []
    for _ in range(REPETITIONS):
        _wait(device)
        began = time.perf_counter()
        for _ in range(STEPS):
            loss = step(model, batch, optimizer, device)
        _wait(device)
        paces.append(round(STEPS * tokens / (time.perf_counter() - began)))
    peak = _gib(torch.cuda.max_memory_allocated()) if device != "cpu" else 0.0
    return {
        "tokens_per_second": sorted(paces)[len(paces) // 2],
        "paces": paces,
        "loss": round(float(loss), 4),
        "peak_gib": peak,
        "at_rest_gib": at_rest,
    }


def an_optimizer(model: nn.Module, device: str) -> torch.optim.Optimizer:
    """AdamW, with float32 masters where bf16 weights are trained."""
    trained = [each for each in model.parameters() if each.requires_grad]
    if trained[0].dtype is torch.bfloat16:
        return SplitAdamW(trained, lr=1e-4)
    return torch.optim.AdamW(trained, lr=1e-4, fused=device != "cpu")


def step(model: nn.Module, batch: dict[str, Any], optimizer: torch.optim.Optimizer, device: str) -> Tensor:
    """One optimizer step of one pass."""
    with torch.autocast(device, torch.bfloat16, enabled=device != "cpu"):
        loss: Tensor = model(**batch).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    return loss.detach()


def a_batch(vocabulary: int, tokens: int, device: str) -> dict[str, Any]:
    """Documents laid end to end, ``tokens`` in all."""
    chooser = random.Random(1)  # noqa: S311
    starts = [0]
    while starts[-1] < tokens:
        length = round(min(1024, max(32, 300 * math.exp(0.7 * chooser.gauss(0, 1)))))
        starts.append(min(tokens, starts[-1] + length))
    spans = list(pairwise(starts))
    learnt = [place for begin, end in spans for place in range(begin + int(0.42 * (end - begin)), end - 1)]
    positions = [place - begin for begin, end in spans for place in range(begin, end)]
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, vocabulary, (1, tokens), generator=generator)
    return {
        "input_ids": ids.to(device),
        "position_ids": torch.tensor([positions], device=device),
        "learnt": torch.tensor(learnt, device=device),
        "targets": ids[0, torch.tensor(learnt) + 1].to(device),
        STARTS: torch.tensor(starts, dtype=torch.int32, device=device),
        LONGEST: max(end - begin for begin, end in spans),
    }


def profiled(model: nn.Module, tokens: int, device: str) -> dict[str, float]:
    """Milliseconds of GPU time in one step, by kernel."""
    from torch.profiler import ProfilerActivity, profile

    batch = a_batch(causal_model(model).config.vocab_size, tokens, device)
    optimizer = an_optimizer(model, device)
    step(model, batch, optimizer, device)
    with profile(activities=[ProfilerActivity.CUDA]) as found:
        step(model, batch, optimizer, device)
        _wait(device)
    events = sorted(found.key_averages(), key=lambda event: -event.self_device_time_total)
    whole = {"total": round(sum(event.self_device_time_total for event in events) / 1000, 1)}
    return whole | {
        f"{event.count}x {event.key[:90]}": round(event.self_device_time_total / 1000, 2) for event in events[:40]
    }


def _quantize(model: nn.Module) -> None:
    from bitsandbytes.nn import Linear4bit, Params4bit

    for name, linear in [each for each in model.named_modules() if isinstance(each[1], nn.Linear)]:
        if name == "lm_head":
            continue
        small = Linear4bit(
            linear.in_features, linear.out_features, linear.bias is not None, torch.bfloat16, True, "nf4", device="meta"
        )
        small.weight = Params4bit(linear.weight.data.cpu(), False, quant_type="nf4", module=small).to(
            linear.weight.device
        )
        small.bias = linear.bias
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, small)


def _card() -> dict[str, str]:
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    return {"card": name, "torch": torch.__version__, "at": time.strftime("%Y-%m-%dT%H:%M:%S%z")}


def _wait(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


def _release() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _gib(count: int) -> float:
    return round(count / 2**30, 2)


if __name__ == "__main__":
    main()

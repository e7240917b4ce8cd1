"""One of several processes that train a fused model together: prints what came of it as JSON."""

from __future__ import annotations

import json
import sys

import torch
from peft import LoraConfig, get_peft_model
from torch import distributed
from torch.nn.parallel import DistributedDataParallel
from transformers import AutoModelForCausalLM, Qwen2Config

from finetune_trainer.kernels.fused_model import fuse
from kernel_rows import passes, some_rows

SHAPE = {"vocab_size": 97, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}


def main() -> None:
    """Write the gradients' sum and the frozen weights' sum to the file that is given, with the rank behind its name."""
    distributed.init_process_group("gloo")
    rank = distributed.get_rank()
    # Different weights in each process: the first one's have to reach the others.
    torch.manual_seed(rank)
    options = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules="all-linear", init_lora_weights=False)
    model = get_peft_model(AutoModelForCausalLM.from_config(Qwen2Config(**SHAPE, num_key_value_heads=2)), options)
    joined = fuse(model, None)
    together = DistributedDataParallel(model)
    [inputs] = passes(some_rows()[2 * rank : 2 * rank + 2])
    together(**inputs).loss.backward()
    gradients = [each.grad.double().sum().item() for each in model.parameters() if each.grad is not None]
    with torch.no_grad():
        [whole] = passes(some_rows())
        loss = model(**whole).loss.item()
    found = {"gradients": gradients, "loss": loss, "products": len(joined)}
    with open(f"{sys.argv[1]}-{rank}", "w") as file:
        json.dump(found, file)
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()

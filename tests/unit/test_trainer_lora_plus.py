"""LoRA+: the adapters' B matrices learn at their own rate."""

from pathlib import Path

import pytest
from peft import LoraConfig
from transformers import TrainingArguments

from finetune_trainer.train.optimizers import lora_plus_optimizer
from tiny_models import adapted, save_base


@pytest.mark.parametrize("optimizer", ["adamw_torch", "sgd", "adafactor"])
def test_b_matrices_learn_at_the_ratio_and_no_group_is_empty(tmp_path: Path, optimizer: str) -> None:
    save_base(tmp_path / "base")
    model = adapted(tmp_path / "base", LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj"]))
    arguments = TrainingArguments(
        output_dir=str(tmp_path), learning_rate=1e-3, weight_decay=0.1, optim=optimizer, use_cpu=True
    )
    made = lora_plus_optimizer(model, arguments, 16.0)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    rates = {names[id(each)]: group["lr"] for group in made.param_groups for each in group["params"]}
    assert len(rates) == 4
    assert rates == {name: pytest.approx(1.6e-2 if "lora_B" in name else 1e-3) for name in rates}
    assert all(group["params"] for group in made.param_groups)
    assert {group["weight_decay"] for group in made.param_groups} == {0.1}

"""Tiny causal language models, tokenizers and adapters, made on the spot from a seed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from finetune_operator.api.run import RunConfig

SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level tokenizer without merges: 256 bytes and ChatML's special tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={byte: index for index, byte in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIALS))
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    fast.chat_template = CHAT_TEMPLATE
    return fast


def save_base(
    folder: Path,
    architecture: str = "qwen2",
    dtype: torch.dtype = torch.float32,
    shard: str = "5GB",
    **shape: Any,
) -> None:
    """Save a seeded base model and its tokenizer as a Hugging Face model folder."""
    torch.manual_seed(7)
    tokenizer = byte_tokenizer()
    wanted = {"vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id, **SHAPE, **shape}
    model = (
        Qwen2ForCausalLM(Qwen2Config(**wanted)) if architecture == "qwen2" else LlamaForCausalLM(LlamaConfig(**wanted))
    )
    for parameter in model.parameters():
        # Wider than the default initialisation: logits that differ, and weights that bf16 really rounds.
        torch.nn.init.normal_(parameter, std=0.2) if parameter.dim() > 1 else None
    model.to(dtype).save_pretrained(folder, max_shard_size=shard)
    tokenizer.save_pretrained(folder)


def save_adapter(base: Path, folder: Path, **lora: Any) -> None:
    """Save an adapter of the base model whose every tensor was moved off its starting value."""
    model = adapted(
        base, LoraConfig(task_type="CAUSAL_LM", **{"r": 4, "lora_alpha": 8, "target_modules": "all-linear", **lora})
    )
    torch.manual_seed(11)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder, save_embedding_layers=False)


def adapted(base: Path, config: LoraConfig) -> PeftModel:
    """The base model in fp32 with a fresh adapter."""
    return get_peft_model(load(base), config)


def load(folder: Path) -> Any:
    """A model folder's model, in fp32."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def job(root: Path, name: str = "tiny", **spec: Any) -> RunConfig:
    """The run of a LoRA job whose folder is ``root``."""
    basics: Mapping[str, Any] = {
        "model": {"source": "file:///base"},
        "datasets": [{"source": "file:///rows.jsonl"}],
        "method": "LoRA",
    }
    return RunConfig(
        name=name, uid="0b9d6f4e-1", root=str(root), secrets=str(root / "secrets"), spec={**basics, **spec}
    )

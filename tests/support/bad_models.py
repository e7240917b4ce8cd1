"""Jobs whose base model cannot be fine-tuned, or not the way that the job asks for."""

from __future__ import annotations

from typing import Any

from damaged_models import (
    CONFIG,
    TOKENIZER,
    WEIGHTS,
    Damage,
    an_adapter,
    both,
    config,
    cut,
    in_shards,
    index_without_metadata,
    only_pickles,
    short_embedding,
    tokenizer,
    without,
    without_head,
    written,
)
from job_cases import JobCase

UNFIT = "cannot be fine-tuned:"
INDEX = f"{WEIGHTS}.index.json"


def broken(case: str, damage: Damage, *says: str) -> JobCase:
    return JobCase(case, model=damage, says=("spec.model.source: ", UNFIT, *says))


def asks(case: str, *says: str, **spec: Any) -> JobCase:
    """A job that asks for what the model has not; ``__`` stands for a dot."""
    return JobCase(case, spec={path.replace("__", "."): value for path, value in spec.items()}, says=says)


MODELS = (
    broken("no config.json", without(CONFIG), "config.json is missing", "must be the folder of a Hugging Face model"),
    broken("a config.json that is no JSON", written(CONFIG, "{"), "config.json is not JSON", "copy the model again"),
    broken(
        "a config.json that is a list",
        written(CONFIG, "[]"),
        "config.json holds list, expected an object",
        "copy the model",
    ),
    broken(
        "an adapter in place of a model",
        an_adapter,
        "it is an adapter, not a model",
        "name its base model (Qwen/Qwen2-7B)",
    ),
    broken(
        "code in the repository",
        config(auto_map={"AutoModel": "x.Y"}),
        "config.json has auto_map",
        "use a model that transformers knows",
    ),
    broken(
        "a kernel of the hub",
        config(_attn_implementation_internal="someone/kernel"),
        "_attn_implementation_internal 'someone/kernel'",
        "remove it from config.json",
    ),
    broken(
        "an encoder",
        config(architectures=["BertModel"]),
        "names architecture BertModel, expected a causal language model",
        "use one",
    ),
    broken(
        "no architecture",
        config(architectures=[]),
        "names architecture none, expected a causal language model",
        "use one",
    ),
    broken(
        "a type that nobody knows",
        config(model_type="qwen99"),
        "transformers cannot build the model from config.json",
        "qwen99",
        "copy the model again",
    ),
    broken("sizes that do not go together", config(num_attention_heads=5, head_dim=None), "cannot be fine-tuned"),
    broken(
        "a quantised base",
        config(quantization_config={"quant_method": "gptq"}),
        "has quantization_config (gptq)",
        "expected 16- or 32-bit",
        "use the original model",
    ),
    broken(
        "only pickled weights",
        only_pickles,
        "found only pytorch_model.bin, which can run code",
        "convert the weights to safetensors",
    ),
    broken("no weights", without(WEIGHTS), f"{WEIGHTS} is missing (found no weights)", "convert the weights"),
    broken(
        "a header that is none",
        written(WEIGHTS, b"\xff" * 64),
        f"{WEIGHTS} is not a whole safetensors file",
        "copy it again",
    ),
    broken("weights cut short", cut(WEIGHTS), f"{WEIGHTS} is not a whole safetensors file", "copy it again"),
    broken("a shard that is missing", in_shards(lose_file=True), "b.safetensors is missing", "copy the model again"),
    broken(
        "a shard that lacks a tensor",
        in_shards(lose_tensor=True),
        "a.safetensors lacks 1 tensors that",
        "copy it again",
    ),
    broken(
        "an index that is none", both(in_shards(), written(INDEX, "{}")), f"{INDEX} is damaged", "copy the model again"
    ),
    broken(
        "an index that names a list",
        both(in_shards(), written(INDEX, '{"weight_map": 3}')),
        f"{INDEX} is damaged",
        "copy",
    ),
    broken(
        "an index without metadata",
        both(in_shards(), index_without_metadata),
        f"{INDEX} is damaged (KeyError('metadata'))",
        "copy the model again",
    ),
    broken(
        "an index that leads outside",
        in_shards(names="../{}.safetensors"),
        "names '../a.safetensors', expected safetensors files beside it",
    ),
    broken(
        "other sizes in config.json",
        config(intermediate_size=64),
        "6 tensors have another shape",
        "found [32, 48], expected [32, 64]",
        "from one model",
    ),
    broken(
        "more layers in config.json",
        config(num_hidden_layers=3, layer_types=None),
        "the weights lack 12 tensors that config.json asks for",
        "from one model",
    ),
    broken(
        "fewer layers in config.json",
        config(num_hidden_layers=1, layer_types=None),
        "have 12 tensors that config.json does not ask for",
        "from one model",
    ),
    broken(
        "no output head", without_head, "the weights lack 1 tensors that config.json asks for, such as lm_head.weight"
    ),
    broken(
        "no tokenizer",
        without("tokenizer.json", TOKENIZER),
        "the tokenizer makes no tokens of a text",
        "copy tokenizer.json",
    ),
    broken("a damaged tokenizer", written("tokenizer.json", "{"), "the tokenizer does not load", "copy tokenizer.json"),
    broken(
        "no end-of-sequence token",
        tokenizer(eos_token=None),
        "has no end-of-sequence token",
        "set eos_token in tokenizer_config.json",
    ),
    broken(
        "more tokens than embeddings",
        short_embedding,
        "259 tokens, more than the 100 rows of the embedding",
        "copy both from one model",
    ),
    broken(
        "no chat template", without("chat_template.jinja"), "has no chat template", "set spec.tokenization.template"
    ),
    broken(
        "a chat template that is no Jinja",
        written("chat_template.jinja", "{% for %}"),
        "the chat template cannot be rendered (TemplateSyntaxError",
        "set spec.tokenization.template",
    ),
    broken(
        "a chat template that fails",
        written("chat_template.jinja", "{{ nothing.at.all }}"),
        "the chat template cannot be rendered (UndefinedError",
        "set spec.tokenization.template",
    ),
    broken(
        "a chat template of a megabyte",
        written("chat_template.jinja", "x" * (1 << 20)),
        "has 1048576 characters, expected 65536 at most",
        "set spec.tokenization.template",
    ),
    JobCase(
        "a chat template that refuses the rows",
        model=written(
            "chat_template.jinja",
            "{% if messages|length > 2 %}{{ raise_exception('too long') }}{% endif %}{% for m in messages %}{{ m.content }}|{% endfor %}",
        ),
        rows=[{"messages": [{"role": role, "content": "x"} for role in ("user", "assistant", "user", "assistant")]}],
        says=("rows.jsonl:1: the model's chat template refuses it: too long",),
    ),
    asks(
        "a template that nobody knows",
        "spec.tokenization.template: qwen_2 is unknown",
        "did you mean qwen",
        "expected Auto",
        tokenization__template="qwen_2",
    ),
    asks(
        "a template of another family",
        "spec.tokenization.template: llama3 ends an answer with <|eot_id|>",
        "does not know",
        "use Auto",
        tokenization__template="llama3",
    ),
    asks(
        "a sequence longer than the model sees",
        "spec.tokenization.cutoffLen: 40000 is more than the 32768 positions",
        "set 32768 or less",
        tokenization__cutoffLen=40000,
    ),
    asks(
        "a module that is not there",
        "spec.lora.targetModules: no module of the model is named 'query_key_value', found",
        "q_proj",
        "name one of these",
        lora__targetModules=["q_proj", "query_key_value"],
    ),
    asks(
        "an adapter on a norm",
        "spec.lora.targetModules: module 'input_layernorm' is neither a linear layer",
        "name one of these",
        lora__targetModules=["input_layernorm"],
    ),
    asks(
        "a module to save that is not there",
        "spec.lora.modulesToSave: no module of the model is named 'head', found",
        "name one of these",
        lora__modulesToSave=["head"],
    ),
)

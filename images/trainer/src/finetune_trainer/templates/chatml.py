"""Templates that mark turns with <|im_start|> and <|im_end|>."""

from __future__ import annotations

from finetune_trainer.templates.spelling import Slot, Special, Template

_END = "<|im_end|>"
_THINK = ("<think>\n", "\n</think>\n\n")


def _chatml(
    name: str,
    default_system: str = "",
    *,
    replaces_eos: bool,
    stop_words: tuple[str, ...] = (_END,),
    prefix: Slot = (),
    thought: tuple[str, str] | None = None,
    roles: tuple[str, str] = ("user", "assistant"),
    observation: str = "",
    tools: str = "default",
) -> Template:
    user, assistant = roles
    header = f"<|im_start|>{assistant}\n"
    return Template(
        name=name,
        user=(f"<|im_start|>{user}\n{{content}}<|im_end|>\n{header}",),
        assistant=("{content}<|im_end|>\n",),
        system=("<|im_start|>system\n{content}<|im_end|>\n",),
        answer_header=header,
        default_system=default_system,
        stop_words=stop_words,
        replaces_eos=replaces_eos,
        prefix=prefix,
        thought=thought,
        observation=(f"{observation}<|im_end|>\n{header}",) if observation else (),
        tools=tools,
    )


def _qwen(name: str, default_system: str = "", *, thought: tuple[str, str] | None = None) -> Template:
    return _chatml(
        name,
        default_system,
        replaces_eos=True,
        thought=thought,
        observation="<|im_start|>user\n<tool_response>\n{content}\n</tool_response>",
        tools="qwen",
    )


_INTERN = "InternLM (书生·浦语)"
_BOS = (Special.BOS,)
_TOOL = "<|im_start|>tool\n{content}"

CHATML = (
    _chatml("chatml", replaces_eos=True, stop_words=(_END, "<|im_start|>"), observation=_TOOL),
    _chatml(
        "chatml_de",
        "Du bist ein freundlicher und hilfsbereiter KI-Assistent.",
        replaces_eos=True,
        stop_words=(_END, "<|im_start|>"),
        observation=_TOOL,
    ),
    _qwen("qwen", "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."),
    _qwen("qwen3", thought=_THINK),
    _qwen("qwen3_nothink"),
    _qwen("mimo", "You are a helpful assistant.", thought=_THINK),
    # These keep their tokenizer's own end-of-sequence token: <|im_end|> only becomes one more token that ends an answer.
    _chatml("yi", replaces_eos=False),
    _chatml("cpm4", replaces_eos=False, prefix=_BOS, observation=_TOOL),
    _chatml("falcon_h1", replaces_eos=False, prefix=_BOS, stop_words=(_END, "<|end_of_text|>"), observation=_TOOL),
    _chatml(
        "intern2",
        f"You are an AI assistant whose name is {_INTERN}.\n"
        f"- {_INTERN} is a conversational language model that is developed by Shanghai AI Laboratory "
        "(上海人工智能实验室). It is designed to be helpful, honest, and harmless.\n"
        f"- {_INTERN} can understand and communicate fluently in the language chosen by the user such as English and 中文.",
        replaces_eos=False,
        prefix=_BOS,
    ),
    _chatml(
        "lfm2",
        "You are a helpful AI assistant.",
        replaces_eos=True,
        observation="<|im_start|>tool\n<|tool_response_start|>{content}<|tool_response_end|>",
        tools="lfm2",
    ),
    _chatml("opencoder", "You are OpenCoder, created by OpenCoder Team.", replaces_eos=False, observation=_TOOL),
    _chatml(
        "sailor",
        "You are an AI assistant named Sailor created by Sea AI Lab. "
        "Your answer should be friendly, unbiased, faithful, informative and detailed.",
        replaces_eos=False,
        roles=("question", "answer"),
    ),
    _chatml("smollm", replaces_eos=False),
    _chatml("smollm2", "You are a helpful AI assistant named SmolLM, trained by Hugging Face.", replaces_eos=False),
)

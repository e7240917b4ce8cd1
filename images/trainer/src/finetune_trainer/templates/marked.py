"""Templates that mark turns with special tokens of a model family's own."""

from __future__ import annotations

from finetune_trainer.templates.spelling import CONTENT, Slot, Special, Template

_BOS = (Special.BOS,)
_THINK = ("<think>\n", "\n</think>\n\n")
_SEED = (
    "You are an AI programming assistant, utilizing the Seed-Coder model, developed by ByteDance Seed, and you only "
    "answer questions related to computer science. For politically sensitive questions, security and privacy issues, "
    "and other non-computer science questions, you will refuse to answer.\n\n"
)
_LLAMA3_ANSWER = "<|start_header_id|>assistant<|end_header_id|>\n\n"
_OPENCHAT_ANSWER = "<|start_header_id|>GPT4 Correct Assistant<|end_header_id|>\n\n"
_COHERE_ANSWER = "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>"
_MOONLIGHT_ANSWER = "<|im_assistant|>assistant<|im_middle|>"


def _gemma(name: str, *, stop_words: tuple[str, ...] = ("<end_of_turn>",), ends_once: bool = False) -> Template:
    header = "<start_of_turn>model\n"
    return Template(
        name=name,
        prefix=_BOS,
        system=("{content}\n\n",),
        system_opens_user=True,
        user=(f"<start_of_turn>user\n{{content}}<end_of_turn>\n{header}",),
        assistant=("{content}<end_of_turn>\n",),
        answer_header=header,
        observation=(f"<start_of_turn>tool\n{{content}}<end_of_turn>\n{header}",),
        stop_words=stop_words,
        replaces_eos=not ends_once,
        ends_once=ends_once,
    )


def _phi(
    name: str, line: str, *, answer_line: str | None = None, replaces_eos: bool = True, tools: str = "default"
) -> Template:
    header = f"<|assistant|>{line if answer_line is None else answer_line}"
    return Template(
        name=name,
        system=(f"<|system|>{line}{{content}}<|end|>{line}",),
        user=(f"<|user|>{line}{{content}}<|end|>{line}{header}",),
        assistant=(f"{{content}}<|end|>{line}",),
        answer_header=header,
        stop_words=("<|end|>",),
        replaces_eos=replaces_eos,
        tools=tools,
    )


def _granite(name: str, default_system: str = "", stop_words: tuple[str, ...] = (), observation: Slot = ()) -> Template:
    header = "<|start_of_role|>assistant<|end_of_role|>"
    return Template(
        name=name,
        system=("<|start_of_role|>system<|end_of_role|>{content}<|end_of_text|>\n",),
        user=(f"<|start_of_role|>user<|end_of_role|>{{content}}<|end_of_text|>\n{header}",),
        assistant=("{content}<|end_of_text|>\n",),
        answer_header=header,
        default_system=default_system,
        stop_words=stop_words,
        observation=observation,
    )


def _deepseek3(name: str, thought: tuple[str, str] | None = None) -> Template:
    header = "<｜Assistant｜>"
    return Template(
        name=name, prefix=_BOS, user=(f"<｜User｜>{{content}}{header}",), answer_header=header, thought=thought
    )


def _glm(name: str, thought: tuple[str, str] | None = None, tools: str = "glm4") -> Template:
    return Template(
        name=name,
        prefix=("[gMASK]<sop>",),
        system=("<|system|>\n{content}",),
        user=("<|user|>\n{content}<|assistant|>",),
        assistant=("\n{content}",),
        answer_header="<|assistant|>",
        stop_words=("<|user|>", "<|observation|>"),
        ends_once=True,
        thought=thought,
        observation=("<|observation|>\n{content}<|assistant|>",),
        function=(CONTENT,),
        tools=tools,
    )


def _mistral(
    name: str, user: str, assistant: Slot, system: Slot = ("{content}\n\n",), *, opens: bool = True
) -> Template:
    gap = " " if user.startswith("[INST] ") else ""
    return Template(
        name=name,
        prefix=_BOS,
        system=system,
        user=(user,),
        assistant=assistant,
        system_opens_user=opens,
        observation=(f'[TOOL_RESULTS]{gap}{{"content": {CONTENT}}}[/TOOL_RESULTS]',),
        function=(f"[TOOL_CALLS]{gap}{CONTENT}", Special.EOS),
        tools="mistral",
    )


def _llama2(name: str, default_system: str = "") -> Template:
    # The token that begins a sequence stands before every user's turn, so it is no prefix.
    return Template(
        name=name,
        system=("<<SYS>>\n{content}\n<</SYS>>\n\n",),
        user=(Special.BOS, "[INST] {content} [/INST]"),
        system_opens_user=True,
        default_system=default_system,
    )


def _seed(
    name: str,
    default_system: str = "",
    thought: tuple[str, str] | None = None,
    function: Slot = (),
    tools: str = "default",
) -> Template:
    return Template(
        name=name,
        system=(Special.BOS, "system\n{content}", Special.EOS),
        user=(Special.BOS, "user\n{content}", Special.EOS, Special.BOS, "assistant\n"),
        default_system=default_system,
        thought=thought,
        function=function,
        tools=tools,
    )


MARKED = (
    Template(
        name="llama3",
        prefix=_BOS,
        system=("<|start_header_id|>system<|end_header_id|>\n\n{content}<|eot_id|>",),
        user=("<|start_header_id|>user<|end_header_id|>\n\n{content}<|eot_id|>" + _LLAMA3_ANSWER,),
        assistant=("{content}<|eot_id|>",),
        answer_header=_LLAMA3_ANSWER,
        observation=("<|start_header_id|>ipython<|end_header_id|>\n\n{content}<|eot_id|>" + _LLAMA3_ANSWER,),
        tools="llama3",
        stop_words=("<|eot_id|>", "<|eom_id|>"),
        replaces_eos=True,
    ),
    _llama2("llama2"),
    _llama2("llama2_zh", "You are a helpful assistant. 你是一个乐于助人的助手。"),
    _mistral("mistral", "[INST] {content}[/INST]", (" {content}", Special.EOS)),
    _mistral("ministral", "[INST]{content}[/INST]", (CONTENT, Special.EOS)),
    _mistral(
        "mistral_small",
        "[INST]{content}[/INST]",
        (CONTENT, Special.EOS),
        ("[SYSTEM_PROMPT]{content}[/SYSTEM_PROMPT]",),
        opens=False,
    ),
    _gemma("gemma"),
    _gemma("gemma2", stop_words=("<eos>", "<end_of_turn>"), ends_once=True),
    _gemma("gemma3"),
    _phi("phi", "\n"),
    _phi("phi_small", "\n"),
    _phi("phi4_mini", "", tools="phi4_mini"),
    _phi("starchat", "\n", answer_line="", replaces_eos=False),
    Template(
        name="phi4",
        system=("<|im_start|>system<|im_sep|>{content}<|im_end|>",),
        user=("<|im_start|>user<|im_sep|>{content}<|im_end|><|im_start|>assistant<|im_sep|>",),
        assistant=("{content}<|im_end|>",),
        answer_header="<|im_start|>assistant<|im_sep|>",
        stop_words=("<|im_end|>",),
        replaces_eos=True,
    ),
    _deepseek3("deepseek3"),
    _deepseek3("deepseekr1", thought=_THINK),
    _glm("glm4"),
    _glm("glm4_moe", thought=_THINK, tools="glm4_moe"),
    _glm("glmz1", thought=_THINK),
    _granite("granite3"),
    _granite(
        "granite4",
        "You are Granite, developed by IBM. You are a helpful AI assistant.",
        stop_words=("<|end_of_text|>",),
        # The header of the answer lacks its end here, as in the source.
        observation=("<|start_of_role|>tool<|end_of_role|>{content}<|end_of_text|>\n<|start_of_role|>assistant\n",),
    ),
    _seed("seed_coder", _SEED),
    _seed(
        "seed_oss",
        thought=("<seed:think>", "</seed:think>"),
        function=(Special.BOS, "\n{content}", Special.EOS),
        tools="seed_oss",
    ),
    Template(
        name="cohere",
        prefix=_BOS,
        system=("<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>{content}<|END_OF_TURN_TOKEN|>",),
        user=("<|START_OF_TURN_TOKEN|><|USER_TOKEN|>{content}<|END_OF_TURN_TOKEN|>" + _COHERE_ANSWER,),
        answer_header=_COHERE_ANSWER,
    ),
    Template(
        name="moonlight",
        system=("<|im_system|>system<|im_middle|>{content}<|im_end|>",),
        user=("<|im_user|>user<|im_middle|>{content}<|im_end|>" + _MOONLIGHT_ANSWER,),
        assistant=("{content}<|im_end|>",),
        answer_header=_MOONLIGHT_ANSWER,
        default_system="You are a helpful assistant provided by Moonshot-AI.",
        stop_words=("<|im_end|>",),
        replaces_eos=True,
    ),
    Template(
        name="openchat-3.6",
        prefix=_BOS,
        user=("<|start_header_id|>GPT4 Correct User<|end_header_id|>\n\n{content}<|eot_id|>" + _OPENCHAT_ANSWER,),
        answer_header=_OPENCHAT_ANSWER,
        stop_words=("<|eot_id|>",),
    ),
    Template(
        name="olmo",
        prefix=(Special.EOS,),
        user=("<|user|>\n{content}<|assistant|>\n",),
        answer_header="<|assistant|>\n",
    ),
    Template(
        name="exaone",
        system=("[|system|]{content}[|endofturn|]\n",),
        user=("[|user|]{content}\n[|assistant|]",),
        assistant=(CONTENT, Special.EOS, "\n"),
        answer_header="[|assistant|]",
    ),
    Template(
        name="zephyr",
        system=("<|system|>\n{content}", Special.EOS),
        user=("<|user|>\n{content}", Special.EOS, "<|assistant|>\n"),
        answer_header="<|assistant|>\n",
        default_system="You are Zephyr, a helpful assistant.",
    ),
    Template(
        name="yuan",
        user=(CONTENT, "<sep>"),
        assistant=("{content}<eod>\n",),
        stop_words=("<eod>",),
    ),
)

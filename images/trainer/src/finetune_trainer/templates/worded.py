"""Templates that mark turns with plain words."""

from __future__ import annotations

from finetune_trainer.templates.spelling import CONTENT, Special, Template

_BOS = (Special.BOS,)

WORDED = (
    Template(
        name="default",
        system=("System: {content}", Special.EOS, "\n"),
        user=("Human: {content}", Special.EOS, "\nAssistant:"),
        assistant=(CONTENT, Special.EOS, "\n"),
        answer_header="Assistant:",
    ),
    # Nothing but the text, not even a token that ends the answer.
    Template(name="empty", user=(CONTENT,), assistant=(CONTENT,)),
    Template(name="fewshot", user=(CONTENT,), assistant=("{content}\n\n",), ends_once=True),
    Template(
        name="alpaca",
        user=("### Instruction:\n{content}\n\n### Response:\n",),
        assistant=(CONTENT, Special.EOS, "\n\n"),
        answer_header="### Response:\n",
        default_system="Below is an instruction that describes a task. "
        "Write a response that appropriately completes the request.\n\n",
    ),
    Template(
        name="vicuna",
        user=("USER: {content} ASSISTANT:",),
        answer_header=" ASSISTANT:",
        default_system="A chat between a curious user and an artificial intelligence assistant. "
        "The assistant gives helpful, detailed, and polite answers to the user's questions.",
    ),
    Template(
        name="deepseek",
        prefix=_BOS,
        system=("{content}\n\n",),
        user=("User: {content}\n\nAssistant:",),
        answer_header="Assistant:",
    ),
    Template(
        name="deepseekcoder",
        prefix=_BOS,
        user=("### Instruction:\n{content}\n### Response:",),
        assistant=("\n{content}\n<|EOT|>\n",),
        answer_header="### Response:",
        default_system="You are an AI programming assistant, utilizing the DeepSeek Coder model, developed by DeepSeek "
        "Company, and you only answer questions related to computer science. For politically sensitive questions, "
        "security and privacy issues, and other non-computer science questions, you will refuse to answer.\n",
    ),
    Template(
        name="openchat",
        prefix=_BOS,
        user=("GPT4 Correct User: {content}", Special.EOS, "GPT4 Correct Assistant:"),
        answer_header="GPT4 Correct Assistant:",
    ),
    Template(
        name="solar",
        system=("### System:\n{content}\n\n",),
        user=("### User:\n{content}\n\n### Assistant:\n",),
        assistant=(CONTENT,),
        answer_header="### Assistant:\n",
        ends_once=True,
    ),
    Template(
        name="falcon",
        user=("User: {content}\nFalcon:",),
        assistant=("{content}\n",),
        answer_header="Falcon:",
        ends_once=True,
    ),
    Template(name="breeze", prefix=_BOS, user=("[INST] {content} [/INST] ",), assistant=(CONTENT,), ends_once=True),
)

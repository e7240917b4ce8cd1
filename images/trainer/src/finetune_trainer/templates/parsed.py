"""The template that LLaMA-Factory reads off a tokenizer's own chat template where a configuration names none.

Source: LLaMA-Factory 0.9.5, ``data/template.py``, ``parse_template``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from finetune_trainer.chat_rendering import render_chat
from finetune_trainer.templates.spelling import CONTENT, Template

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_THOUGHT = ("<think>\n", "\n</think>\n\n")


def parse_template(tokenizer: PreTrainedTokenizerBase) -> Template:
    """Slots from renderings of ``{content}``. Raises whatever the chat template raises."""

    def render(*messages: tuple[str, str], generate: bool = False) -> str:
        spoken = [{"role": role, "content": content} for role, content in messages]
        return render_chat(tokenizer, spoken, add_generation_prompt=generate)[len(prefix) :]

    prefix = str(tokenizer.decode(tokenizer("")["input_ids"]))
    system = render(("system", CONTENT))
    without_system = render(("system", ""), ("user", CONTENT), generate=True)
    user = render(("user", CONTENT), generate=True)
    answer = render(("user", CONTENT), ("assistant", CONTENT))[len(user) :]
    has_thoughts = "<think>" in answer
    default_system = _inserted(without_system, user) if len(user) > len(without_system) else ""
    if default_system:
        user = user[len(system.replace(CONTENT, default_system, 1)) :]
    return Template(
        name="(model's own)",
        prefix=(prefix,) if prefix else (),
        system=(system,),
        user=(user,),
        assistant=(answer.replace("<think>", "").replace("</think>", "").lstrip("\n"),),
        default_system=default_system,
        thought=_THOUGHT if has_thoughts else None,
    )


def _inserted(short: str, long: str) -> str:
    """What stands in ``long`` beyond the characters of ``short``, which are taken in order."""
    taken = 0
    rest = []
    for character in long:
        if taken == len(short):
            break
        if short[taken] == character:
            taken += 1
        else:
            rest.append(character)
    return "".join(rest)

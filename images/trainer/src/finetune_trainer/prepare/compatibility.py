"""What a job under LLaMA-Factory's rules does to rows that this project's own rules would treat better: counted and told."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from finetune_trainer.prepare.conversation import Conversation

_THINKING = ("detailed thinking on", "detailed thinking off")


class Fault(enum.StrEnum):
    """A fault of LLaMA-Factory's, by its name in report.json."""

    UNREAD_SYSTEM = "unreadSystem"
    OUT_OF_ORDER = "outOfOrder"
    ADDED_SYSTEM = "addedSystem"
    THINKING_OFF = "thinkingOff"
    CUT_PROMPTS = "cutPrompts"
    CUT_ANSWERS = "cutAnswers"
    UNLEARNT = "unlearnt"


_EFFECTS: Mapping[Fault, str] = {
    Fault.UNREAD_SYSTEM: "open with a system message that the dataset's tags do not name, and are left out; name it in tags.system",
    Fault.OUT_OF_ORDER: "do not have user and assistant in turn, and are left out; correct them",
    Fault.ADDED_SYSTEM: "have no system prompt and get the one of the template; write one into the rows, or use template Auto",
    Fault.THINKING_OFF: 'get "detailed thinking off" at the end of their system prompt; use format ShareGPT with tags',
    Fault.CUT_PROMPTS: "lose, with the end of a prompt, the words that open the answer; raise cutoffLen",
    Fault.CUT_ANSWERS: "lose the end of an answer and the token that ends it; raise cutoffLen",
    Fault.UNLEARNT: "have nothing left to learn and are kept all the same; raise cutoffLen",
}


def counted(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """The report's figures: rows by fault, those that are there."""
    total: Counter[str] = Counter()
    for some in counts:
        total.update(some)
    return {fault.value: total[fault.value] for fault in Fault if total[fault.value]}


def lines(figures: Mapping[str, int]) -> Iterator[str]:
    """The same for people, one fault a line."""
    for name, rows in figures.items():
        yield f"as in LLaMA-Factory, {rows} rows {_EFFECTS[Fault(name)]}"


def without_thinking(conversation: Conversation) -> Conversation:
    """The conversation with what LLaMA-Factory's ``formatting: openai`` adds to the system prompt."""
    system = conversation.system or ""
    if conversation.tools:
        return replace(conversation, system=system and f"{system}\n")
    if any(words in system for words in _THINKING):
        return conversation
    return replace(conversation, system="\n".join(part for part in (system, _THINKING[1]) if part))

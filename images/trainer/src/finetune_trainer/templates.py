"""Chat templates by name: the exact pieces that LLaMA-Factory tokenises one by one.

A piece is tokenised on its own, so that no token ever spans two of them; that is what makes the ids equal.
Source of the slots: LLaMA-Factory 0.9.5, ``data/template.py``.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


class Special(enum.Enum):
    """A token that the tokenizer names; where it has none, the piece is left out."""

    BOS = "bos_token"
    EOS = "eos_token"


Piece = str | Special
Slot = tuple[Piece, ...]

AUTO = "Auto"
CONTENT = "{content}"


@dataclass(frozen=True, slots=True)
class Template:
    """How a conversation is spelled. ``{content}`` stands for the text of a turn."""

    name: str
    user: Slot
    """A user's turn, up to where the answer begins."""
    assistant: Slot
    """An answer with its terminator; every token of it is learnt."""
    system: Slot
    answer_header: str
    """End of ``user`` that only opens the answer: what a generation prompt adds."""
    prefix: Slot = ()
    """Stands once, at the start of a conversation."""
    default_system: str = ""
    """System prompt of a conversation that has none, or an empty one."""
    stop_words: tuple[str, ...] = ()
    """Tokens that end an answer, the terminator first."""
    replaces_eos: bool = False
    """The first stop word becomes the tokenizer's end-of-sequence token."""


def _chatml(name: str, default_system: str = "", *, replaces_eos: bool) -> Template:
    return Template(
        name=name,
        user=("<|im_start|>user\n{content}<|im_end|>\n<|im_start|>assistant\n",),
        assistant=("{content}<|im_end|>\n",),
        system=("<|im_start|>system\n{content}<|im_end|>\n",),
        answer_header="<|im_start|>assistant\n",
        default_system=default_system,
        stop_words=("<|im_end|>",),
        replaces_eos=replaces_eos,
    )


_LLAMA3_ANSWER = "<|start_header_id|>assistant<|end_header_id|>\n\n"

_TEMPLATES = (
    _chatml("chatml", replaces_eos=True),
    _chatml("qwen", "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.", replaces_eos=True),
    # Yi keeps its own end-of-sequence token: <|im_end|> only becomes one more token that ends an answer.
    _chatml("yi", replaces_eos=False),
    Template(
        name="llama3",
        prefix=(Special.BOS,),
        system=("<|start_header_id|>system<|end_header_id|>\n\n{content}<|eot_id|>",),
        user=("<|start_header_id|>user<|end_header_id|>\n\n{content}<|eot_id|>" + _LLAMA3_ANSWER,),
        assistant=("{content}<|eot_id|>",),
        answer_header=_LLAMA3_ANSWER,
        stop_words=("<|eot_id|>", "<|eom_id|>"),
        replaces_eos=True,
    ),
    Template(
        name="default",
        system=("System: {content}", Special.EOS, "\n"),
        user=("Human: {content}", Special.EOS, "\nAssistant:"),
        assistant=("{content}", Special.EOS, "\n"),
        answer_header="Assistant:",
    ),
)
TEMPLATES: Mapping[str, Template] = MappingProxyType({template.name: template for template in _TEMPLATES})

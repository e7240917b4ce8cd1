"""What a chat template consists of: pieces that are tokenised one by one, so that no token ever spans two of them."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass


class Special(enum.Enum):
    """A token that the tokenizer names; where it has none, the piece is left out."""

    BOS = "bos_token"
    EOS = "eos_token"


Piece = str | Special
Slot = tuple[Piece, ...]

CONTENT = "{content}"


@dataclass(frozen=True, slots=True)
class Template:
    """How a conversation is spelled. ``{content}`` stands for the text of a turn."""

    name: str
    user: Slot
    """A user's turn, up to where the answer begins."""
    assistant: Slot = (CONTENT, Special.EOS)
    """An answer with its terminator; every token of it is learnt."""
    system: Slot = (CONTENT,)
    answer_header: str = ""
    """End of ``user`` that only opens the answer: what a generation prompt adds."""
    prefix: Slot = ()
    """Stands once, at the start of a conversation."""
    default_system: str = ""
    """System prompt of a conversation that has none, or an empty one."""
    stop_words: tuple[str, ...] = ()
    """Tokens that end an answer, the terminator first."""
    replaces_eos: bool = False
    """The first stop word becomes the tokenizer's end-of-sequence token."""
    system_opens_user: bool = False
    """The system prompt is the beginning of the first user's text, not a turn."""
    ends_once: bool = False
    """The end-of-sequence token stands once, after the last answer; earlier answers learn it in place of the next turn's first token."""
    thought: tuple[str, str] | None = None
    """Begin and end of a thought. An answer that has neither opens with an empty thought, which is learnt."""
    observation: Slot = ()
    """A tool's result, up to where the answer begins; where there is none, it is spelled as a user's turn."""
    function: Slot = ()
    """An answer that calls tools; where there is none, it is spelled as any other."""
    tools: str = "default"
    """How tools and calls are spelled, by the name in ``TOOL_FORMATS``."""

    def empty_thought(self, answer: str) -> str:
        """The thought that opens ``answer``; empty where it brings its own, or the template knows none."""
        if self.thought is None or any(word.strip() in answer for word in self.thought):
            return ""
        return "".join(self.thought)

    def without_thought(self, answer: str) -> str:
        """``answer`` without its thoughts; as it is where the template knows none."""
        if self.thought is None:
            return answer
        begin, end = map(re.escape, self.thought)
        return re.sub(f"{begin}.*?{end}", "", answer, flags=re.DOTALL).lstrip("\n")

"""A conversation as it is tokenised, whatever layout it was written in."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Role(enum.StrEnum):
    """Who speaks, by the names that chat templates use."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a user or the model."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Conversation:
    """User and model in turn, the model last. ``system`` is None where the row has no system prompt at all."""

    turns: tuple[Turn, ...]
    system: str | None = None

    def messages(self) -> list[dict[str, str]]:
        """The conversation as a chat template takes it."""
        opening = [] if self.system is None else [{"role": "system", "content": self.system}]
        return opening + [{"role": turn.role.value, "content": turn.content} for turn in self.turns]


class RowError(Exception):
    """A row that cannot be trained on. The message says what was found and what was expected."""


class MisorderedRow(RowError):
    """A row whose turns are not user and model in turn: LLaMA-Factory leaves such rows out and goes on."""


class UnreadSystem(MisorderedRow):
    """A row that opens with a system message which the dataset's tags do not name."""

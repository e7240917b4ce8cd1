"""A conversation as it is tokenised, whatever layout it was written in."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Role(enum.StrEnum):
    """Who speaks, by the names that chat templates use."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    OBSERVATION = "tool"
    """A tool's result, which is a prompt as a user's turn is."""
    FUNCTION = "function"
    """An answer that calls tools. Its text is the calls as JSON, and perhaps a thought before them."""


PROMPTS = (Role.USER, Role.OBSERVATION)
ANSWERS = (Role.ASSISTANT, Role.FUNCTION)


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a user or the model."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Conversation:
    """Prompts and answers in turn, an answer last. ``system`` is None where the row has no system prompt at all."""

    turns: tuple[Turn, ...]
    system: str | None = None
    tools: str = ""
    """The tools that the model may call, as JSON; empty where the row has none."""


class RowError(Exception):
    """A row that cannot be trained on. The message says what was found and what was expected."""


class MisorderedRow(RowError):
    """A row whose turns are not user and model in turn: LLaMA-Factory leaves such rows out and goes on."""


class UnreadSystem(MisorderedRow):
    """A row that opens with a system message which the dataset's tags do not name."""

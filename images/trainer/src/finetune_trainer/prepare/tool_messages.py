"""Tools, calls and results as rows hold them, in the form that templates spell.

Source: LLaMA-Factory 0.9.5, ``data/converter.py``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from finetune_trainer.prepare.conversation import Conversation, Role, RowError, Turn

_BETWEEN_RESULTS = "\n</tool_response>\n<tool_response>\n"


def tools_in(row: Mapping[str, Any], column: str | None) -> str:
    """The tools of a row as JSON; empty where it has none."""
    tools = row.get(column) if column else None
    if tools is None or isinstance(tools, str):
        return tools or ""
    if not isinstance(tools, list | dict):
        raise RowError(f"column {column!r} is {tools!r}, expected a list of tools or its JSON; correct it")
    return json.dumps(tools, ensure_ascii=False)


def calls_in(calls: Any, where: str) -> str:
    """The calls of an assistant's message as JSON. What else the message says is not read, as in LLaMA-Factory."""
    if not isinstance(calls, list) or not all(isinstance(call, dict) and call.get("function") for call in calls):
        raise RowError(
            f"{where}.tool_calls is not a list of calls, expected "
            '[{"type": "function", "function": {"name": ..., "arguments": ...}}]; correct it'
        )
    return json.dumps([call["function"] for call in calls], ensure_ascii=False)


def joined_results(turns: Sequence[Turn]) -> list[Turn]:
    """The turns with results that follow one another as one; results that no answer follows are left out."""
    joined: list[Turn] = []
    results: list[str] = []
    for turn in turns:
        if turn.role is Role.OBSERVATION:
            results.append(turn.content)
            continue
        if results:
            joined.append(Turn(Role.OBSERVATION, _BETWEEN_RESULTS.join(results)))
            results = []
        joined.append(turn)
    return joined


def with_read_arguments(conversation: Conversation) -> Conversation:
    """The conversation with arguments that are JSON text, as the OpenAI API writes them, as what the text says."""
    turns = (
        replace(turn, content=_read(turn.content)) if turn.role is Role.FUNCTION else turn
        for turn in conversation.turns
    )
    return replace(conversation, turns=tuple(turns))


def _read(calls: str) -> str:
    return json.dumps(
        [{**call, "arguments": _value(call.get("arguments"))} for call in json.loads(calls)], ensure_ascii=False
    )


def _value(arguments: Any) -> Any:
    try:
        return json.loads(arguments) if isinstance(arguments, str) else arguments
    except ValueError:
        return arguments

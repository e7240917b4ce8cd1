"""Tools, calls and results as rows hold them, in the form that templates spell.

Source: LLaMA-Factory 0.9.5, ``data/converter.py``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from finetune_trainer.prepare.conversation import Conversation, Role, RowError, Turn
from finetune_trainer.templates.tool_formats import BETWEEN_RESULTS, Call
from finetune_trainer.templates.tool_turns import ToolError, read_calls


def tools_in(row: Mapping[str, Any], column: str | None) -> str:
    """The tools of a row as JSON; empty where it has none."""
    tools = row.get(column) if column else None
    if tools is None or isinstance(tools, str):
        return tools or ""
    if not isinstance(tools, list | dict):
        raise RowError(f"column {column!r} is {tools!r:.60}, expected a list of tools or its JSON; correct it")
    return json.dumps(tools, ensure_ascii=False)


def calls_in(calls: Any, where: str) -> str:
    """The calls of an assistant's message as JSON. What else the message says is not read, as in LLaMA-Factory."""
    if not isinstance(calls, list) or not all(isinstance(call, dict) and call.get("function") for call in calls):
        raise RowError(
            f"{where}.tool_calls is not a list of calls, expected "
            '[{"type": "function", "function": {"name": ..., "arguments": ...}}]; correct it'
        )
    return json.dumps([call["function"] for call in calls], ensure_ascii=False)


def joined_results(turns: Sequence[tuple[int, Turn]]) -> list[tuple[int, Turn]]:
    """Numbered turns with results that follow one another as one; results that no answer follows are left out."""
    joined: list[tuple[int, Turn]] = []
    results: list[tuple[int, str]] = []
    for number, turn in turns:
        if turn.role is Role.OBSERVATION:
            results.append((number, turn.content))
            continue
        if results:
            text = BETWEEN_RESULTS.join(content for _, content in results)
            joined.append((results[0][0], Turn(Role.OBSERVATION, text)))
            results = []
        joined.append((number, turn))
    return joined


def chat_messages(conversation: Conversation) -> list[dict[str, Any]]:
    """The conversation as a model's own chat template takes it. Raises ToolError for a call that is none."""
    messages: list[dict[str, Any]] = []
    if conversation.system is not None:
        messages.append({"role": "system", "content": conversation.system})
    for turn in conversation.turns:
        if turn.role is Role.FUNCTION:
            kept, calls = read_calls(turn.content)
            messages.append({"role": "assistant", "content": kept, "tool_calls": [_called(call) for call in calls]})
        else:
            texts = turn.content.split(BETWEEN_RESULTS) if turn.role is Role.OBSERVATION else [turn.content]
            messages += [{"role": turn.role.value, "content": text} for text in texts]
    return messages


def tool_list(conversation: Conversation) -> list[dict[str, Any]]:
    """The tools as the OpenAI API takes them. Raises ToolError where they are none."""
    try:
        tools = json.loads(conversation.tools or "[]")
        return [tool if tool.get("type") == "function" else {"type": "function", "function": tool} for tool in tools]
    except (ValueError, TypeError, AttributeError) as error:
        raise ToolError(f"the tools are no list of objects as JSON ({error}); correct them") from error


def _called(call: Call) -> dict[str, Any]:
    return {"type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def with_read_arguments(conversation: Conversation) -> Conversation:
    """The conversation with arguments that are JSON text, as the OpenAI API writes them, as what the text says."""
    turns = (
        replace(turn, content=_read(turn.content)) if turn.role is Role.FUNCTION else turn
        for turn in conversation.turns
    )
    return replace(conversation, turns=tuple(turns))


def _read(calls: str) -> str:
    found = [
        {key: _value(value) if key == "arguments" else value for key, value in call.items()}
        for call in json.loads(calls)
    ]
    return json.dumps(found, ensure_ascii=False)


def _value(arguments: Any) -> Any:
    try:
        return json.loads(arguments) if isinstance(arguments, str) else arguments
    except ValueError:
        return arguments

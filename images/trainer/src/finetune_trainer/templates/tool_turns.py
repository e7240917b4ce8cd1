"""Tools and calls as rows have them, spelled by a template.

Source: LLaMA-Factory 0.9.5, ``data/formatter.py``, ``FunctionFormatter`` and ``ToolFormatter``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import date
from typing import Any

from finetune_trainer.templates.spelling import CONTENT, Template
from finetune_trainer.templates.tool_formats import TOOL_FORMATS, Call

_CALL = '{"name": ..., "arguments": {...}} or a list of them'
_USUAL_THOUGHT = ("<think>\n", "\n</think>\n\n")
# What reading a value of another shape than expected raises.
_OTHER_SHAPE = (LookupError, TypeError, AttributeError, ValueError)


class ToolError(ValueError):
    """Tools or calls that the template cannot spell."""


def spell_tools(text: str, template: Template, today: date) -> str:
    """What the template appends to the system prompt for the tools in ``text``, a JSON list."""
    spelling = TOOL_FORMATS[template.tools]
    if spelling.frame:
        return spelling.frame.replace(CONTENT, text, 1)
    tools = _json_of(text, "the tools are", "a list of tools, each with name, description and parameters")
    try:
        return spelling.describe(tools, today) if len(tools) else ""
    except _OTHER_SHAPE as error:
        raise ToolError(
            f"the tools cannot be described in the way of template {template.name} ({_told(error)}), expected a list of "
            "objects with name, description and parameters.properties; correct them"
        ) from error


def spell_call(text: str, template: Template) -> str:
    """The answer that ``text`` is: calls as JSON, and perhaps a thought before them."""
    spelling = TOOL_FORMATS[template.tools]
    thought, calls = _divided(text, template)
    try:
        return thought + spelling.spell(_calls(calls))
    except ToolError:
        raise
    except _OTHER_SHAPE as error:
        raise ToolError(
            f"a tool call cannot be spelled in the way of template {template.name} ({_told(error)}), expected "
            f"{_CALL}; correct it"
        ) from error


def read_calls(text: str) -> tuple[str, Sequence[Call]]:
    """What ``text`` says beside calls in the usual words, and the calls. Raises ToolError where they are none."""
    kept, calls = _apart(text, TOOL_FORMATS["default"].call_words, _USUAL_THOUGHT)
    try:
        return kept, _calls(calls)
    except (LookupError, TypeError) as error:
        raise ToolError(f"a tool call cannot be read ({_told(error)}), expected {_CALL}; correct it") from error


def _divided(text: str, template: Template) -> tuple[str, str]:
    """What is kept as it stands, and the calls' JSON."""
    # Where the system prompt opens the user's text, the source takes no words around thoughts and calls into account.
    if template.system_opens_user:
        return "", text
    return _apart(text, TOOL_FORMATS[template.tools].call_words, template.thought or _USUAL_THOUGHT)


def _apart(text: str, call_words: tuple[str, str], thought_words: tuple[str, str]) -> tuple[str, str]:
    if (called := _between(call_words, text)) is not None:
        return text.replace(called[0], ""), called[1]
    if (thought := _between(thought_words, text)) is not None:
        return thought[0], text.replace(thought[0], "")
    return "", text


def _between(words: tuple[str, str], text: str) -> re.Match[str] | None:
    begin, end = map(re.escape, words)
    return re.search(f"{begin}(.*?){end}", text, re.DOTALL)


def _calls(text: str) -> Sequence[Call]:
    found = _json_of(text, "a tool call is", _CALL)
    return [Call(call["name"], call["arguments"]) for call in (found if isinstance(found, list) else [found])]


def _json_of(text: str, what: str, expected: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ToolError(f"{what} malformed JSON ({error}), expected {expected}; correct it") from error


def _told(error: Exception) -> str:
    return f"no {error}" if isinstance(error, KeyError) else str(error)

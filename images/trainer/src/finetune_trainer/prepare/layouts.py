"""From a row of a dataset, in any of the three layouts, to a conversation."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from finetune_operator.api.dataset import Columns, Dataset, Format, Tags
from finetune_trainer.prepare.conversation import (
    ANSWERS,
    PROMPTS,
    Conversation,
    MisorderedRow,
    Role,
    RowError,
    Turn,
    UnreadSystem,
)
from finetune_trainer.prepare.foreign_rows import is_tagged_preference, meant_format, preference_problem
from finetune_trainer.prepare.tool_messages import calls_in, joined_results, tools_in


@dataclass(frozen=True, slots=True)
class _Names:
    messages: str
    role: str
    content: str
    roles: Mapping[str, Role]
    is_openai: bool
    """Calls stand in tool_calls, and each result in a message of its own."""


def conversation_of(row: Any, dataset: Dataset) -> Conversation:
    """Read one row. Raises RowError, or its subclass MisorderedRow, where it cannot be trained on."""
    if not isinstance(row, dict):
        raise RowError(f"is {_kind(row)}, expected an object; write each row as {{...}}")
    columns = dataset.columns or Columns()
    if is_tagged_preference(row):
        raise RowError(str(preference_problem(row)))
    try:
        if dataset.format is Format.ALPACA:
            _refuse_other_format(row, columns.response or "output", Format.ALPACA)
            return _alpaca(row, columns)
        names = _names(dataset)
        _refuse_other_format(row, names.messages, dataset.format)
        return _messages(row, columns, names)
    except RowError as error:
        if (preference := preference_problem(row)) is not None:
            raise RowError(preference) from error
        raise


def refuse_unread_tools(row: Any, dataset: Dataset) -> None:
    """Raise RowError where a row has tools or calls that its dataset's fields do not speak of; LLaMA-Factory reads past them."""
    columns = dataset.columns or Columns()
    if columns.tools is None and row.get("tools"):
        raise RowError(
            "has tools in column 'tools'; set the dataset's columns.tools to tools, or to (none) to pass over them"
        )
    if dataset.format is Format.SHAREGPT:
        messages = _list(row[columns.messages or "conversations"])
        if any(message.get("tool_calls") for message in messages):
            raise RowError("has tool_calls, which only format Messages reads; set the dataset's format to Messages")


def _names(dataset: Dataset) -> _Names:
    columns, tags = dataset.columns or Columns(), dataset.tags or Tags()
    if dataset.format is Format.MESSAGES:
        openais = {role.value: role for role in Role if role is not Role.FUNCTION}
        return _Names(columns.messages or "messages", "role", "content", openais, is_openai=True)
    roles: dict[str, Role] = {
        tags.system or "system": Role.SYSTEM,
        tags.user or "human": Role.USER,
        tags.assistant or "gpt": Role.ASSISTANT,
    }
    # Where tags are set, LLaMA-Factory knows no tool roles but those that they name, and drops rows with others.
    usual = Tags(observation="observation", function="function_call") if dataset.tags is None else tags
    roles |= {usual.observation: Role.OBSERVATION} if usual.observation else {}
    roles |= {usual.function: Role.FUNCTION} if usual.function else {}
    messages = columns.messages or "conversations"
    return _Names(messages, tags.role or "from", tags.content or "value", roles, is_openai=False)


def _messages(row: dict[str, Any], columns: Columns, names: _Names) -> Conversation:
    messages = _list(_column(row, names.messages))
    if not isinstance(messages, list):
        raise RowError(f"column {names.messages!r} is {_kind(messages)}, expected a list of messages; correct it")
    turns = [_turn(message, f"{names.messages}[{index}]", names) for index, message in enumerate(messages)]
    system = (_optional_text(row, columns.system) or None) if columns.system else None
    if turns and turns[0].role is Role.SYSTEM:
        system, turns = turns[0].content, turns[1:]
    numbered = list(enumerate(turns, start=len(messages) - len(turns)))
    numbered = joined_results(numbered) if names.is_openai else numbered
    _check_order(numbered, names.messages)
    return Conversation(tuple(turn for _, turn in numbered), system, tools_in(row, columns.tools))


def _turn(message: Any, where: str, names: _Names) -> Turn:
    if not isinstance(message, dict):
        raise RowError(
            f"{where} is {_kind(message)}, expected an object with {names.role!r} and {names.content!r}; correct it"
        )
    role = _column(message, names.role, where)
    if names.is_openai and role == Role.ASSISTANT and message.get("tool_calls"):
        return Turn(Role.FUNCTION, calls_in(_list(message["tool_calls"]), where))
    if names.is_openai and role == Role.FUNCTION:
        raise RowError(
            f"{where} is of role function, expected tool for the result of a tool, or tool_calls of the assistant for a "
            "call; correct it"
        )
    content = _column(message, names.content, where)
    if not isinstance(content, str):
        raise RowError(
            f"{where}.{names.content} is {_kind(content)}, expected a string; write the text, or remove the row"
        )
    known = names.roles.get(role) if isinstance(role, str) else None
    if known is None:
        is_system = role == Role.SYSTEM.value and where.endswith("[0]")
        raise (UnreadSystem if is_system else MisorderedRow)(
            f"{where}.{names.role} is {role!r}, expected one of {', '.join(names.roles)}; correct it, or set the dataset's tags"
        )
    return Turn(known, content)


def _check_order(turns: list[tuple[int, Turn]], where: str) -> None:
    """``turns`` come with the numbers of their messages."""
    if not turns:
        raise MisorderedRow(
            f"{where} has no message of a user, expected user and assistant in turn; add them, or remove the row"
        )
    for index, (number, turn) in enumerate(turns):
        expected = ANSWERS if index % 2 else PROMPTS
        if turn.role not in expected:
            raise MisorderedRow(
                f"{where}[{number}] is of role {turn.role.value}, expected {expected[0].value}: after an optional "
                "system message, user (or a tool's result) and assistant speak in turn; reorder or remove the row"
            )
    if len(turns) % 2:
        raise MisorderedRow(
            f"{where} ends with a message of the {turns[-1][1].role.value}, expected the assistant's answer; add it, or remove the row"
        )


def _alpaca(row: dict[str, Any], columns: Columns) -> Conversation:
    # An empty instruction is allowed as long as the column stands: the input may hold the question.
    instruction = _nullable_text(row, columns.prompt or "instruction")
    further = _optional_text(row, columns.query or "input")
    output = _column(row, columns.response or "output")
    if output is None:
        raise MisorderedRow(
            f"column {columns.response or 'output'!r} is null, expected the answer; add it, or remove the row"
        )
    if not isinstance(output, str):
        raise RowError(
            f"column {columns.response or 'output'!r} is {_kind(output)}, expected a string; write it in quotes"
        )
    question = "\n".join(part for part in (instruction, further) if part)
    turns = [*_history(row, columns.history or "history"), Turn(Role.USER, question), Turn(Role.ASSISTANT, output)]
    system = _optional_text(row, columns.system or "system") or None
    return Conversation(tuple(turns), system, tools_in(row, columns.tools))


def _history(row: dict[str, Any], column: str) -> list[Turn]:
    pairs = _list(row.get(column)) or []
    if not isinstance(pairs, list):
        raise RowError(f"column {column!r} is {_kind(pairs)}, expected a list of [question, answer] pairs; correct it")
    turns: list[Turn] = []
    for index, pair in enumerate(pairs):
        if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(text, str) for text in pair)):
            raise RowError(f"{column}[{index}] is not a pair of strings, expected [question, answer]; correct it")
        turns += [Turn(Role.USER, pair[0]), Turn(Role.ASSISTANT, pair[1])]
    return turns


def _column(row: dict[str, Any], name: str, where: str = "") -> Any:
    if name in row:
        return row[name]
    raise RowError(f"{where or 'the row'} has no {name!r}, found {_names_in(row)}; set the dataset's columns or tags")


def _refuse_other_format(row: dict[str, Any], column: str, usual: Format) -> None:
    meant = None if column in row else meant_format(row)
    if meant is not None and meant is not usual:
        raise RowError(
            f"the row has no {column!r}, found {_names_in(row)}; this looks like format {meant}: set the dataset's format"
        )


def _names_in(row: dict[str, Any]) -> str:
    return ", ".join(sorted(map(str, row))[:_SHOWN_COLUMNS]) or "nothing"


def _nullable_text(row: dict[str, Any], name: str) -> str | None:
    value = _column(row, name)
    if value is not None and not isinstance(value, str):
        raise RowError(f"column {name!r} is {_kind(value)}, expected a string; write it in quotes")
    return value


def _optional_text(row: dict[str, Any], name: str) -> str | None:
    return _nullable_text(row, name) if name in row else None


def _list(value: Any) -> Any:
    """The value; a list that stands as JSON in a cell, which is all that CSV can hold, as the list."""
    if not (isinstance(value, str) and value.lstrip().startswith("[")):
        return value
    try:
        return json.loads(value)
    except ValueError as error:
        raise RowError(f"holds a list that is malformed JSON ({error}), expected [...]; correct it") from error


_SHOWN_COLUMNS = 12
_KINDS = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", int: "a number", float: "a number"}


def _kind(value: Any) -> str:
    return "null" if value is None else _KINDS.get(type(value), type(value).__name__)

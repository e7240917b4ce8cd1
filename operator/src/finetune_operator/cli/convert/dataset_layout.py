"""``formatting``, ``columns`` and ``tags`` of a dataset, with the defaults and the trap that LLaMA-Factory has in them.

Where an entry has a ``columns`` block, LLaMA-Factory reads only the columns that it names, and without one it reads neither
system nor history of Alpaca rows; the same holds for ``tags``. This project reads a format's usual names by default, so what
LLaMA-Factory would not read is named here as a column that no row has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from finetune_operator.api.dataset import Format
from finetune_operator.cli.convert.findings import closest
from finetune_operator.cli.manifest.problems import show

Names = dict[str, str]
Say = Callable[[str], None]

LAYOUT_KEYS = ("columns", "tags")
NOT_READ = "(none)"
"""Stands for a column or role that is not read."""

_ALPACA = ("prompt", "query", "response", "history", "system")
_MEDIA = ("images", "videos", "audios")
_PREFERENCE = ("chosen", "rejected", "kto_tag")
_COLUMNS = (*_ALPACA, "messages", "tools", *_MEDIA, *_PREFERENCE)
_TAGS = ("role_tag", "content_tag", "user_tag", "assistant_tag", "system_tag", "observation_tag", "function_tag")
_NEEDED_TAGS = _TAGS[:4]


_OPENAI_TAGS = {"role": "role", "content": "content", "user": "user", "assistant": "assistant", "system": "system"}


def _silent(text: str) -> None:
    """Says nothing."""


def layout(entry: Mapping[str, Any], layout_format: Format, problem: Say, note: Say = _silent) -> dict[str, Any]:
    """format, columns and tags of a dataset."""
    result: dict[str, Any] = {"format": layout_format.value}
    columns = _block(entry, "columns", _COLUMNS, problem, note)
    for column in (*_MEDIA, *_PREFERENCE):
        if columns and column in columns:
            what = "rows are text only" if column in _MEDIA else "preference training is not there yet"
            problem(f"columns.{column}: {what}; remove it, or name another dataset")
    if layout_format is Format.ALPACA:
        return result | {"columns": _alpaca_columns(columns, problem)}
    if columns is not None:
        result["columns"] = _message_columns(columns, problem)
    tags = _block(entry, "tags", _TAGS, problem, note)
    if tags is not None:
        result["tags"] = _message_tags(tags, problem, note)
    return result


def openai_layout(found: dict[str, Any]) -> dict[str, Any]:
    """A ShareGPT layout as Messages, the OpenAI layout, where its tags are just that layout's."""
    tags = found.get("tags", {})
    is_openais = {name: tags.get(name) for name in _OPENAI_TAGS} == _OPENAI_TAGS
    if not is_openais or tags.get("observation", "tool") != "tool":
        return found
    columns = {"columns": found["columns"]} if "columns" in found else {"columns": {"messages": "conversations"}}
    return {"format": Format.MESSAGES.value, **columns}


def _block(entry: Mapping[str, Any], key: str, known: tuple[str, ...], problem: Say, note: Say) -> Names | None:
    block = entry.get(key)
    if block is None:
        return None
    if not isinstance(block, dict) or not all(value is None or isinstance(value, str) for value in block.values()):
        problem(f"{key}: found {show(block)}, expected names as text")
        return None
    for unknown in sorted(block.keys() - set(known)):
        note(f"{key}.{unknown} is not read, by LLaMA-Factory neither{closest(unknown, known)}")
    return {name: value for name, value in block.items() if value and name in known}


def _alpaca_columns(columns: Names | None, problem: Say) -> Names:
    if columns is None:
        return {"history": NOT_READ, "system": NOT_READ}
    for needed in ("prompt", "response"):
        if needed not in columns:
            problem(f"columns.{needed}: found nothing; a columns block has to name every column that is to be read")
    tools = {"tools": columns["tools"]} if "tools" in columns else {}
    return {column: columns.get(column, NOT_READ) for column in _ALPACA} | tools


def _message_columns(columns: Names, problem: Say) -> Names:
    if "messages" not in columns:
        problem("columns.messages: found nothing; a columns block has to name the column with the conversation")
    return {column: columns[column] for column in ("messages", "system", "tools") if column in columns}


def _message_tags(tags: Names, problem: Say, note: Say) -> Names:
    for needed in _NEEDED_TAGS:
        if needed not in tags:
            problem(f"tags.{needed}: found nothing; a tags block has to name every key and role that is to be read")
    if "system_tag" not in tags:
        note(
            "tags without system_tag: rows that open with a system message are dropped, as in LLaMA-Factory; add it to keep them"
        )
        tags = {**tags, "system_tag": NOT_READ}
    return {tag.removesuffix("_tag"): tags[tag] for tag in _TAGS if tag in tags}

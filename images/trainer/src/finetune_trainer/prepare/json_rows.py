"""Rows of JSON Lines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from io import BufferedReader

from finetune_trainer.prepare.rows import Place, Row
from finetune_trainer.prepare.text_lines import NOT_READABLE, TOO_LONG, BadTextError, decoded, lines, value_fault


def line_rows(stream: BufferedReader, shown_as: str) -> Iterator[Row]:
    """A row a line; blank lines are passed over. A faulty line is a row with a problem, and reading goes on."""
    for number, offset, line in lines(stream):
        place = Place(shown_as, number)
        if line is None:
            yield Row(place, problem=TOO_LONG)
        elif line.strip():
            yield _parsed(line, place, offset)


def _parsed(line: bytes, place: Place, offset: int) -> Row:
    try:
        text = decoded(line, offset).rstrip()
        value = json.loads(text)
    except BadTextError as error:
        return Row(place, problem=str(error))
    except json.JSONDecodeError as error:
        return Row(place, problem=_malformed(error))
    except (RecursionError, ValueError):
        return Row(place, problem=NOT_READABLE)
    problem = value_fault(value, text)
    return Row(place, None if problem else value, problem)


def _malformed(error: json.JSONDecodeError) -> str:
    said = f"malformed JSON at column {error.colno} ({error.msg}), expected one object a line, or one array"
    if error.msg == "Extra data" and error.doc[error.pos :].strip() == ",":
        return f"{said}; remove the comma at the end of the line"
    return said

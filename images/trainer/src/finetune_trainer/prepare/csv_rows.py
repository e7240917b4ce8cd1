"""Rows of CSV with a header."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from io import BufferedReader

from finetune_trainer.prepare.rows import Place, Row
from finetune_trainer.prepare.text_lines import LONGEST_ROW, TOO_LONG, BadTextError, decoded, lines


def csv_rows(stream: BufferedReader, shown_as: str) -> Iterator[Row]:
    """A row a record, at the line that it begins in. An empty cell is null, as in LLaMA-Factory.

    After a fault nothing further can be told apart, so that reading ends there.
    """
    csv.field_size_limit(LONGEST_ROW)
    text = _TextLines(stream)
    reader = csv.reader(text, strict=True)
    header: list[str] | None = None
    begin = 1
    try:
        for cells in reader:
            if cells and header is None:
                header = [cell.strip() for cell in cells]
            elif cells and header is not None:
                yield _row(header, cells, Place(shown_as, begin))
            begin = reader.line_num + 1
    except csv.Error as error:
        said = f"the CSV row that begins here is malformed ({error}), expected quotes in pairs"
        yield Row(Place(shown_as, begin), problem=f"{said}; correct it, nothing after it was read")
    except BadTextError as error:
        yield Row(Place(shown_as, text.number), problem=str(error))


def _row(header: list[str], cells: list[str], place: Place) -> Row:
    if len(cells) > len(header):
        return Row(
            place,
            problem=f"has {len(cells)} cells, expected the {len(header)} of the header ({', '.join(header)}); "
            "put a cell that holds a comma between quotes",
        )
    values = [cell or None for cell in cells] + [None] * (len(header) - len(cells))
    return Row(place, dict(zip(header, values, strict=True)))


class _TextLines:
    """Lines of a stream as text. Raises BadTextError."""

    def __init__(self, stream: BufferedReader) -> None:
        self._lines = lines(stream)
        self.number = 0
        """The line that was handed out last."""

    def __iter__(self) -> _TextLines:
        return self

    def __next__(self) -> str:
        self.number, offset, line = next(self._lines)
        if line is None:
            raise BadTextError(TOO_LONG)
        return decoded(line, offset)

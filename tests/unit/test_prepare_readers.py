"""Every row keeps the place it stands at, whatever the file's kind."""

import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from finetune_trainer.prepare.readers import fill_placeholders, read_rows


def read(path: Path) -> list[tuple[str, object, str | None]]:
    return [(str(row.place), row.value, row.problem) for row in read_rows(path, path.name)]


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json"])
def test_rows_of_json_lines_stand_at_their_line_and_blank_lines_count(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\n\n{"a": "\xe4\xbd\xa0"}\n')
    assert read(path) == [(f"{name}:1", {"a": 1}, None), (f"{name}:3", {"a": "你"}, None)]


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json"])
def test_rows_of_an_array_stand_at_their_element(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text(' \n[{"a": 1},\n {"a": 2}]')
    assert read(path) == [(f"{name}[0]", {"a": 1}, None), (f"{name}[1]", {"a": 2}, None)]


def test_rows_of_a_table_stand_at_their_number(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"a": [1, 2]}), path)
    assert read(path) == [("rows.parquet[0]", {"a": 1}, None), ("rows.parquet[1]", {"a": 2}, None)]


@pytest.mark.parametrize(
    ("content", "place", "problem"),
    [
        (b'{"a": 1}\n{"a": \n{"a": 3}\n', "f:2", "malformed JSON at column 6"),
        (b'{"a": 1}\n{"a": "\xff"}\n', "f:2", "is not UTF-8 at byte 7 of the line"),
        (b'[{"a": 1},\n {"a" 2}]', "f:2", "malformed JSON at column 7"),
        (b'[{"a": "\xff"}]', "f:1", "is not UTF-8 at byte 8 of the file"),
    ],
)
def test_text_that_cannot_be_read_is_a_row_with_a_problem(
    tmp_path: Path, content: bytes, place: str, problem: str
) -> None:
    path = tmp_path / "f"
    path.write_bytes(content)
    faulty = [row for row in read(path) if row[2]]
    assert [row[0] for row in faulty] == [place]
    assert problem in str(faulty[0][2])


def test_a_damaged_table_is_a_row_with_a_problem(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    path.write_bytes(b"PAR1 no table")
    [(place, _, problem)] = read(path)
    assert place == "rows.parquet[0]"
    assert "not a readable Parquet file" in str(problem)


def test_an_empty_file_has_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "empty.jsonl"
    path.touch()
    assert read(path) == []


def test_placeholders_are_filled_in_at_any_depth_and_others_stay() -> None:
    row = {"a": "I am {{name}}", "b": [{"c": "{{name}} by {{author}}"}], "d": "{{other}} {name}", "e": 3}
    filled = fill_placeholders(row, {"name": "Aurora", "author": "小云"})
    assert filled == {"a": "I am Aurora", "b": [{"c": "Aurora by 小云"}], "d": "{{other}} {name}", "e": 3}
    assert json.loads(json.dumps(filled)) == filled

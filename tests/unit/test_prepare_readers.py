"""Every row keeps the place it stands at, whatever the file's kind; memory stays flat whatever its size."""

import gzip
import io
import itertools
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pyarrow.ipc
import pyarrow.parquet
import pytest

from finetune_trainer.prepare.file_kind import oddities
from finetune_trainer.prepare.readers import fill_placeholders, holds_rows, read_rows


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
        (b'{"a": 1}\n{"a": "\xff"}\n', "f:2", "is not UTF-8 at byte 16 of the file"),
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


def test_a_fault_in_an_array_comes_after_the_rows_before_it(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text('[\n 1,\n {"a": "é"},\n {"a": oops},\n 4\n]')
    assert [(place, value) for place, value, problem in read(path) if problem is None] == [
        ("rows.json[0]", 1),
        ("rows.json[1]", {"a": "é"}),
    ]
    place, _, problem = read(path)[-1]
    assert (place, "at column 8" in str(problem)) == ("rows.json:4", True)


@pytest.mark.parametrize("chunk", [1, 2, 3, 7])
def test_an_array_is_read_the_same_whatever_the_blocks_that_it_comes_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    rows = [{"a": "ü😀\\", "n": [1, 23.5, None, True]}, 17, "text", [], {}]
    path = tmp_path / "rows.json"
    path.write_text("\ufeff" + json.dumps(rows, ensure_ascii=False, indent=1))
    monkeypatch.setattr("finetune_trainer.prepare.json_array._CHUNK", chunk)
    assert [value for _, value, _ in read(path)] == rows


@pytest.mark.parametrize("ending", ["", " ", "]x", "]]", ",]", "]\n{}"])
def test_an_array_that_does_not_end_as_one_is_told(tmp_path: Path, ending: str) -> None:
    path = tmp_path / "rows.json"
    path.write_text('[{"a": 1}' + ending)
    rows = read(path)
    assert rows[0] == ("rows.json[0]", {"a": 1}, None)
    assert "malformed JSON at column" in str(rows[-1][2])


def table(rows: list[dict[str, object]]) -> pyarrow.Table:
    return pyarrow.Table.from_pylist(rows)


def arrow_bytes(
    rows: list[dict[str, object]], open_writer: Callable[..., pyarrow.ipc.RecordBatchStreamWriter]
) -> bytes:
    sink, content = io.BytesIO(), table(rows)
    with open_writer(sink, content.schema) as writer:
        writer.write_table(content, max_chunksize=2)
    return sink.getvalue()


@pytest.mark.parametrize("open_writer", [pyarrow.ipc.new_file, pyarrow.ipc.new_stream])
@pytest.mark.parametrize("packed", [False, True])
def test_rows_of_arrow_files_and_streams_stand_at_their_number(
    tmp_path: Path, open_writer: Callable[..., pyarrow.ipc.RecordBatchStreamWriter], packed: bool
) -> None:
    content = arrow_bytes([{"a": number} for number in range(5)], open_writer)
    path = tmp_path / "rows.arrow"
    path.write_bytes(gzip.compress(content) if packed else content)
    assert read(path) == [(f"rows.arrow[{number}]", {"a": number}, None) for number in range(5)]


def test_rows_of_csv_stand_at_the_line_that_they_begin_in_and_empty_cells_are_null(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b'\xef\xbb\xbf a ,b\r\n"x\r\ny",\r\n\r\n1,"say ""hi"", you"\r\nshort\r\n')
    assert read(path) == [
        ("rows.csv:2", {"a": "x\r\ny", "b": None}, None),
        ("rows.csv:5", {"a": "1", "b": 'say "hi", you'}, None),
        ("rows.csv:6", {"a": "short", "b": None}, None),
    ]


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("a.jsonl", True),
        ("A.JSON.GZ", True),
        ("a.csv.zst", True),
        ("a.parquet", True),
        ("a.arrow", True),
        ("a.txt", False),
        ("a.gz", False),
        (".a.json", False),
        ("_SUCCESS.json", False),
        ("dataset_info.json", False),
        ("state.json", False),
    ],
)
def test_a_folder_gives_the_files_that_hold_rows(name: str, is_one: bool) -> None:
    assert holds_rows(name) is is_one


def test_harmless_oddities_are_found_through_compression(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(b'\xef\xbb\xbf{"a": 1}\r\n'))
    assert oddities(path) == ["begins with a byte order mark", "has Windows line ends"]
    path.write_bytes(gzip.compress(b'{"a": 1}\n'))
    assert oddities(path) == []


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.csv", "rows.jsonl.gz"])
def test_memory_stays_flat_while_a_large_file_is_read(tmp_path: Path, name: str) -> None:
    text = "x" * 2000
    line = {"csv": f"{text},b\n"}.get(name[5:], json.dumps({"a": text}) + "\n").encode()
    separator, begin, end = (
        (b",", b"[", b"]") if name == "rows.json" else (b"", b"a,b\n" if name == "rows.csv" else b"", b"")
    )
    path = tmp_path / name
    with (gzip.open if name.endswith(".gz") else open)(path, "wb") as file:
        file.write(begin + line)
        for _ in range(20_000):
            file.write(separator + line)
        file.write(end)
    tracemalloc.start()
    rows = sum(1 for row in read_rows(path, name) if row.problem is None)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert rows == 20_001
    assert peak < 12 << 20, f"{peak >> 20} MiB of a file of 40 MiB"


def test_reading_can_stop_early(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([{"a": number} for number in range(1000)]))
    assert [row.value for row in itertools.islice(read_rows(path, "f"), 2)] == [{"a": 0}, {"a": 1}]


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

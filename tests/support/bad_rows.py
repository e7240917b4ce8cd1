"""Jobs whose data cannot be trained on: files that are none, text that is none, rows that are none."""

from __future__ import annotations

import gzip
import io
import json
import pickle
from typing import Any

import pyarrow
import pyarrow.ipc
import pyarrow.parquet

from job_cases import GOOD, JobCase, as_bytes
from trainer_runs import chat

LINES, ONE = as_bytes(GOOD), json.dumps(GOOD[0])
FAULTY = "spec.datasets: 1 row cannot be trained on; correct or remove"


def parquet(rows: list[Any]) -> bytes:
    sink = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), sink)
    return sink.getvalue()


def arrow(rows: list[Any], *, stream: bool) -> bytes:
    table, sink = pyarrow.Table.from_pylist(rows), io.BytesIO()
    open_writer = pyarrow.ipc.new_stream if stream else pyarrow.ipc.new_file
    with open_writer(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def said(role: str, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


def talk(*messages: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"messages": list(messages), **more}


def row(value: Any) -> list[Any]:
    """Two good rows, and the third on line 3."""
    return [*GOOD[:2], value]


def text(case: str, rows: Any, *says: str, file: str = "rows.jsonl") -> JobCase:
    """A file that cannot be read as text, or as what it claims to be."""
    return JobCase(case, rows=rows, file=file, says=(FAULTY, *says))


def fault(case: str, value: Any, *says: str) -> JobCase:
    """A row on line 3 that is no conversation."""
    return JobCase(case, rows=row(value), says=(FAULTY, "rows.jsonl:3: ", *says))


def sharegpt(case: str, value: Any, *says: str, **more: Any) -> JobCase:
    good = {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}
    dataset = {"source": "data/rows.jsonl", "format": "ShareGPT", **more}
    return JobCase(case, rows=[good, value], spec={"datasets": [dataset]}, says=(FAULTY, "rows.jsonl:2: ", *says))


def alpaca(case: str, value: Any, *says: str, **more: Any) -> JobCase:
    good = {"instruction": "a", "output": "b"}
    dataset = {"source": "data/rows.jsonl", "format": "Alpaca", **more}
    return JobCase(case, rows=[good, value], spec={"datasets": [dataset]}, says=(FAULTY, "rows.jsonl:2: ", *says))


TEXT = (
    text(
        "a broken line",
        row('{"messages": ['),
        "rows.jsonl:3: malformed JSON at column 15",
        "expected one object a line",
    ),
    text("a comma after a line", row(json.dumps(GOOD[0]) + ","), "rows.jsonl:3: ", "(Extra data)", "remove the comma"),
    text("single quotes", row("{'messages': []}"), "rows.jsonl:3: malformed JSON at column 2", "in double quotes"),
    text(
        "an array with a comma missing",
        f"[{ONE},\n {ONE}\n {ONE}]",
        "rows.json:3: malformed JSON at column 2 (found '{', expected ',')",
        "correct it",
        file="rows.json",
    ),
    text("an array that does not end", f"[{ONE}", "rows.json:1: ", "the array does not end", file="rows.json"),
    text(
        "an array cut off inside a row", f'[{ONE},\n{{"a', "rows.json:2: malformed JSON at column 2", file="rows.json"
    ),
    text("text after an array", json.dumps(GOOD) + "\nx", "rows.json:2: ", "more text after the end", file="rows.json"),
    text(
        "one object over several lines",
        json.dumps(GOOD[0], indent=2),
        "rows.json:1: is one JSON object over several lines, expected one object a line, or an array",
        "write each row on one line",
        file="rows.json",
    ),
    text(
        "CSV under another name",
        "instruction,output\na,b\n",
        "rows.jsonl:1: looks like CSV (begins with 'instruction,output')",
        "name it .csv",
    ),
    text(
        "JSON Lines named .csv",
        LINES,
        "rows.csv:1: is named .csv and begins as JSON does, expected a header",
        "name it .jsonl",
        file="rows.csv",
    ),
    text("a page that says 404", "<!DOCTYPE html><p>404</p>", "rows.jsonl:1: is HTML or XML", "fetch it again"),
    text(
        "an Excel workbook",
        b"PK\x03\x04rest",
        "rows.jsonl:1: is a zip archive or an Excel workbook",
        "save the sheet as CSV",
    ),
    text("a Git LFS pointer", "version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer", "git lfs pull"),
    text("a pickle", pickle.dumps(GOOD), "rows.jsonl:1: is a Python pickle, which is never read", "as JSON Lines"),
    text(
        "a file compressed with bzip2",
        b"BZh91AY&SY",
        "is compressed with bzip2, expected",
        "compress it with gzip or zstd",
    ),
    text(
        "Parquet cut short",
        parquet(GOOD)[:-50],
        "rows.parquet[0]: is not a readable Parquet file",
        "copy it again",
        file="rows.parquet",
    ),
    text(
        "JSON named .parquet",
        LINES,
        "rows.parquet:1: begins with b'{",
        "expected a whole Parquet file",
        file="rows.parquet",
    ),
    text(
        "an empty Parquet file",
        b"",
        "rows.parquet:1: is empty, expected a whole Parquet file",
        "copy it",
        file="rows.parquet",
    ),
    text(
        "Arrow cut short",
        arrow(GOOD, stream=False)[:-50],
        "rows.arrow[0]: is not a readable Arrow file",
        "copy it",
        file="rows.arrow",
    ),
    text(
        "gzip cut short",
        gzip.compress(LINES)[:-20],
        "the file cannot be read from here on",
        "a whole one; copy it again",
        file="rows.jsonl.gz",
    ),
    text(
        "Latin-1",
        LINES + b'{"a": "gr\xfc\xdf"}',
        "rows.jsonl:5: is not UTF-8 at byte",
        "(found 0xfc)",
        "save the file as UTF-8",
    ),
    text(
        "UTF-16",
        LINES.decode().encode("utf-16"),
        "rows.jsonl:1: is UTF-16 at byte 0, expected",
        "save the file as UTF-8",
    ),
    text(
        "UTF-16 without a mark",
        LINES.decode().encode("utf-16-le"),
        "rows.jsonl:1: holds a NUL byte at byte 1",
        "save the file as UTF-8",
    ),
    text(
        "a NUL byte",
        LINES + b'{"a": "\0"}\n',
        "rows.jsonl:5: holds a NUL byte at byte",
        "expected text",
        "copy it again",
    ),
    text(
        "NUL bytes in an array",
        json.dumps(GOOD).encode()[:-1] + b",\n\0\0]",
        "rows.json:2: holds a NUL byte at byte",
        "save the file as UTF-8",
        file="rows.json",
    ),
    text(
        "half a surrogate pair",
        row('{"messages": [{"role": "user", "content": "\\ud83d"}]}'),
        "rows.jsonl:3: holds half of a surrogate pair (\\ud83d), expected whole characters",
        "write the character itself",
    ),
    text(
        "a line of 17 MiB",
        LINES + b'{"a": "' + b"x" * (17 << 20) + b'"}\n',
        "rows.jsonl:5: is longer than 16 MiB, expected one conversation",
        "split it",
    ),
    text(
        "a number of thousands of digits",
        row('{"a": ' + "1" * 5000 + "}"),
        "rows.jsonl:3: is nested deeper than 100 levels, or has a number",
    ),
    text(
        "a row of 500 levels",
        row('{"messages": ' + "[" * 500 + "]" * 500 + "}"),
        "rows.jsonl:3: is nested deeper than 100 levels",
        "remove the row",
    ),
    text(
        "a hundred thousand brackets",
        row("[" * 100_000),
        "rows.jsonl:3: is nested deeper than 100 levels",
        "remove the row",
    ),
    text(
        "CSV with a quote that does not end",
        'instruction,output\na,"b\nc,d\n',
        "rows.csv:2: the CSV row that begins here is malformed",
        "expected quotes in pairs",
        file="rows.csv",
    ),
    text(
        "CSV with a comma too many",
        "instruction,output\na,b,c\n",
        "rows.csv:2: has 3 cells, expected the 2 of the header",
        "between quotes",
        file="rows.csv",
    ),
    JobCase(
        "an empty file",
        rows=b"",
        says=("spec.datasets[0].source: ", "rows.jsonl holds no row", "name a file with rows"),
    ),
    JobCase(
        "a file of blank lines",
        rows="\n\n \n",
        says=("spec.datasets[0].source: ", "holds no row", "name a file with rows"),
    ),
    JobCase("an empty array", rows="[]", says=("spec.datasets[0].source: ", "holds no row", "name a file with rows")),
    JobCase(
        "an empty file beside a full one",
        spec={"datasets": [{"source": "data/rows.jsonl"}, {"source": "data/b.jsonl"}]},
        files={"b.jsonl": b""},
        says=("spec.datasets[1].source: ", "b.jsonl holds no row", "name a file with rows"),
    ),
)

ROWS = (
    fault("a row that is a list", [1], "is a list, expected an object", "write each row as {...}"),
    fault("a row that is a number", 7, "is a number, expected an object", "write each row as {...}"),
    fault("a row of plain text", {"text": "x"}, "the row has no 'messages', found text", "set the dataset's columns"),
    fault(
        "an alpaca row among messages",
        {"instruction": "a", "output": "b"},
        "the row has no 'messages', found instruction, output",
        "looks like format Alpaca: set the dataset's format",
    ),
    fault(
        "a ShareGPT row among messages",
        {"conversations": [{"from": "human", "value": "a"}]},
        "the row has no 'messages', found conversations",
        "looks like format ShareGPT: set the dataset's format",
    ),
    fault("messages that are null", {"messages": None}, "column 'messages' is null, expected a list of messages"),
    fault(
        "messages that are text", {"messages": "hello"}, "column 'messages' is a string, expected a list", "correct it"
    ),
    fault(
        "no message", talk(), "messages has no message of a user, expected user and assistant in turn", "remove the row"
    ),
    fault("only a system message", talk(said("system", "s")), "has no message of a user, expected", "remove the row"),
    fault("a message that is text", {"messages": ["x"]}, "messages[0] is a string, expected an object with 'role'"),
    fault(
        "a message without content",
        talk({"role": "user"}),
        "messages[0] has no 'content', found role",
        "columns or tags",
    ),
    fault(
        "a message without a role",
        talk({"content": "a"}),
        "messages[0] has no 'role', found content",
        "columns or tags",
    ),
    fault(
        "a role that nobody knows",
        talk(said("robot", "a")),
        "messages[0].role is 'robot', expected one of system, user",
        "correct it",
    ),
    fault(
        "a role in capitals",
        talk(said("User", "a")),
        "messages[0].role is 'User', expected one of system, user",
        "tags",
    ),
    fault(
        "two users in turn",
        talk(said("user", "a"), said("user", "b")),
        "messages[1] is of role user, expected assistant",
        "reorder",
    ),
    fault(
        "an assistant first",
        talk(said("assistant", "a"), said("user", "b")),
        "messages[0] is of role assistant, expected user",
        "reorder",
    ),
    fault(
        "a system message in between",
        chat("a", "b") | talk(said("user", "a"), said("system", "b")),
        "messages[1] is of role system, expected assistant",
        "reorder",
    ),
    fault(
        "a question without an answer",
        chat("a"),
        "messages ends with a message of the user, expected the assistant's answer",
        "add it",
    ),
    fault(
        "an empty answer", chat("a", ""), "answer 1 of the assistant is empty or blank, expected text", "remove the row"
    ),
    fault(
        "a blank second answer",
        chat("a", "b", "c", " \n"),
        "answer 2 of the assistant is empty or blank, expected text",
        "write it",
    ),
    fault(
        "content that is null",
        talk(said("user", None)),
        "messages[0].content is null, expected a string",
        "write the text",
    ),
    fault(
        "content that is a number",
        talk(said("user", 42)),
        "messages[0].content is a number, expected a string",
        "write the text",
    ),
    fault(
        "content in parts",
        talk(said("user", [{"type": "text", "text": "a"}])),
        "messages[0].content is a list, expected a string",
        "write the text",
    ),
    fault(
        "a tool's result that nobody called for and no answer follows",
        talk(said("user", "a"), said("tool", "42")),
        "messages ends with a message of the user, expected the assistant's answer",
        "remove the row",
    ),
    fault(
        "a tool call",
        talk(said("user", "a"), said("assistant", None) | {"tool_calls": [{"function": {}}]}),
        "messages[1].tool_calls is not a list of calls",
        "correct it",
    ),
    fault(
        "a list of tools",
        chat("a", "b") | {"tools": "[{}]"},
        "has tools in column 'tools'",
        "set the dataset's columns.tools",
    ),
    fault(
        "preferences",
        {"prompt": "a", "chosen": [said("assistant", "b")], "rejected": [said("assistant", "c")]},
        "is a preference row (columns chosen and rejected)",
        "not in this version",
        "use a dataset of conversations",
    ),
    fault(
        "a KTO tag",
        chat("a", "b") | {"kto_tag": False},
        "is a preference row (column kto_tag)",
        "not in this version",
        "use a dataset of conversations",
    ),
    sharegpt(
        "a tool call of ShareGPT",
        {"conversations": [{"from": "human", "value": "a"}, {"from": "function_call", "value": "{}"}]},
        "a tool call cannot be read (no 'name')",
        'expected {"name": ..., "arguments": {...}}',
    ),
    sharegpt(
        "a tool call that the model's own template does not show",
        {
            "conversations": [
                {"from": "human", "value": "a"},
                {"from": "function_call", "value": '{"name": "now", "arguments": {}}'},
            ]
        },
        "has tools or calls of tools: template Auto, the model's own, does not show them all",
        "name a template",
    ),
    sharegpt(
        "an observation under another name",
        {"conversations": [{"from": "human", "value": "a"}, {"from": "env", "value": "1"}]},
        "conversations[1] is of role tool, expected assistant",
        "remove the row",
        tags={"observation": "env"},
    ),
    sharegpt(
        "messages with ShareGPT's keys missing",
        {"conversations": [said("user", "a")]},
        "conversations[0] has no 'from', found content, role",
        "columns or tags",
    ),
    sharegpt(
        "roles of another vocabulary",
        {"conversations": [{"from": "user", "value": "a"}]},
        "from is 'user', expected one of system, human, gpt",
        "set the dataset's tags",
    ),
    sharegpt(
        "ranking rows of ShareGPT",
        {"conversations": [{"from": "human", "value": "a"}], "chosen": {}, "rejected": {}},
        "is a preference row",
        "use a dataset of conversations",
    ),
    alpaca(
        "no instruction", {"output": "b"}, "the row has no 'instruction', found output", "set the dataset's columns"
    ),
    alpaca(
        "no output", {"instruction": "a", "input": ""}, "the row has no 'output', found input, instruction", "columns"
    ),
    alpaca(
        "an output that is null",
        {"instruction": "a", "output": None},
        "column 'output' is null, expected the answer",
        "add it",
    ),
    alpaca(
        "an output that is a number",
        {"instruction": "a", "output": 3},
        "column 'output' is a number, expected a string",
        "write it in quotes",
    ),
    alpaca(
        "an instruction that is a list",
        {"instruction": ["a"], "output": "b"},
        "column 'instruction' is a list, expected a string",
        "write it in quotes",
    ),
    alpaca(
        "half a pair in the history",
        {"instruction": "a", "output": "b", "history": [["q"]]},
        "history[0] is not a pair of strings, expected [question, answer]",
        "correct it",
    ),
    alpaca(
        "a history that is text",
        {"instruction": "a", "output": "b", "history": "q"},
        "column 'history' is a string, expected a list of [question, answer]",
        "correct it",
    ),
    alpaca(
        "ranking rows of alpaca",
        {"instruction": "a", "chosen": "b", "rejected": "c"},
        "is a preference row",
        "use a dataset of conversations",
    ),
    JobCase(
        "a column that is named wrongly",
        rows=GOOD[:1],
        spec={"datasets.0.columns": {"messages": "talk"}},
        says=(FAULTY, "rows.jsonl:1: the row has no 'talk', found messages", "set the dataset's columns"),
    ),
    JobCase(
        "a list in a CSV cell that is no JSON",
        rows='messages\n"[{role: user}]"\n',
        file="rows.csv",
        says=(FAULTY, "rows.csv:2: holds a list that is malformed JSON", "expected [...]", "correct it"),
    ),
    JobCase(
        "every answer beyond the cutoff",
        rows=[chat("long " * 300, "answer")],
        spec={"tokenization.cutoffLen": 16},
        says=("spec.datasets: no row is left to train on", "rows.jsonl:1: none of its", "cutoffLen 16"),
    ),
)

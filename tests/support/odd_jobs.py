"""Jobs that are odd and legal: every one of them has to be prepared and trained."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from typing import Any

import pyarrow

from bad_rows import LINES, arrow, parquet, said, talk
from damaged_models import in_shards
from job_cases import GOOD, JobCase
from trainer_runs import chat

BOM = b"\xef\xbb\xbf"
ALPACA = [{"instruction": "add", "input": "1 1", "output": "2"}, {"instruction": "say hi", "input": "", "output": "hi"}]
SHAREGPT = [{"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}] * 3
TOOLED = {
    "tools": [{"name": "now", "parameters": {"properties": {"zone": {"type": "string"}}}}],
    "messages": [
        said("user", "what time is it?"),
        {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "now", "arguments": "{}"}}]},
        said("tool", "12:00"),
        said("tool", "UTC"),
        said("assistant", "noon"),
    ],
}
CALLING = {
    "conversations": [
        {"from": "human", "value": "what time is it?"},
        {"from": "function_call", "value": '<think>\nA clock.\n</think>\n\n{"name": "now", "arguments": {}}'},
        {"from": "observation", "value": "12:00"},
        {"from": "gpt", "value": "noon"},
    ]
}
CSV = 'instruction,input,output\n"say\nhi",,"hi, you"\nadd,1 1,2\n'


def zstd(content: bytes) -> bytes:
    sink = pyarrow.BufferOutputStream()
    with pyarrow.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return bytes(sink.getvalue())


@dataclass(frozen=True, slots=True)
class OddJob:
    """A job, and what prepare has to report of it."""

    job: JobCase
    reports: dict[str, Any]


def odd(
    case: str,
    rows: Any = None,
    /,
    *,
    file: str = "rows.jsonl",
    reports: dict[str, Any] | None = None,
    model: Any = None,
    files: Any = None,
    **spec: Any,
) -> OddJob:
    fields = {path.replace("__", "."): value for path, value in spec.items()}
    return OddJob(JobCase(case, list(GOOD) if rows is None else rows, file, fields, model, files or {}), reports or {})


def alpaca(
    case: str, rows: Any, file: str = "rows.jsonl", reports: dict[str, Any] | None = None, **dataset: Any
) -> OddJob:
    return odd(
        case, rows, file=file, reports=reports, datasets=[{"source": f"data/{file}", "format": "Alpaca", **dataset}]
    )


FILES = (
    odd("a byte order mark", BOM + LINES, reports={"rows": 4}),
    odd("Windows line ends", LINES.replace(b"\n", b"\r\n"), reports={"rows": 4}),
    odd("a byte order mark before an array", BOM + json.dumps(GOOD).encode(), file="rows.json", reports={"rows": 4}),
    odd("blank lines", b"\n\n" + LINES.replace(b"\n", b"\n\n  \n"), reports={"rows": 4}),
    odd("no line end at the end", LINES.rstrip(), reports={"rows": 4}),
    odd("gzip", gzip.compress(LINES), file="rows.jsonl.gz", reports={"rows": 4}),
    odd("zstd", zstd(LINES), file="rows.json.zst", reports={"rows": 4}),
    odd("gzip that is not named so", gzip.compress(LINES), reports={"rows": 4}),
    odd("a suffix in capitals", file="ROWS.JSONL", datasets__0__source="data/ROWS.JSONL"),
    odd(
        "a folder with a suffix in capitals",
        file="deep/ROWS.JSONL",
        datasets__0__source="data/deep",
        reports={"rows": 4},
    ),
    odd("no suffix", file="rows", reports={"rows": 4}),
    odd("an array named .jsonl", json.dumps(GOOD), reports={"rows": 4}),
    odd("lines named .json", file="rows.json", reports={"rows": 4}),
    odd("an array over many lines", json.dumps(GOOD, indent=4), file="rows.json", reports={"rows": 4}),
    odd("an array of one row", json.dumps(GOOD[:1]), file="rows.json", reports={"rows": 1}),
    odd("Parquet", parquet(GOOD), file="rows.parquet", reports={"rows": 4}),
    odd("Parquet in gzip", gzip.compress(parquet(GOOD)), file="rows.parquet.gz", reports={"rows": 4}),
    odd("an Arrow file", arrow(GOOD, stream=False), file="rows.arrow", reports={"rows": 4}),
    odd("an Arrow stream", arrow(GOOD, stream=True), file="rows.arrow", reports={"rows": 4}),
    odd(
        "what the datasets library saves",
        arrow(GOOD, stream=True),
        file="set/data-00000-of-00001.arrow",
        datasets__0__source="data/set",
        files={"set/state.json": "{}", "set/dataset_info.json": "{}"},
        reports={"rows": 4},
    ),
    odd(
        "a folder in a folder",
        file="a/b/c/rows.jsonl",
        datasets__0__source="data/a",
        files={"a/readme.md": "no rows", "a/.hidden.json": "{"},
        reports={"rows": 4},
    ),
    odd(
        "several datasets of different formats",
        datasets=[
            {"source": "data/rows.jsonl"},
            {"source": "data/a.csv", "format": "Alpaca"},
            {"source": "data/s.json", "format": "ShareGPT"},
        ],
        files={"a.csv": CSV, "s.json": json.dumps(SHAREGPT)},
        reports={"rows": 9},
    ),
    alpaca("CSV with line ends and commas in cells", CSV, file="rows.csv", reports={"rows": 2}),
    alpaca(
        "CSV with a byte order mark and Windows line ends",
        BOM + CSV.replace("\n", "\r\n").encode(),
        file="rows.csv",
        reports={"rows": 2},
    ),
    odd(
        "messages in the cells of a CSV",
        'messages\n"' + json.dumps(GOOD[0]["messages"]).replace('"', '""') + '"\n',
        file="rows.csv",
        reports={"rows": 1},
    ),
)

ROWS = (
    odd("one row", GOOD[:1], reports={"rows": 1}),
    odd("fewer rows than a batch", GOOD[:1], training__perDeviceBatchSize=4, training__gradientAccumulationSteps=4),
    odd("emoji", [chat("👩‍👩‍👧‍👦 🇨🇳", "∑ √ 🎉")]),
    odd("right to left", [chat("ما هي العاصمة؟", "القاهرة שלום")]),
    odd(
        "a surrogate pair as escapes",
        [
            '{"messages": [{"role": "user", "content": "\\ud83d\\ude00 \\\\ud83d"}, {"role": "assistant", "content": "b"}]}'
        ],
        reports={"rows": 1},
    ),
    odd(
        "an escaped NUL",
        ['{"messages": [{"role": "user", "content": "a\\u0000b"}, {"role": "assistant", "content": "b"}]}'],
    ),
    odd("line separators of Unicode inside a row", json.dumps(chat("a\u2028b\u0085c", "d\u2029"), ensure_ascii=False)),
    odd(
        "a very long system message",
        [chat("a", "b", system="You are patient. " * 500), chat("c", "d")],
        reports={"rows": 2, "truncated": 1},
    ),
    odd("a prompt longer than the cutoff", [chat("why " * 200, "because " * 40), *GOOD], tokenization__cutoffLen=64),
    odd("an empty system message", [chat("a", "b", system="")]),
    odd("an empty question", [chat("", "b")], reports={"rows": 1}),
    odd("many turns", [chat(*(f"turn {number}" for number in range(12)))]),
    odd(
        "further columns",
        [{**chat("a", "b"), "id": 7, "score": 0.5, "chosen": [], "rejected": [], "tools": []}],
        reports={"rows": 1},
    ),
    odd("special tokens in the text", [chat("what is <|im_end|>?", "the end")], reports={"rows": 1}),
    odd("the same row over and over", [GOOD[0]] * 20, reports={"rows": 20}),
    odd("white space around everything", [chat("  a \n", "\tb  ")]),
    odd(
        "other names for everything",
        [{"talk": [{"who": "me", "what": "a"}, {"who": "you", "what": "b"}], "boss": "s"}],
        datasets=[
            {
                "source": "data/rows.jsonl",
                "format": "ShareGPT",
                "columns": {"messages": "talk", "system": "boss"},
                "tags": {"role": "who", "content": "what", "user": "me", "assistant": "you"},
            }
        ],
    ),
    alpaca(
        "an input that is null",
        [{"instruction": "a", "input": None, "output": "b", "system": None}],
        reports={"rows": 1},
    ),
    alpaca("an instruction that is empty", [{"instruction": "", "input": "a", "output": "b"}], reports={"rows": 1}),
    alpaca(
        "a history", [{"instruction": "a", "output": "b", "history": [["q", "r"], ["s", "t"]]}], reports={"rows": 1}
    ),
    alpaca(
        "columns by other names",
        [{"question": "a", "answer": "b"}],
        columns={"prompt": "question", "response": "answer"},
    ),
    odd(
        "tools, calls and results with a named template",
        [TOOLED] * 3,
        reports={"rows": 3},
        datasets=[{"source": "data/rows.jsonl", "columns": {"tools": "tools"}}],
        tokenization__template="chatml",
        tokenization__cutoffLen=1024,
    ),
    odd(
        "calls under ShareGPT's roles, with a thought",
        [CALLING] * 3,
        reports={"rows": 3},
        datasets=[{"source": "data/rows.jsonl", "format": "ShareGPT"}],
        tokenization__template="chatml",
    ),
    odd(
        "rows out of order with a named template",
        [*GOOD, chat("a"), talk(said("assistant", "a"))],
        tokenization__template="chatml",
        reports={"rows": 4, "dropped": 2},
    ),
    odd(
        "an empty answer where LLaMA-Factory's rules count",
        [chat("a", "")],
        tokenization__template="chatml",
        tokenization__compatibility="LLaMAFactory",
        reports={"rows": 1},
    ),
)

SETTINGS = (
    odd("half an epoch", training__maxSteps=None, training__epochs="0.5"),
    odd("packing one row", GOOD[:1], tokenization__packing="Segmented"),
    odd("plain packing", tokenization__packing="Plain"),
    odd("more samples than rows", datasets__0__maxSamples=1000, reports={"rows": 4}),
    odd("one sample", datasets__0__maxSamples=1, reports={"rows": 1}),
    odd("one row to evaluate on", evaluation={"rows": 1, "steps": 1}, reports={"rows": 3, "evaluationRows": 1}),
    odd(
        "the same set to train and to evaluate on",
        evaluation={"dataset": {"source": "data/rows.jsonl"}},
        reports={"rows": 4, "evaluationRows": 4},
    ),
    odd("a cutoff of 32", [chat("a", "b")] * 2, tokenization__cutoffLen=32),
    odd("a batch larger than the set", training__perDeviceBatchSize=64),
    odd("checkpoints rarer than steps", checkpoints__steps=100_000),
    odd("a checkpoint at every step", checkpoints__steps=1),
    odd("prompts learnt as well", tokenization__trainOnPrompt=True),
    odd("only the last answer learnt", [chat("a", "b", "c", "d")], tokenization__maskHistory=True),
    odd("rows in their order", training__shuffle=False),
    odd("a rank of one", lora__rank=1),
    odd("one module", lora__targetModules=["v_proj"]),
    odd("the head trained whole", lora__modulesToSave=["lm_head"]),
    odd("every weight trained", method="Full", lora=None),
    odd("weights in two files", model=in_shards()),
    odd(
        "the same file twice",
        datasets=[{"source": "data/rows.jsonl"}, {"source": "data/rows.jsonl"}],
        reports={"rows": 8},
    ),
    odd("texts to be filled in", [chat("who are you?", "I am {{name}}")], datasets__0__placeholders={"name": "Iris"}),
)

ODD = (*FILES, *ROWS, *SETTINGS)

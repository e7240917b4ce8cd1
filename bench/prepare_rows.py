"""Measures the prepare stage on rows that are made here: time, processor time and memory, and the same rows by datasets.map.

    python bench/prepare_rows.py --rows 100000 --workers 2 [--packing Segmented] [--evaluation 1000] [--peer]

Rows are questions and answers of a few words from Python's own sources, as is the tokenizer, of 32,000 words. Prints one
JSON object a measurement. ``--peer`` does what LLaMA-Factory does in Python: two passes of ``datasets.map`` with as many
processes, each piece of a message tokenised by a call of its own.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import random
import resource
import sysconfig
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

VOCABULARY = 32_000
SAMPLE_SECONDS = 0.5


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=1, help="1 stands for no process besides the one that reads")
    parser.add_argument("--packing", default="None")
    parser.add_argument("--evaluation", type=int, default=0, help="rows to hold back")
    parser.add_argument("--words", type=int, default=6, help="words of a question; its answer has as many")
    parser.add_argument("--template", default="chatml")
    parser.add_argument("--peer", action="store_true", help="measure datasets.map as well")
    parser.add_argument("--folder", type=Path, help="where to work; default: a temporary folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        texts = _texts()
        model = _model(folder / "model", texts)
        rows = _write_rows(folder / "rows.jsonl", texts, options.rows, options.words)
        measures = [("prepare", lambda: _prepare(folder / "job", model, rows, options))]
        if options.peer:
            measures.append(("datasets.map", lambda: _peer(folder / "cache", model, rows, options.workers)))
        for what, measure in measures:
            print(json.dumps(_measured(what, measure, options) | _versions()), flush=True)


def _texts() -> list[str]:
    files = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    return [path.read_text(encoding="utf-8", errors="ignore") for path in files]


def _model(folder: Path, texts: list[str]) -> Path:
    from finetune_devcluster.tiny_model import make_tiny_model

    return make_tiny_model(folder, texts, vocabulary=VOCABULARY)


def _write_rows(path: Path, texts: list[str], count: int, words: int) -> Path:
    chance = random.Random(0)  # noqa: S311 -- rows that are the same every time
    lines = [line.split() for text in texts for line in text.splitlines()]
    lines = [line for line in lines if len(line) >= words]
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            question, answer = (" ".join(chance.choice(lines)[:words]) for _ in range(2))
            messages = [("user", f"{question} {number}"), ("assistant", answer)]
            file.write(json.dumps({"messages": [{"role": role, "content": text} for role, text in messages]}) + "\n")
    return path


def _prepare(root: Path, model: Path, rows: Path, options: argparse.Namespace) -> int:
    from finetune_operator.api.run import RunConfig
    from finetune_trainer.prepare.collect import Pace
    from finetune_trainer.prepare.stage import prepare

    spec: dict[str, Any] = {
        "model": {"source": f"file://{model}"},
        "datasets": [{"source": f"file://{rows}"}],
        "method": "Full",
        "tokenization": {"template": options.template, "cutoffLen": 1024, "packing": options.packing},
        "resources": {"gpusPerNode": 0},
    }
    if options.evaluation:
        spec["evaluation"] = {"rows": options.evaluation}
    run = RunConfig.model_validate({"name": "bench", "uid": "bench", "root": str(root), "spec": spec})
    return int(prepare(run, Pace(workers=options.workers))["tokens"])


def _peer(cache: Path, model: Path, rows: Path, workers: int) -> int:
    import datasets
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    datasets.disable_progress_bars()

    def align(row: dict[str, Any]) -> dict[str, Any]:
        *prompt, answer = row["messages"]
        return {"prompt": prompt, "answer": answer["content"]}

    def encode(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        made: dict[str, list[Any]] = {"input_ids": [], "attention_mask": [], "labels": []}
        for prompt, answer in zip(batch["prompt"], batch["answer"], strict=True):
            asked = f"<|im_start|>user\n{prompt[0]['content']}<|im_end|>\n<|im_start|>assistant\n"
            source = tokenizer.encode(asked, add_special_tokens=False)
            target = tokenizer.encode(f"{answer}<|im_end|>\n", add_special_tokens=False)
            made["input_ids"].append(source + target)
            made["attention_mask"].append([1] * len(source + target))
            made["labels"].append([-100] * len(source) + target)
        return made

    processes = workers if workers > 1 else None
    data = datasets.load_dataset("json", data_files=str(rows), split="train", cache_dir=str(cache))
    data = data.map(align, remove_columns=data.column_names, num_proc=processes)
    data = data.map(encode, batched=True, remove_columns=data.column_names, num_proc=processes)
    return sum(len(ids) for ids in data.with_format("arrow")["input_ids"])


def _measured(what: str, measure: Callable[[], int], options: argparse.Namespace) -> dict[str, Any]:
    before, began = _processor_seconds(), time.monotonic()
    with _memory_watched() as memory:
        tokens = measure()
    seconds = time.monotonic() - began
    for child in multiprocessing.active_children():
        child.join()
    return {
        "what": what,
        "rows": options.rows,
        "tokens": tokens,
        "workers": options.workers,
        "seconds": round(seconds, 1),
        "rowsPerSecond": round(options.rows / seconds),
        "processorSeconds": round(_processor_seconds() - before, 1),
        **memory,
    }


def _processor_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


@contextmanager
def _memory_watched() -> Iterator[dict[str, int]]:
    """Resident MiB of this process before and at most, and the most of any child."""
    found = {"beforeMiB": _resident("self"), "peakMiB": 0, "workerPeakMiB": 0}
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(SAMPLE_SECONDS):
            found["peakMiB"] = max(found["peakMiB"], _resident("self"))
            children = [_resident(str(child.pid)) for child in multiprocessing.active_children()]
            found["workerPeakMiB"] = max(found["workerPeakMiB"], *children, 0)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    yield found
    stop.set()
    thread.join()


def _resident(process: str) -> int:
    try:
        pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0
    return pages * resource.getpagesize() >> 20


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    names = ("tokenizers", "transformers", "datasets", "numpy")
    return {"python": platform.python_version()} | {name: version(name) for name in names}


if __name__ == "__main__":
    main()

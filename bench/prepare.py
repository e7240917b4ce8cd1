"""Preparing rows (tokenise, mask, pack): this project's prepare stage and LLaMA-Factory's preprocessing, in one run.

    python bench/prepare.py --out bench/results/DATE-cpu-prepare.jsonl --llama-factory FOLDER
    python bench/prepare.py --rows 1000000 --words 6 --repetitions 1 --out …            # memory of many rows

``--llama-factory`` is a folder with LLaMA-Factory 0.9.5 and its own requirements (pip install --target). Rows are
questions and answers from Python's own sources, as is the tokenizer, of 32,000 words. Both get the same rows and as
many processes, and each measurement is a process of its own with empty caches. Prints and appends a JSON line a
measurement: seconds of the whole process, seconds without its imports, processor seconds, and the most memory that the
process and its workers held (shared pages counted once).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

import machine
import workload
from process_tree import measured
from processes import BenchError, own_environment

HERE = Path(__file__).parent
VOCABULARY = 32_000
CUTOFF = 1024
PACKAGES = ("tokenizers", "transformers", "datasets", "numpy")


def main() -> None:
    """Make rows, measure each way in turn, as often as asked."""
    options = _options()
    with tempfile.TemporaryDirectory(prefix="finetune-prepare-", dir=options.folder) as name:
        folder = Path(name)
        texts = _texts()
        _write_model(folder / "model", texts)
        for count in options.rows or [10_000, 100_000]:
            _write_rows(folder / "data", texts, count, options.words)
            for repetition in range(options.repetitions):
                for way in ("prepare", *(["LLaMA-Factory"] if options.llama_factory else [])):
                    line = _measure(way, folder, options)
                    about = {"bench": "prepare", "way": way, "rows": count, "repetition": repetition}
                    _tell({**about, **machine.about(PACKAGES), **line}, options.out)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="JSON lines are added to this file")
    parser.add_argument("--rows", type=int, action="append", help="may be repeated; default: 10,000 and 100,000")
    parser.add_argument("--words", type=int, default=55, help="words of a question; its answer has as many")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="processes")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--llama-factory", type=Path, help="folder with LLaMA-Factory's packages")
    parser.add_argument("--folder", type=Path, help="where to work; default: a temporary folder")
    return parser.parse_args()


def _texts() -> list[str]:
    files = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    return [path.read_text(encoding="utf-8", errors="ignore") for path in files]


def _write_model(folder: Path, texts: list[str]) -> None:
    workload.write_model(folder, "tiny", "cpu", texts, VOCABULARY)


def _write_rows(folder: Path, texts: list[str], count: int, words: int) -> None:
    """Questions and answers of so many words from any place of the texts, and LLaMA-Factory's description of them."""
    chance = random.Random(0)  # noqa: S311 -- rows that are the same every time
    text = " ".join(texts).split()
    folder.mkdir(exist_ok=True)
    with (folder / "rows.jsonl").open("w", encoding="utf-8") as file:
        for number in range(count):
            question, answer = (" ".join(text[place : place + words]) for place in _places(chance, len(text) - words))
            turns = [("user", f"{question} {number}"), ("assistant", answer)]
            messages = [{"role": role, "content": content} for role, content in turns]
            file.write(json.dumps({"messages": messages}) + "\n")
    tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
    described = {"file_name": "rows.jsonl", "formatting": "sharegpt", "columns": {"messages": "messages"}, "tags": tags}
    (folder / "dataset_info.json").write_text(json.dumps({"rows": described}))


def _places(chance: random.Random, count: int) -> tuple[int, int]:
    return chance.randrange(count), chance.randrange(count)


def _measure(way: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    asked = {"folder": str(folder), "cutoff": CUTOFF, "workers": options.workers, "made": str(folder / "made")}
    if way == "prepare":
        program, environment = "own_prepare.py", own_environment(FINETUNE_CPUS=str(options.workers))
    else:
        program, environment = "llama_factory_prepare.py", {**os.environ, "PYTHONPATH": str(options.llama_factory)}
    try:
        found = measured([sys.executable, str(HERE / program), json.dumps(asked)], environment)
    except BenchError as error:
        return {"workers": options.workers, "error": str(error)}
    finally:
        shutil.rmtree(folder / "made", ignore_errors=True)
    answers = [line for line in found.pop("output").splitlines() if line.startswith("RESULT ")]
    return {"workers": options.workers, **found, **json.loads(answers[-1].removeprefix("RESULT "))}


def _tell(line: dict[str, Any], out: Path) -> None:
    with out.open("a") as file:
        file.write(json.dumps(line) + "\n")
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()

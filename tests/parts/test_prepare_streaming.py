"""Rows stream through prepare: the same tokens at any pace, with any number of processes, and however often it is killed."""

import json
import multiprocessing
import os
import pickle
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from itertools import chain, repeat
from pathlib import Path

import numpy as np
import pytest
from transformers import PreTrainedTokenizerBase

from finetune_operator.api.outcome import ExitCode, StageFailure
from finetune_operator.api.run import RunConfig
from finetune_trainer.prepare import collect as collecting
from finetune_trainer.prepare.batch_encoder import BatchEncoder
from finetune_trainer.prepare.batches import BATCH_BYTES, Batch, batched
from finetune_trainer.prepare.collect import Pace
from finetune_trainer.prepare.job_template import set_up_tokenizer
from finetune_trainer.prepare.journal import PROGRESS, Journal
from finetune_trainer.prepare.rows import Place, Row
from finetune_trainer.prepare.stage import prepare
from finetune_trainer.prepare.tally import Listing, Tally
from finetune_trainer.prepare.tokenizer import load_tokenizer
from finetune_trainer.prepare.workers import Workers
from finetune_trainer.store import EVALUATION, INPUT_IDS, TRAIN, Meta, RowStore
from support_wait import eventually
from trainer_runs import chat, identity_model, make_run, write_lines, write_run

ROWS = 1500
ALONE = Pace(batch_rows=50, commit_rows=100, workers=1)
SEED = 7


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return identity_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    chance = random.Random(SEED)
    texts = [["word " * chance.randint(1, 12), f"answer {index}"] for index in range(ROWS)]
    # Every 50th has no answer, and is left out.
    lines = [chat(*(text[:1] if index % 50 == 49 else text)) for index, text in enumerate(texts)]
    return write_lines(tmp_path_factory.mktemp("rows") / "rows.jsonl", lines)


def job(root: Path, model: Path, rows: Path) -> RunConfig:
    return make_run(
        root,
        model,
        rows,
        datasets=[{"source": f"file://{rows}", "maxSamples": 700}, {"source": f"file://{rows}"}],
        tokenization={"template": "chatml", "cutoffLen": 128, "packing": "Segmented", "compatibility": "LLaMAFactory"},
        evaluation={"fraction": "0.1"},
    )


def result(run: RunConfig) -> tuple[str, str, list[int]]:
    """Everything that prepare makes of the rows."""
    held_back = RowStore(run.paths.data / EVALUATION)
    numbers = [held_back.row(index).number for index in range(held_back.rows)]
    return Meta.load(run.paths.data).tokens_hash, run.paths.report.read_text(), numbers


def test_workers_and_small_batches_give_the_same_tokens_as_one_process(tmp_path: Path, model: Path, rows: Path) -> None:
    alone, together = (job(tmp_path / name, model, rows) for name in ("alone", "together"))
    prepare(alone, Pace(workers=1))
    prepare(together, Pace(batch_rows=37, own_rows=100, commit_rows=150, workers=2))
    assert result(together) == result(alone)


@pytest.mark.parametrize("compatibility", ["None", "LLaMAFactory"])
@pytest.mark.parametrize("template", ["Auto", "qwen"])
def test_a_tokenizer_that_was_sent_to_a_worker_makes_the_same_tokens(
    tmp_path: Path, model: Path, rows: Path, template: str, compatibility: str
) -> None:
    run = make_run(tmp_path, model, rows, tokenization={"template": template, "compatibility": compatibility})
    here = load_tokenizer(model)
    set_up_tokenizer(here, run)
    there = pickle.loads(pickle.dumps(here))
    row = Row(Place("rows.jsonl", 1), chat("<|im_end|> question", "an answer", "", "another", system="Be brief."))
    [batch] = batched(0, [row, Row(Place("rows.jsonl", 2), chat("question", "answer"))])
    first, second = (BatchEncoder.of(run, tokenizer).encode(0, batch.rows) for tokenizer in (here, there))
    assert (first.lengths > 0).all()
    assert np.array_equal(first.input_ids, second.input_ids)
    assert np.array_equal(first.labels, second.labels)


def progress(run: RunConfig) -> dict[str, object]:
    file = run.paths.root / ".data.partial" / PROGRESS
    found: dict[str, object] = json.loads(file.read_bytes()) if file.exists() else {}
    return found


def kill_when_written(run: RunConfig, size: int) -> bool:
    """Prepare in a process of its own, killed once it has written so many bytes of tokens; whether it was in time."""
    file = run.paths.root / ".data.partial" / INPUT_IDS
    child = multiprocessing.get_context("fork").Process(target=prepare, args=(run, ALONE))
    child.start()
    eventually(lambda: (file.exists() and file.stat().st_size >= size) or not child.is_alive())
    os.kill(child.pid or 0, signal.SIGKILL)
    child.join()
    return child.exitcode == -signal.SIGKILL


def test_prepare_killed_at_random_moments_makes_what_an_undisturbed_one_makes(
    tmp_path: Path, model: Path, rows: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    undisturbed, killed = (job(tmp_path / name, model, rows) for name in ("undisturbed", "killed"))
    prepare(undisturbed, ALONE)
    whole = (undisturbed.paths.data / INPUT_IDS).stat().st_size
    chance, done = random.Random(SEED), 0
    for moment in sorted(chance.uniform(0.05, 0.95) for _ in range(6)):
        assert kill_when_written(killed, int(moment * whole))
        assert int(str(progress(killed).get("rows", 0))) >= done, "committed rows were lost"
        done = int(str(progress(killed).get("rows", 0)))
    assert done >= ALONE.commit_rows
    capsys.readouterr()
    prepare(killed, ALONE)
    assert f"going on behind the {done} rows that are done" in capsys.readouterr().out
    assert result(killed) == result(undisturbed)


def test_rows_that_workers_had_under_way_when_prepare_was_killed_are_not_lost(
    tmp_path: Path, model: Path, rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed, killed = (job(tmp_path / name, model, rows) for name in ("undisturbed", "killed"))
    prepare(undisturbed, ALONE)
    commit = Journal.commit

    def commit_and_end(journal: Journal, tallies: list[Tally]) -> None:
        commit(journal, tallies)
        # The workers have rows of the second dataset already, when the last of the first are not committed yet.
        if sum(tally.read for tally in tallies) == 680:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Journal, "commit", commit_and_end)
        with pytest.raises(KeyboardInterrupt):
            prepare(killed, Pace(batch_rows=40, own_rows=40, commit_rows=40, workers=2))
    prepare(killed, ALONE)
    assert result(killed) == result(undisturbed)


def interrupted(run: RunConfig) -> Path:
    """A job whose prepare was killed half way; the folder that it left."""
    assert kill_when_written(run, 60_000)
    assert progress(run)["rows"]
    return run.paths.root / ".data.partial"


@pytest.mark.parametrize("damage", ["torn rows", "lost rows", "torn mark", "other rows"])
def test_what_was_not_committed_whole_is_made_anew(
    tmp_path: Path, model: Path, rows: Path, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    data = tmp_path / "rows.jsonl"
    data.write_bytes(rows.read_bytes())
    killed = job(tmp_path / "killed", model, data)
    folder = interrupted(killed)
    if damage == "torn rows":
        with (folder / INPUT_IDS).open("ab") as stream:
            stream.write(b"\xff" * 1001)
    elif damage == "lost rows":
        os.truncate(folder / INPUT_IDS, 100)
    elif damage == "torn mark":
        os.truncate(folder / PROGRESS, 20)
    else:
        write_lines(data, [*map(json.loads, data.read_text().splitlines()), chat("one", "more")])
    prepare(killed, ALONE)
    expected = job(tmp_path / "undisturbed", model, data)
    prepare(expected, ALONE)
    assert result(killed) == result(expected)


@pytest.fixture(scope="module")
def tokenizer(model: Path) -> PreTrainedTokenizerBase:
    return load_tokenizer(model)


def endless() -> Iterator[Batch]:
    row = Row(Place("rows.jsonl", 1), chat("question", "answer"))
    return batched(0, repeat(row), most_rows=5)


def test_a_worker_that_is_killed_ends_the_stage_with_advice(
    tmp_path: Path, model: Path, rows: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    run = make_run(tmp_path, model, rows)
    with Workers(run, tokenizer, 2) as workers:
        encoded = workers.encode(endless())
        assert next(encoded)[0].places
        os.kill(multiprocessing.active_children()[0].pid or 0, signal.SIGKILL)
        with pytest.raises(StageFailure, match="was killed") as caught:
            list(encoded)
    assert caught.value.code is ExitCode.OUT_OF_MEMORY
    assert "stages.prepare.memory" in caught.value.message


READER = """
import multiprocessing, os, signal, sys
from itertools import repeat
from pathlib import Path
from transformers.tokenization_utils_tokenizers import PreTrainedTokenizerFast
from finetune_operator.api.run import load_run
from finetune_trainer.prepare.batch_encoder import BatchEncoder
from finetune_trainer.prepare.batches import batched
from finetune_trainer.prepare.rows import Place, Row
from finetune_trainer.prepare.workers import Workers

if __name__ == "__main__":
    row = Row(Place("rows.jsonl", 1), {"messages": [{"role": role, "content": "a"} for role in ("user", "assistant")]})
    workers = Workers(load_run(Path(sys.argv[1])), PreTrainedTokenizerFast.from_pretrained(sys.argv[2]), 2)
    next(workers.encode(batched(0, repeat(row), most_rows=5)))
    print(*(child.pid for child in multiprocessing.active_children()), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
"""A process that is killed while its workers work."""


def test_workers_end_with_the_process_that_reads(tmp_path: Path, model: Path, rows: Path) -> None:
    script = tmp_path / "reader.py"
    script.write_text(READER)
    run = write_run(make_run(tmp_path / "job", model, rows), tmp_path)
    command = [sys.executable, str(script), str(run), str(model)]
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    assert ended.returncode == -signal.SIGKILL
    workers = [int(pid) for pid in ended.stdout.split()]
    assert len(workers) == 2
    eventually(lambda: not any(is_running(pid) for pid in workers), message="the workers end")


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_the_log_tells_how_far_it_is(
    tmp_path: Path, model: Path, rows: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collecting, "SECONDS_A_LINE", 0.0)
    prepare(make_run(tmp_path, model, rows, tokenization={"template": "chatml"}), Pace(batch_rows=500, workers=1))
    said = [line for line in capsys.readouterr().out.splitlines() if "rows/s" in line]
    assert [line.split(",")[0] for line in said] == [f"prepare: {count} rows read" for count in (500, 1000, 1500)]


def test_a_batch_of_long_rows_has_fewer_of_them() -> None:
    long = [Row(Place("rows.jsonl", number), "x" * (BATCH_BYTES // 3)) for number in range(7)]
    short = [Row(Place("rows.jsonl", number), "x") for number in range(7)]
    batches = list(batched(0, chain(long, short), most_rows=5))
    assert [len(batch.rows) for batch in batches] == [3, 3, 5, 3]
    assert [place.number for batch in batches for place in batch.places] == [*range(7), *range(7)]


def test_of_many_faults_a_few_are_kept_and_all_are_counted() -> None:
    listing = Listing(limit=3)
    for number in range(1000):
        listing.add(f"row {number}")
    assert (listing.count, listing.first) == (1000, ["row 0", "row 1", "row 2"])


def test_rows_keep_their_dataset_and_order(tmp_path: Path, model: Path, rows: Path) -> None:
    first = write_lines(tmp_path / "first.jsonl", [chat("a", "b"), chat("only asked"), chat("c", "d")])
    second = write_lines(tmp_path / "second.jsonl", [chat("e", "f")])
    run = make_run(
        tmp_path / "job",
        model,
        first,
        datasets=[{"source": f"file://{second}"}, {"source": f"file://{first}"}],
        tokenization={"template": "chatml", "packing": "None"},
    )
    prepare(run, Pace(batch_rows=1, workers=1))
    store = RowStore(run.paths.data / TRAIN)
    assert Meta.load(run.paths.data).files == [str(second), str(first)]
    assert [(store.row(index).file, store.row(index).number) for index in range(3)] == [(0, 1), (1, 1), (1, 3)]
    assert np.array_equal(store.row(0).input_ids, next(iter(store.sequence(0))).input_ids)

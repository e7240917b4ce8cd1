"""`finetune-trainer tokens`: what it prints is what the trainer reads, and nothing stays behind."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from finetune_operator.api.outcome import ExitCode
from finetune_operator.api.run import Hub, RunConfig
from finetune_trainer.prepare import tokenizer_check
from finetune_trainer.prepare.stage import prepare
from finetune_trainer.prepare.tokenizer import load_tokenizer
from finetune_trainer.rendering import render
from finetune_trainer.store import EVALUATION, TRAIN, RowStore, StoredRow
from finetune_trainer.tokens import View, show_tokens
from finetune_trainer.train.data import Collator, SequenceDataset
from loopback_hub import serving
from trainer_runs import IDENTITY, chat, identity_model, make_run, write_lines, write_run

ROWS = View(packed=False, rendered=False, evaluation=False, coloured=False)
SEQUENCES = View(packed=True, rendered=False, evaluation=False, coloured=False)
WITH_EVALUATION = View(packed=False, rendered=False, evaluation=True, coloured=False)
TEXT = View(packed=False, rendered=True, evaluation=False, coloured=False)
QWEN = {"template": "qwen", "cutoffLen": 64, "packing": "None"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return identity_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def bare(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model without weights and configuration."""
    folder = tmp_path_factory.mktemp("bare")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (folder / name).write_bytes((model / name).read_bytes())
    return folder


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    return write_lines(tmp_path / "rows.jsonl", [chat(f"question {index}", f"answer {index}") for index in range(20)])


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def stored(run: RunConfig, part: str) -> Iterator[StoredRow]:
    store = RowStore(run.paths.data / part)
    return (store.row(index) for index in range(store.rows))


@pytest.mark.parametrize("template", ["Auto", "qwen"])
def test_every_row_is_printed_as_prepare_stores_it(
    tmp_path: Path, model: Path, bare: Path, capsys: pytest.CaptureFixture[str], template: str
) -> None:
    names = {"name": "Aurora", "author": "Harbor Lab"}
    fields: dict[str, Any] = {
        "dataset": {"format": "Alpaca", "placeholders": names},
        "tokenization": {**QWEN, "template": template, "cutoffLen": 40},
    }
    run = make_run(tmp_path / "job", model, IDENTITY, **fields)
    prepare(run)
    capsys.readouterr()
    weightless = make_run(tmp_path / "other", bare, IDENTITY, **fields)
    assert show_tokens([write_run(weightless, tmp_path)], ROWS) == ExitCode.DONE
    shown = lines(capsys)
    assert [(line["input_ids"], line["labels"], line["source"]) for line in shown] == [
        (row.input_ids.tolist(), row.labels.tolist(), f"{IDENTITY}[{-row.number - 1}]") for row in stored(run, TRAIN)
    ]
    assert len(shown) == 40
    assert {line["job"] for line in shown} == {"job"}
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("packing", ["None", "Segmented", "Plain"])
def test_packed_lines_are_the_sequences_that_the_collator_pads(
    tmp_path: Path, model: Path, rows: Path, capsys: pytest.CaptureFixture[str], packing: str
) -> None:
    tokenization = {**QWEN, "cutoffLen": 256, "packing": packing, "trainOnPrompt": True}
    run = make_run(tmp_path / "job", model, rows, tokenization=tokenization)
    prepare(run)
    capsys.readouterr()
    assert show_tokens([write_run(run, tmp_path)], SEQUENCES) == ExitCode.DONE
    shown = lines(capsys)
    sequences = SequenceDataset(RowStore(run.paths.data / TRAIN))
    collate = Collator(pad_token_id=0, packing=run.spec.tokenization.packing)
    assert len(shown) == len(sequences)
    for index, line in enumerate(shown):
        batch, length = collate([sequences[index]]), len(line["input_ids"])
        assert line["input_ids"] == batch["input_ids"][0, :length].tolist()
        assert line["labels"] == batch["labels"][0, :length].tolist()
        assert line["source"] == [f"{rows}:{row.number}" for row in sequences[index]]
        assert set(batch["labels"][0, length:].tolist()) <= {-100}


def test_rows_held_back_are_printed_only_when_asked_for(
    tmp_path: Path, model: Path, rows: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "job", model, rows, evaluation={"rows": 4})
    prepare(run)
    capsys.readouterr()
    file = write_run(run, tmp_path)
    show_tokens([file], ROWS)
    training = lines(capsys)
    show_tokens([file], WITH_EVALUATION)
    everything = lines(capsys)
    held_back = [line for line in everything if line.get("evaluation")]
    assert (len(training), everything[:16]) == (16, training)
    assert [line["input_ids"] for line in held_back] == [row.input_ids.tolist() for row in stored(run, EVALUATION)]


def test_a_job_with_faulty_rows_is_told_and_the_others_are_printed(
    tmp_path: Path, bare: Path, rows: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    faulty = write_lines(tmp_path / "faulty.jsonl", [chat("a", "b"), {"text": "x"}, '{"messages": ['])
    runs = [
        make_run(tmp_path / "a", bare, faulty, name="first"),
        make_run(tmp_path / "b", tmp_path / "nowhere", rows, name="second"),
        make_run(tmp_path / "c", bare, rows, name="third"),
    ]
    assert show_tokens([write_run(run, tmp_path) for run in runs], ROWS) == ExitCode.INVALID_DATA
    printed = capsys.readouterr()
    assert {json.loads(line)["job"] for line in printed.out.splitlines()} == {"third"}
    errors = [line for line in printed.err.splitlines() if line.startswith("error: first")]
    assert [place in "".join(errors) for place in (f"{faulty}:2: ", f"{faulty}:3: ")] == [True, True]
    assert "nowhere) is not a folder" in printed.err


def test_rows_left_out_are_noted(tmp_path: Path, bare: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_lines(tmp_path / "rows.jsonl", [chat("a", "b"), chat("a", "b", "c")])
    run = make_run(tmp_path / "job", bare, data, tokenization=QWEN)
    assert show_tokens([write_run(run, tmp_path)], ROWS) == ExitCode.DONE
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == 1
    assert f"note: job: left out: {data}:2: messages ends with a message of the user" in printed.err


def test_jobs_of_one_model_and_template_share_a_tokenizer_and_others_do_not(
    tmp_path: Path, bare: Path, rows: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[Path] = []

    def counting(folder: Path) -> Any:
        loaded.append(folder)
        return load_tokenizer(folder)

    monkeypatch.setattr(tokenizer_check, "load_tokenizer", counting)
    templates = ["qwen", "Auto", "qwen", "chatml", "qwen", "Auto"]
    runs = [
        make_run(tmp_path / "job", bare, rows, name=f"job-{index}", tokenization={**QWEN, "template": template})
        for index, template in enumerate(templates)
    ]
    assert show_tokens([write_run(run, tmp_path) for run in runs], ROWS) == ExitCode.DONE
    assert len(loaded) == 3
    ids = {line["job"]: line["input_ids"] for line in lines(capsys)}
    assert ids["job-0"] == ids["job-2"] == ids["job-4"] != ids["job-3"]


def test_of_a_hubs_model_no_weights_are_fetched_and_the_tokenizer_once(
    tmp_path: Path, rows: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    identity_model(tmp_path / "models" / "org" / "tiny")
    with serving(tmp_path) as server:
        hub = Hub(hugging_face_endpoint=server.url)
        runs = [
            make_run(tmp_path / "job", tmp_path, rows, name=name, model={"source": "hf://org/tiny"}).model_copy(
                update={"hub": hub}
            )
            for name in ("first", "second")
        ]
        assert show_tokens([write_run(run, tmp_path) for run in runs], ROWS) == ExitCode.DONE
        asked = [request for request in server.requests if request.startswith("GET")]
    assert len(lines(capsys)) == 40
    assert len([request for request in asked if request.endswith("/tokenizer.json")]) == 1
    assert not [request for request in asked if request.endswith(".safetensors")]


def test_the_text_shows_special_tokens_and_what_is_learnt(
    tmp_path: Path, bare: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_lines(tmp_path / "rows.jsonl", [chat("Who are you?", "I am an assistant.", system="Be brief.")])
    run = make_run(tmp_path / "job", bare, data, tokenization=QWEN)
    assert show_tokens([write_run(run, tmp_path)], TEXT) == ExitCode.DONE
    headline, text = capsys.readouterr().out.split("\n", 1)
    assert headline.startswith(f"# job {data}:1: ")
    assert headline.endswith(" learnt")
    assert text == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWho are you?<|im_end|>\n"
        "<|im_start|>assistant\n«I am an assistant.<|im_end|>\n»\n\n"
    )


def test_a_row_cannot_steer_the_terminal(bare: Path) -> None:
    tokenizer = load_tokenizer(bare)
    ids = tokenizer("one\x1b[2J\ttwo", add_special_tokens=False)["input_ids"]
    text, learnt = render(tokenizer, ids, ids, coloured=True)
    assert (text, learnt) == ("\x1b[32mone\\x1b[2J\ttwo\x1b[0m", len(ids))


def test_a_cut_inside_a_character_shifts_nothing(bare: Path) -> None:
    tokenizer = load_tokenizer(bare)
    cut = tokenizer("星", add_special_tokens=False)["input_ids"][:1]
    answer = tokenizer("answer", add_special_tokens=False)["input_ids"]
    assert len(tokenizer("星", add_special_tokens=False)["input_ids"]) > 1
    text, _ = render(tokenizer, cut + answer, [-100] * len(cut) + answer, coloured=False)
    assert text == "\N{REPLACEMENT CHARACTER}«answer»"

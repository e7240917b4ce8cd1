"""The prepare stage as a whole: what it leaves, what it refuses, and that it leaves nothing half done."""

import json
from pathlib import Path

import numpy as np
import pytest

from finetune_operator.api.outcome import ExitCode, StageFailure
from finetune_operator.api.result import read_results
from finetune_operator.api.run import RunConfig
from finetune_trainer.prepare.split import split_rows
from finetune_trainer.prepare.stage import prepare
from finetune_trainer.store import EVALUATION, TRAIN, Meta, RowStore
from trainer_runs import IDENTITY, chat, identity_model, make_run, write_lines

NAMES = {"name": "Aurora", "author": "Harbor Lab"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return identity_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    return write_lines(tmp_path / "rows.jsonl", [chat(f"question {index}", f"answer {index}") for index in range(20)])


def refusal(run: RunConfig) -> StageFailure:
    with pytest.raises(StageFailure) as caught:
        prepare(run)
    assert not run.paths.data.exists(), "half-written data"
    assert "prepare" not in read_results(run.paths.result)
    return caught.value


def text_of(run: RunConfig, part: str = TRAIN) -> list[str]:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(run.paths.data / "tokenizer")
    store = RowStore(run.paths.data / part)
    return [tokenizer.decode(store.row(index).input_ids.tolist()) for index in range(store.rows)]


def test_rows_are_stored_with_their_tokens_labels_and_places(tmp_path: Path, model: Path) -> None:
    run = make_run(tmp_path / "job", model, IDENTITY, dataset={"format": "Alpaca", "placeholders": NAMES})
    figures = prepare(run)
    store, meta = RowStore(run.paths.data / TRAIN), Meta.load(run.paths.data)
    row = store.row(2)
    assert (store.rows, store.sequences) == (40, 40)
    assert (meta.files, row.file, row.number) == ([str(IDENTITY)], 0, -3)
    assert "assistant\nI am Aurora, an assistant made by Harbor Lab.<|im_end|>\n" in text_of(run)[2]
    assert np.array_equal(row.labels[row.labels != -100], row.input_ids[row.labels != -100])
    report = json.loads(run.paths.report.read_bytes())
    assert figures == read_results(run.paths.result)["prepare"]
    assert figures["tokens"] == report["tokens"] == sum(len(store.row(index).input_ids) for index in range(40))
    assert 0 < int(figures["trainedTokens"]) < int(figures["tokens"])
    assert sum(bin_["rows"] for bin_ in report["lengths"]) == 40


def test_a_finished_stage_with_the_same_input_is_not_run_again(tmp_path: Path, model: Path, rows: Path) -> None:
    run = make_run(tmp_path / "job", model, rows)
    first = prepare(run)
    made = (run.paths.data / "input_ids.bin").stat().st_ino
    assert prepare(run) == first
    assert (run.paths.data / "input_ids.bin").stat().st_ino == made
    write_lines(rows, [chat("another", "row")])
    assert prepare(run)["rows"] == 1


def test_faulty_rows_of_all_datasets_are_told_in_one_pass(tmp_path: Path, model: Path) -> None:
    first = write_lines(
        tmp_path / "first.jsonl",
        [chat("a", "b"), '{"messages": [', ["list"], {"text": "x"}, {"messages": [{"role": "user", "content": None}]}],
    )
    second = write_lines(
        tmp_path / "second.jsonl", [chat("a"), chat(), {"messages": [{"role": "robot", "content": ""}]}]
    )
    run = make_run(
        tmp_path / "job", model, first, datasets=[{"source": f"file://{first}"}, {"source": f"file://{second}"}]
    )
    failure = refusal(run)
    assert failure.code is ExitCode.INVALID_DATA
    assert "7 rows cannot be trained on" in failure.message
    for place in [f"{first}:{line}: " for line in (2, 3, 4, 5)] + [f"{second}:{line}: " for line in (1, 2, 3)]:
        assert place in failure.message


def test_of_many_faulty_rows_twenty_are_listed_and_the_rest_is_counted(tmp_path: Path, model: Path) -> None:
    data = write_lines(tmp_path / "rows.jsonl", ["no json"] * 50)
    message = refusal(make_run(tmp_path / "job", model, data)).message
    assert message.count("malformed JSON") == 20
    assert "and 30 more" in message


def test_an_earlier_result_stays_when_the_data_turns_out_faulty(tmp_path: Path, model: Path, rows: Path) -> None:
    run = make_run(tmp_path / "job", model, rows)
    prepare(run)
    write_lines(rows, ["no json"])
    with pytest.raises(StageFailure):
        prepare(run)
    assert RowStore(run.paths.data / TRAIN).rows == 20


def test_a_named_template_leaves_misordered_rows_out_and_reports_their_places(tmp_path: Path, model: Path) -> None:
    data = write_lines(tmp_path / "rows.jsonl", [chat("a", "b"), chat("a"), chat()])
    run = make_run(
        tmp_path / "job", model, data, tokenization={"template": "chatml", "cutoffLen": 64, "packing": "None"}
    )
    assert (prepare(run)["rows"], prepare(run)["dropped"]) == (1, 2)
    dropped = json.loads(run.paths.report.read_bytes())["droppedRows"]
    assert [row.split(": ")[0] for row in dropped] == [f"{data}:2", f"{data}:3"]


def test_a_row_whose_answer_does_not_fit_is_left_out_and_reported(tmp_path: Path, model: Path) -> None:
    data = write_lines(tmp_path / "rows.jsonl", [chat("short", "answer"), chat("q " * 2000, "answer " * 20)])
    run = make_run(tmp_path / "job", model, data, tokenization={"cutoffLen": 32, "packing": "None"})
    assert (prepare(run)["rows"], prepare(run)["dropped"]) == (1, 1)
    [dropped] = json.loads(run.paths.report.read_bytes())["droppedRows"]
    assert dropped.startswith(f"{data}:2: none of its ")


@pytest.mark.parametrize("content", [[], [chat("a")]])
def test_a_job_without_a_row_to_train_on_is_refused(tmp_path: Path, model: Path, content: list[object]) -> None:
    data = write_lines(tmp_path / "rows.jsonl", content)
    failure = refusal(make_run(tmp_path / "job", model, data, tokenization={"template": "chatml"}))
    assert failure.code is ExitCode.INVALID_DATA
    assert "no row is left to train on" in failure.message


def test_only_the_first_rows_are_read_where_max_samples_says_so(tmp_path: Path, model: Path) -> None:
    data = write_lines(tmp_path / "rows.jsonl", [chat("a", "b"), chat("c", "d"), "no json"])
    assert prepare(make_run(tmp_path / "job", model, data, dataset={"maxSamples": 2}))["rows"] == 2


def test_rows_are_held_back_as_the_datasets_library_splits_them(tmp_path: Path, model: Path, rows: Path) -> None:
    run = make_run(tmp_path / "job", model, rows, evaluation={"fraction": "0.2"})
    figures = prepare(run)
    assert (figures["rows"], figures["evaluationRows"]) == (16, 4)
    kept, held_back = split_rows(20, 0.2, seed=42)
    for part, expected in ((TRAIN, kept), (EVALUATION, held_back)):
        store = RowStore(run.paths.data / part)
        assert [store.row(index).number for index in range(store.rows)] == [index + 1 for index in expected]


def test_a_dataset_of_its_own_is_evaluated_on(tmp_path: Path, model: Path, rows: Path) -> None:
    held_out = write_lines(tmp_path / "held-out.jsonl", [chat("never", "trained on")])
    run = make_run(tmp_path / "job", model, rows, evaluation={"dataset": {"source": f"file://{held_out}"}})
    figures = prepare(run)
    assert (figures["rows"], figures["evaluationRows"]) == (20, 1)
    assert "trained on" in text_of(run, EVALUATION)[0]


def test_short_rows_share_a_sequence_where_packing_is_on(tmp_path: Path, model: Path, rows: Path) -> None:
    run = make_run(tmp_path / "job", model, rows, tokenization={"cutoffLen": 256, "packing": "Segmented"})
    prepare(run)
    store = RowStore(run.paths.data / TRAIN)
    assert store.sequences < store.rows == 20
    lengths = [sum(len(row.input_ids) for row in store.sequence(index)) for index in range(store.sequences)]
    assert max(lengths) <= 255
    assert Meta.load(run.paths.data).packing == "Segmented"


def test_a_folder_of_files_is_read_in_the_order_of_their_names(tmp_path: Path, model: Path) -> None:
    folder = tmp_path / "claim" / "chats"
    folder.mkdir(parents=True)
    write_lines(folder / "b.jsonl", [chat("2", "two")])
    write_lines(folder / "a.jsonl", [chat("1", "one")])
    (folder / "notes.txt").write_text("no data")
    run = make_run(tmp_path / "job", model, "pvc://data/chats").model_copy(
        update={"claims": {"data": str(tmp_path / "claim")}}
    )
    prepare(run)
    assert Meta.load(run.paths.data).files == ["pvc://data/chats/a.jsonl", "pvc://data/chats/b.jsonl"]


def test_a_config_map_is_read_where_it_is_mounted(tmp_path: Path, model: Path) -> None:
    write_lines(tmp_path / "rows", [chat("a", "b"), chat("a")])
    run = make_run(tmp_path / "job", model, "configmap://chats/rows").model_copy(
        update={"config_maps": {"chats": str(tmp_path)}}
    )
    assert "configmap://chats/rows:2: " in refusal(run).message


@pytest.mark.parametrize(
    ("fields", "code", "said_of_it"),
    [
        (
            {"model": {"source": "configmap://name/key"}},
            ExitCode.INVALID_SPEC,
            "spec.model.source: configmap://name/key: a ConfigMap is too small for a model",
        ),
        (
            {"dataset": {"source": "oci://reg/img"}},
            ExitCode.SOURCE_UNREACHABLE,
            "spec.datasets[0].source: oci://reg/img: 'reg/img' is not mounted",
        ),
        ({"tokenization": {"template": "nope"}}, ExitCode.INVALID_SPEC, "spec.tokenization.template: nope is unknown"),
        ({"tokenization": {"template": "llama3"}}, ExitCode.INVALID_SPEC, "llama3 ends an answer with <|eot_id|>"),
        ({"model": {"source": "file:///nowhere"}}, ExitCode.SOURCE_UNREACHABLE, "spec.model.source: file:///nowhere"),
        ({"dataset": {"source": "file:///no.jsonl"}}, ExitCode.SOURCE_UNREACHABLE, "(/no.jsonl) does not exist"),
        ({"dataset": {"source": "pvc://gone/x"}}, ExitCode.SOURCE_UNREACHABLE, "pvc://gone/x: 'gone' is not mounted"),
        (
            {"evaluation": {"dataset": {"source": "file:///dev/null"}}},
            ExitCode.SOURCE_UNREACHABLE,
            "spec.evaluation.dataset",
        ),
        ({"evaluation": {"fraction": "0.99"}, "dataset": {"maxSamples": 1}}, ExitCode.INVALID_DATA, "0.99 of 1 rows"),
    ],
)
def test_what_cannot_be_done_is_refused_by_field_and_code(
    tmp_path: Path, model: Path, rows: Path, fields: dict[str, object], code: ExitCode, said_of_it: str
) -> None:
    failure = refusal(make_run(tmp_path / "job", model, rows, **fields))
    assert failure.code is code
    assert said_of_it in failure.message

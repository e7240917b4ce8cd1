"""dataset_info.json: where it is looked for, and what its entries become."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from finetune_operator.api.source import Scheme
from finetune_operator.cli.convert.convert import Converted, convert
from finetune_operator.cli.convert.options import Options
from llama_factory import ROWS, TRAINING, converted, spec_of, training_file, write_datasets, write_yaml

TAGS = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
MESSAGES = {"formatting": "sharegpt", "columns": {"messages": "messages"}, "tags": TAGS}


def convert_entry(tmp_path: Path, entry: dict[str, Any], options: Options | None = None) -> Converted:
    """A job that trains on one registered dataset, called x."""
    write_datasets(tmp_path, x={"file_name": "rows.json", **entry} if "file_name" not in entry else entry)
    return converted(tmp_path, options, dataset="x")


def dataset_of(result: Converted) -> dict[str, Any]:
    (dataset,) = spec_of(result)["datasets"]
    assert isinstance(dataset, dict)
    return dataset


# --- layout

NOT_READ = "(none)"
LAYOUTS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {"format": "Alpaca", "columns": {"history": NOT_READ, "system": NOT_READ}}),
    (
        {"columns": {"prompt": "question", "response": "answer"}},
        {
            "format": "Alpaca",
            "columns": {
                "prompt": "question",
                "query": NOT_READ,
                "response": "answer",
                "history": NOT_READ,
                "system": NOT_READ,
            },
        },
    ),
    (
        {"columns": {"prompt": "p", "query": "q", "response": "r", "history": "h", "system": "s", "tools": "t"}},
        {
            "format": "Alpaca",
            "columns": {"prompt": "p", "query": "q", "response": "r", "history": "h", "system": "s", "tools": "t"},
        },
    ),
    ({"formatting": "sharegpt"}, {"format": "ShareGPT"}),
    (
        {"formatting": "sharegpt", "columns": {"messages": "turns", "system": "sys"}},
        {"format": "ShareGPT", "columns": {"messages": "turns", "system": "sys"}},
    ),
    (
        {**MESSAGES, "tags": {**TAGS, "system_tag": "system", "observation_tag": "tool", "function_tag": "call"}},
        {
            "format": "ShareGPT",
            "columns": {"messages": "messages"},
            "tags": {
                "role": "role",
                "content": "content",
                "user": "user",
                "assistant": "assistant",
                "system": "system",
                "observation": "tool",
                "function": "call",
            },
        },
    ),
]


@pytest.mark.parametrize(("entry", "expected"), LAYOUTS, ids=lambda value: json.dumps(value)[:60])
def test_columns_and_tags_are_read_by_llama_factorys_rules(
    entry: dict[str, Any], expected: dict[str, Any], tmp_path: Path
) -> None:
    dataset = dataset_of(convert_entry(tmp_path, entry))
    assert {name: value for name, value in dataset.items() if name != "source"} == expected


def test_a_tags_block_without_system_tag_drops_rows_as_llama_factory_does_and_says_so(tmp_path: Path) -> None:
    result = convert_entry(tmp_path, MESSAGES)
    assert dataset_of(result)["tags"]["system"] == NOT_READ
    assert any("tags without system_tag" in note for note in result.notes)


def test_the_openai_layout_is_messages_which_gets_the_words_that_llama_factory_adds(tmp_path: Path) -> None:
    result = convert_entry(tmp_path, {**MESSAGES, "formatting": "openai", "tags": {**TAGS, "system_tag": "system"}})
    assert {key: dataset_of(result).get(key) for key in ("format", "columns", "tags")} == {
        "format": "Messages",
        "columns": {"messages": "messages"},
        "tags": None,
    }
    assert any("detailed thinking off" in note and "is added" in note for note in result.notes)


@pytest.mark.parametrize(("role", "expected"), [("tool", "Messages"), ("result", "ShareGPT")])
def test_the_openai_layout_is_messages_where_results_have_openais_role(
    tmp_path: Path, role: str, expected: str
) -> None:
    tags = {**TAGS, "system_tag": "system", "observation_tag": role}
    result = convert_entry(tmp_path, {**MESSAGES, "formatting": "openai", "tags": tags})
    assert dataset_of(result)["format"] == expected


def test_the_openai_layout_with_tags_of_its_own_is_sharegpt_without_added_words(tmp_path: Path) -> None:
    result = convert_entry(tmp_path, {**MESSAGES, "formatting": "openai", "tags": {**TAGS, "system_tag": "boss"}})
    assert dataset_of(result)["format"] == "ShareGPT"
    assert any("is not added here" in note for note in result.notes)


# --- sources

SOURCES: list[tuple[dict[str, Any], Scheme, str]] = [
    ({"hf_hub_url": "org/set"}, Scheme.HUGGING_FACE, "hf://org/set"),
    ({"ms_hub_url": "org/set"}, Scheme.HUGGING_FACE, "ms://org/set"),
    ({"hf_hub_url": "org/set", "ms_hub_url": "other/set"}, Scheme.HUGGING_FACE, "hf://org/set"),
    ({"hf_hub_url": "org/set", "ms_hub_url": "other/set"}, Scheme.MODELSCOPE, "ms://other/set"),
    ({"hf_hub_url": "org/set", "file_name": "rows.json"}, Scheme.HUGGING_FACE, "hf://org/set"),
    ({"hf_hub_url": "org/set", "folder": "zh"}, Scheme.HUGGING_FACE, "hf://org/set/zh"),
    ({"cloud_file_name": "s3://bucket/rows.jsonl"}, Scheme.HUGGING_FACE, "s3://bucket/rows.jsonl"),
]


@pytest.mark.parametrize(("entry", "hub", "source"), SOURCES, ids=lambda value: str(value))
def test_a_source_is_chosen_in_llama_factorys_order(
    entry: dict[str, Any], hub: Scheme, source: str, tmp_path: Path
) -> None:
    write_datasets(tmp_path, x=entry)
    assert dataset_of(converted(tmp_path, Options(hub=hub), dataset="x"))["source"] == source


def test_subset_and_split_of_a_hub_dataset_are_kept(tmp_path: Path) -> None:
    write_datasets(tmp_path, x={"hf_hub_url": "org/set", "subset": "en", "split": "test"})
    dataset = dataset_of(converted(tmp_path, dataset="x"))
    assert (dataset["subset"], dataset["split"]) == ("en", "test")


def test_a_hub_token_in_clear_becomes_a_reference_to_a_secret(tmp_path: Path) -> None:
    write_datasets(tmp_path, x={"hf_hub_url": "org/set"})
    result = converted(tmp_path, dataset="x", hf_hub_token="hf_very_secret")
    assert dataset_of(result)["tokenSecret"] == {"name": "hf-hub-token"}
    assert "hf_very_secret" not in json.dumps(result.manifests) + "".join(result.notes)


def test_a_file_and_a_folder_of_files_become_file_uris(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    write_datasets(tmp_path, parts={"file_name": "parts"})
    datasets = spec_of(converted(tmp_path, dataset="rows,parts"))["datasets"]
    assert [dataset["source"] for dataset in datasets] == [f"file://{tmp_path}/rows.json", f"file://{tmp_path}/parts"]


# --- what is refused

REFUSALS: list[tuple[dict[str, Any], str]] = [
    ({"ranking": True}, "ranking: found true, but preference training is not there yet"),
    ({"num_samples": 100}, "use max_samples for the first rows"),
    ({"formatting": "sharegtp"}, "expected alpaca, sharegpt or openai"),
    ({"file_name": "absent.json"}, "absent.json, which does not exist; in"),
    ({"file_name": "rows.txt"}, "found rows.txt, expected a file of .json"),
    ({"file_name": "rows.json", "split": "train[:10]"}, "a file has the split train only"),
    ({"file_name": "rows.json", "subset": "en"}, "is for hub datasets"),
    ({"file_name": 3}, "found none of hf_hub_url"),
    ({"script_url": "load.py", "file_name": None}, "a script would run code"),
    ({"om_hub_url": "org/set", "file_name": None}, "the Modelers hub cannot be read"),
    ({"cloud_file_name": "gs://bucket/rows.jsonl", "file_name": None}, "expected s3://bucket/key"),
    ({"hf_hub_url": "set"}, "expected a path, or org/name of a hub"),
    ({"columns": {"prompt": "q"}}, "columns.response: found nothing"),
    ({"formatting": "sharegpt", "columns": {"system": "s"}}, "columns.messages: found nothing"),
    ({"formatting": "sharegpt", "tags": {"role_tag": "role"}}, "tags.content_tag: found nothing"),
    ({"columns": {"prompt": "q", "response": "a", "images": "i"}}, "columns.images: rows are text only"),
    ({"columns": {"prompt": "q", "chosen": "a", "response": "a"}}, "columns.chosen: preference training is not there yet"),
    ({"columns": ["prompt"]}, "columns: found a list of 1, expected names as text"),
]  # fmt: skip


@pytest.mark.parametrize(("entry", "words"), REFUSALS, ids=lambda value: str(value))
def test_an_entry_that_cannot_be_followed_is_refused_with_its_name_and_file(
    entry: dict[str, Any], words: str, tmp_path: Path
) -> None:
    (tmp_path / "rows.txt").write_text("text")
    problems = convert_entry(tmp_path, entry).problems
    place = f"{tmp_path / 'sft.yaml'}:5: dataset: x in {tmp_path / 'dataset_info.json'}: "
    assert all(problem.startswith(place) for problem in problems)
    assert any(words in problem for problem in problems)


def test_a_missing_file_is_refused_with_what_lies_there(tmp_path: Path) -> None:
    (problem,) = convert_entry(tmp_path, {"file_name": "absent.json"}).problems
    assert f"in {tmp_path} are: rows.json" in problem


def test_a_misspelt_dataset_is_refused_with_what_is_registered(tmp_path: Path) -> None:
    (problem,) = converted(tmp_path, dataset="rowz").problems
    assert f"found rowz, expected one of {tmp_path / 'dataset_info.json'}: rows; did you mean rows?" in problem


@pytest.mark.parametrize(("text", "words"), [("{", "not JSON at line 1"), ("[]", "expected an object")])
def test_a_broken_dataset_info_is_refused(text: str, words: str, tmp_path: Path) -> None:
    file = training_file(tmp_path)
    (tmp_path / "dataset_info.json").write_text(text)
    (problem,) = convert([file], Options()).problems
    assert words in problem


def test_an_entrys_key_that_llama_factory_does_not_read_is_noted(tmp_path: Path) -> None:
    notes = convert_entry(tmp_path, {"colums": {"prompt": "q"}}).notes
    assert any("colums is not read, by LLaMA-Factory neither; did you mean columns?" in note for note in notes)


# --- where it is looked for


def folder_with_rows(parent: Path, name: str) -> Path:
    """A folder with a dataset_info.json whose dataset ``rows`` lies beside it."""
    folder = parent / name
    folder.mkdir(parents=True)
    write_datasets(folder)
    return folder


def source_of(file: str, options: Options) -> str:
    (dataset,) = spec_of(convert([file], options))["datasets"]
    return str(dataset["source"])


def test_the_flag_wins_over_the_file(tmp_path: Path) -> None:
    flagged = folder_with_rows(tmp_path, "flagged")
    file = training_file(tmp_path, dataset_dir="elsewhere")
    assert source_of(file, Options(dataset_dir=str(flagged))) == f"file://{flagged}/rows.json"


@pytest.mark.parametrize("keys", [{}, {"dataset_dir": "data"}, {"dataset_dir": "./data"}], ids=str)
def test_the_working_directory_is_looked_in_before_the_files_own_folder(
    keys: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, beside = folder_with_rows(tmp_path, "work/data"), folder_with_rows(tmp_path, "configs/data")
    file = write_yaml(tmp_path / "configs", "sft.yaml", {**TRAINING, **keys})
    monkeypatch.chdir(tmp_path / "work")
    assert source_of(file, Options()) == f"file://{here}/rows.json"
    os.rename(here, tmp_path / "moved")
    assert source_of(file, Options()) == f"file://{beside}/rows.json"


def test_a_dataset_dir_without_the_file_is_refused_with_the_places_looked_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = write_yaml(tmp_path, "sft.yaml", {**TRAINING, "dataset_dir": "nowhere"})
    (problem,) = convert([file], Options()).problems
    assert problem.startswith(f"{file}:7: dataset_dir: found no dataset_info.json in {tmp_path}/nowhere")
    assert "--dataset-dir" in problem


def test_online_datasets_need_no_dataset_info(tmp_path: Path) -> None:
    file = write_yaml(tmp_path, "sft.yaml", {**TRAINING, "dataset_dir": "ONLINE", "dataset": "org/one,org/two"})
    datasets = spec_of(convert([file], Options()))["datasets"]
    assert [dataset["source"] for dataset in datasets] == ["hf://org/one", "hf://org/two"]


# --- models and placeholders


@pytest.mark.parametrize(
    ("name", "hub", "source"),
    [
        ("Qwen/Qwen2-7B", Scheme.HUGGING_FACE, "hf://Qwen/Qwen2-7B"),
        ("Qwen/Qwen2-7B", Scheme.MODELSCOPE, "ms://Qwen/Qwen2-7B"),
        ("/models/qwen", Scheme.HUGGING_FACE, "file:///models/qwen"),
        ("./qwen", Scheme.HUGGING_FACE, "file://{here}/qwen"),
        ("../qwen", Scheme.HUGGING_FACE, "file://{parent}/qwen"),
        ("models/qwen/7b", Scheme.HUGGING_FACE, "file://{here}/models/qwen/7b"),
        ("org/downloaded", Scheme.HUGGING_FACE, "file://{here}/org/downloaded"),
    ],
)
def test_a_model_is_a_folder_here_or_a_repository(
    name: str, hub: Scheme, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org" / "downloaded").mkdir(parents=True)
    spec = spec_of(converted(tmp_path, Options(hub=hub), model_name_or_path=name))
    assert spec["model"] == {"source": source.format(here=tmp_path, parent=tmp_path.parent)}


def test_placeholders_are_set_where_the_rows_hold_them(tmp_path: Path) -> None:
    (tmp_path / "me.json").write_text(ROWS.replace("Hello", "I am {{name}} by {{author}}"))
    write_datasets(tmp_path, me={"file_name": "me.json"})
    options = Options(placeholders={"name": "Iris", "author": "Meadow"})
    rows, me = spec_of(converted(tmp_path, options, dataset="rows,me"))["datasets"]
    assert "placeholders" not in rows
    assert me["placeholders"] == {"name": "Iris", "author": "Meadow"}

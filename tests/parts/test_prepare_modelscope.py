"""ModelScope's models and datasets, through its own client: whole or not at all, and every way to fail is explained."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from finetune_operator.api.outcome import ExitCode, StageFailure
from finetune_operator.api.run import Hub, RunConfig
from finetune_trainer.prepare.base_model import fetch_base_model
from finetune_trainer.prepare.sources import NamedDataset, dataset_files, rows_of
from finetune_trainer.prepare.stage import prepare
from loopback_modelscope import LoopbackModelScope, serving_modelscope
from trainer_runs import chat, identity_model, make_run, write_lines


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("modelscope")
    model = identity_model(folder / "models" / "org" / "tiny")
    (model / "pytorch_model.bin").write_bytes(b"pickle")
    (model / "modeling.py").write_text("print('never')")
    (folder / "models" / "private").mkdir()
    (folder / "models" / "private" / "tiny").symlink_to(model)
    data = folder / "datasets" / "org" / "chats"
    (data / "more").mkdir(parents=True)
    write_lines(data / "train.jsonl", [chat("a", "b"), chat("c", "d")])
    write_lines(data / "test.jsonl", [chat("held", "back")])
    write_lines(data / "more" / "x.jsonl", [chat("e", "f")])
    (data / "README.md").write_text(
        "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: train.jsonl\n"
        "  - split: test\n    path: test.jsonl\n- config_name: more\n  data_files: more/*.jsonl\n---\n# Chats\n"
    )
    return folder


@pytest.fixture
def server(shelf: Path) -> Iterator[LoopbackModelScope]:
    with serving_modelscope(shelf) as running:
        yield running


def run_with(server: LoopbackModelScope | str, tmp_path: Path, source: str, **model: object) -> RunConfig:
    url = server if isinstance(server, str) else server.url
    data = write_lines(tmp_path / "rows.jsonl", [chat("a", "b")])
    run = make_run(tmp_path / "job", tmp_path, data, model={"source": source, **model})
    run.paths.root.mkdir(exist_ok=True)
    return run.model_copy(update={"hub": Hub(model_scope_endpoint=url), "secrets": str(tmp_path / "secrets")})


def data_run(
    server: LoopbackModelScope, tmp_path: Path, source: str, **dataset: object
) -> tuple[RunConfig, NamedDataset]:
    run = make_run(tmp_path / "job", tmp_path, source, dataset=dataset)
    run = run.model_copy(update={"hub": Hub(model_scope_endpoint=server.url)})
    return run, NamedDataset("spec.datasets[0]", run.spec.datasets[0])


def failure_of(run: RunConfig) -> StageFailure:
    with pytest.raises(StageFailure) as caught:
        fetch_base_model(run)
    assert caught.value.code is ExitCode.SOURCE_UNREACHABLE
    return caught.value


def test_weights_configuration_and_tokenizer_are_fetched_and_no_code_nor_pickle(
    tmp_path: Path, server: LoopbackModelScope
) -> None:
    run = run_with(server, tmp_path, "ms://org/tiny")
    assert prepare(run)["rows"] == 1
    names = {path.name for path in run.paths.base_model.iterdir() if not path.name.startswith(".")}
    assert {"model.safetensors", "tokenizer.json", "config.json"} <= names
    assert not names & {"pytorch_model.bin", "modeling.py"}
    assert server.downloads("pytorch_model.bin") == server.downloads("modeling.py") == 0


def test_a_download_that_broke_off_is_gone_on_with(tmp_path: Path, server: LoopbackModelScope, shelf: Path) -> None:
    whole = shelf / "models" / "org" / "tiny" / "model.safetensors"
    server.cut_after = whole.stat().st_size // 2
    run = run_with(server, tmp_path, "ms://org/tiny")
    fetch_base_model(run)
    assert (run.paths.base_model / "model.safetensors").read_bytes() == whole.read_bytes()
    assert [request for request in server.requests if f"bytes={whole.stat().st_size // 2}-" in request]


def test_a_private_model_is_fetched_with_the_secrets_token(tmp_path: Path, server: LoopbackModelScope) -> None:
    server.token = "ms-let-me-in"
    run = run_with(server, tmp_path, "ms://private/tiny", tokenSecret={"name": "hub", "key": "token"})
    assert "secret 'hub' has no key 'token'" in failure_of(run).message
    (tmp_path / "secrets" / "hub").mkdir(parents=True)
    (tmp_path / "secrets" / "hub" / "token").write_text("ms-let-me-in\n")
    assert (fetch_base_model(run) / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("source", "revision", "cause", "advice"),
    [
        ("ms://org/none", None, "no such repository, or it is private", "set spec.model.tokenSecret"),
        ("ms://private/tiny", None, "the hub answered 403", "set spec.model.tokenSecret"),
        ("ms://org/tiny", "v9", "revision 'v9' does not exist", "Correct spec.model.revision"),
        ("ms://org/tiny/deep", None, "there are no files of a model", "check the path"),
    ],
)
def test_what_the_hub_refuses_is_explained(
    tmp_path: Path, server: LoopbackModelScope, source: str, revision: str | None, cause: str, advice: str
) -> None:
    failure = failure_of(run_with(server, tmp_path, source, revision=revision))
    for part in (f"spec.model.source: {source}", cause, advice):
        assert part in failure.message


def test_a_file_that_is_not_the_listed_one_is_refused(tmp_path: Path, server: LoopbackModelScope) -> None:
    server.spoilt = "config.json"
    run = run_with(server, tmp_path, "ms://org/tiny")
    assert "did not come whole" in failure_of(run).message
    assert not run.paths.base_model.exists()


@pytest.mark.parametrize(
    ("source", "dataset", "places"),
    [
        ("ms://org/chats/train.jsonl", {}, ["ms://org/chats/train.jsonl:1", "ms://org/chats/train.jsonl:2"]),
        ("ms://org/chats/more", {}, ["ms://org/chats/more/x.jsonl:1"]),
        ("ms://org/chats", {}, ["ms://org/chats/train.jsonl:1", "ms://org/chats/train.jsonl:2"]),
        ("ms://org/chats", {"split": "test"}, ["ms://org/chats/test.jsonl:1"]),
        ("ms://org/chats", {"subset": "more"}, ["ms://org/chats/more/x.jsonl:1"]),
        ("ms://org/chats", {"split": "train[1:]"}, ["ms://org/chats[0]"]),
    ],
)
def test_rows_of_a_dataset_keep_their_places(
    tmp_path: Path, server: LoopbackModelScope, source: str, dataset: dict[str, object], places: list[str]
) -> None:
    run, named = data_run(server, tmp_path, source, **dataset)
    assert [str(row.place) for row in rows_of(run, named)] == places


def test_files_of_a_dataset_are_whole_on_this_machine(tmp_path: Path, server: LoopbackModelScope, shelf: Path) -> None:
    run, named = data_run(server, tmp_path, "ms://org/chats")
    files = dataset_files(run, named)
    assert [file.read_bytes() for file in files] == [(shelf / "datasets/org/chats/train.jsonl").read_bytes()]


@pytest.mark.parametrize(
    ("dataset", "cause"),
    [
        ({"split": "dev"}, "it has no split 'dev', only test, train"),
        ({"subset": "nope"}, "BuilderConfig 'nope' not found"),
    ],
)
def test_a_split_or_subset_that_is_not_there_is_explained(
    tmp_path: Path, server: LoopbackModelScope, dataset: dict[str, object], cause: str
) -> None:
    run, named = data_run(server, tmp_path, "ms://org/chats", **dataset)
    with pytest.raises(StageFailure) as caught:
        list(rows_of(run, named))
    assert cause in caught.value.message
    assert "Correct spec.datasets[0].subset or spec.datasets[0].split" in caught.value.message


def test_the_client_is_loaded_by_who_needs_it_and_without_torch(tmp_path: Path) -> None:
    code = (
        "import sys, finetune_trainer.prepare.sources; before = 'modelscope_hub' in sys.modules; "
        "import modelscope_hub, json; print(json.dumps([before, 'torch' in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [False, False]

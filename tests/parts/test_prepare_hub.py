"""Models and datasets come from a hub whole or not at all, and every way to fail is explained."""

import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from finetune_operator.api.outcome import ExitCode, StageFailure
from finetune_operator.api.run import Hub, RunConfig
from finetune_trainer.prepare.base_model import fetch_base_model
from finetune_trainer.prepare.fingerprint import fingerprint
from finetune_trainer.prepare.sources import NamedDataset, rows_of
from finetune_trainer.prepare.stage import prepare
from loopback_hub import LoopbackHub, serving
from support_wait import eventually
from trainer_runs import chat, identity_model, make_run, write_lines


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hub")
    model = identity_model(folder / "models" / "org" / "tiny")
    (model / "pytorch_model.bin").write_bytes(b"pickle")
    (model / "modeling.py").write_text("print('never')")
    shutil.copytree(model, folder / "models" / "private" / "tiny")
    shutil.copytree(model, folder / "models" / "org" / "nested" / "deep" / "tiny")
    data = folder / "datasets" / "org" / "chats"
    (data / "more").mkdir(parents=True)
    write_lines(data / "rows.jsonl", [chat("a", "b"), chat("c", "d")])
    write_lines(data / "more" / "x.jsonl", [chat("e", "f")])
    return folder


@pytest.fixture
def hub(shelf: Path) -> Iterator[LoopbackHub]:
    with serving(shelf) as server:
        yield server


def run_with(hub: LoopbackHub | str, tmp_path: Path, source: str, **model: object) -> RunConfig:
    url = hub if isinstance(hub, str) else hub.url
    data = write_lines(tmp_path / "rows.jsonl", [chat("a", "b")])
    run = make_run(tmp_path / "job", tmp_path, data, model={"source": source, **model})
    run.paths.root.mkdir(exist_ok=True)
    return run.model_copy(update={"hub": Hub(hugging_face_endpoint=url), "secrets": str(tmp_path / "secrets")})


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")}


def test_weights_configuration_and_tokenizer_are_fetched_and_no_code_nor_pickle(
    tmp_path: Path, hub: LoopbackHub
) -> None:
    run = run_with(hub, tmp_path, "hf://org/tiny")
    assert prepare(run)["rows"] == 1
    weights_and_tokenizer = {"model.safetensors", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}
    assert names(run.paths.base_model) == weights_and_tokenizer | {"config.json", "generation_config.json"}
    assert not [path for path in run.paths.root.iterdir() if path.name.endswith(".partial")]


def test_a_model_in_a_folder_of_the_repository_is_found(tmp_path: Path, hub: LoopbackHub) -> None:
    run = run_with(hub, tmp_path, "hf://org/nested/deep/tiny")
    assert "model.safetensors" in names(fetch_base_model(run))


def test_a_fetched_model_is_not_fetched_again(tmp_path: Path, hub: LoopbackHub) -> None:
    run = run_with(hub, tmp_path, "hf://org/tiny")
    fetch_base_model(run)
    hub.requests.clear()
    fetch_base_model(run)
    assert hub.requests == []


def test_half_a_download_does_not_pass_for_a_model_when_the_hub_goes_away(
    tmp_path: Path, hub: LoopbackHub, shelf: Path
) -> None:
    run = run_with(hub, tmp_path, "hf://org/tiny")
    whole = shelf / "models" / "org" / "tiny" / "model.safetensors"
    hub.away_after = whole.stat().st_size // 2
    with pytest.raises(StageFailure, match="the hub answered 503"):
        fetch_base_model(run)
    assert not run.paths.base_model.exists()
    hub.away_after = None
    hub.requests.clear()
    assert (fetch_base_model(run) / "model.safetensors").read_bytes() == whole.read_bytes()


def test_weights_that_are_not_those_that_the_hub_tells_the_hash_of_are_refused(
    tmp_path: Path, hub: LoopbackHub
) -> None:
    hub.spoilt = "model.safetensors"
    run = run_with(hub, tmp_path, "hf://org/tiny")
    with pytest.raises(
        StageFailure, match=r"model.safetensors did not come whole: its sha256 is [0-9a-f]{64}, expected"
    ):
        fetch_base_model(run)
    assert sum("GET" in request and "cdn" in request for request in hub.requests) == 2
    hub.spoilt = ""
    assert (fetch_base_model(run) / "model.safetensors").is_file()


def test_a_branch_that_moves_does_not_change_a_run_that_has_begun_but_the_next_one(
    tmp_path: Path, hub: LoopbackHub
) -> None:
    run = run_with(hub, tmp_path, "hf://org/tiny")
    first = fingerprint(run, [])
    hub.commit = "f" * 40
    assert fingerprint(run, []) == first
    assert fingerprint(run.model_copy(update={"root": str(tmp_path / "later")}), []) != first


def test_a_host_that_comes_back_in_time_is_waited_for(tmp_path: Path, hub: LoopbackHub) -> None:
    hub.away_after = 0
    run = run_with(hub, tmp_path, "hf://org/tiny").model_copy(update={"patience_seconds": 60})
    comeback = threading.Thread(
        target=lambda: (eventually(lambda: len(hub.requests) > 1), setattr(hub, "away_after", None))
    )
    comeback.start()
    assert (fetch_base_model(run) / "model.safetensors").is_file()
    comeback.join()


def test_no_name_that_a_hub_gives_leads_out_of_the_folder(tmp_path: Path, hub: LoopbackHub) -> None:
    hub.claimed = ["../evil.jsonl", "/evil.jsonl", "a/../../../evil.jsonl"]
    run = make_run(tmp_path / "job", tmp_path, "hf://org/chats").model_copy(
        update={"hub": Hub(hugging_face_endpoint=hub.url)}
    )
    assert [place for place, _ in hub_rows(run)] == [
        f"hf://org/chats/{name}" for name in ("more/x.jsonl:1", "rows.jsonl:1", "rows.jsonl:2")
    ]
    assert not [request for request in hub.requests if "evil" in request]


def test_a_private_model_is_fetched_with_the_secrets_token(tmp_path: Path, hub: LoopbackHub) -> None:
    hub.token = "hf_let_me_in"
    run = run_with(hub, tmp_path, "hf://private/tiny", tokenSecret={"name": "hub", "key": "token"})
    with pytest.raises(StageFailure, match=r"spec.model.tokenSecret: secret 'hub' has no key 'token'"):
        fetch_base_model(run)
    (tmp_path / "secrets" / "hub").mkdir(parents=True)
    (tmp_path / "secrets" / "hub" / "token").write_text("hf_let_me_in\n")
    assert "model.safetensors" in names(fetch_base_model(run))


@pytest.mark.parametrize(
    ("source", "revision", "cause", "advice"),
    [
        ("hf://org/none", None, "no such repository, or it is private", "set spec.model.tokenSecret"),
        ("hf://private/tiny", None, "no such repository, or it is private", "set spec.model.tokenSecret"),
        ("hf://gated/tiny", None, "the repository is gated", "Accept its terms on the hub"),
        ("hf://org/tiny", "v9", "revision 'v9' does not exist", "Correct spec.model.revision"),
        ("hf://broken/tiny", None, "the hub answered 503", "Try again later"),
    ],
)
def test_what_the_hub_refuses_is_explained(
    tmp_path: Path, hub: LoopbackHub, source: str, revision: str | None, cause: str, advice: str
) -> None:
    run = run_with(hub, tmp_path, source, revision=revision)
    with pytest.raises(StageFailure) as caught:
        fetch_base_model(run)
    assert caught.value.code is ExitCode.SOURCE_UNREACHABLE
    for part in (f"spec.model.source: {source}", cause, hub.url, advice):
        assert part in caught.value.message


def test_every_source_that_is_wrong_is_told_in_one_pass(tmp_path: Path, hub: LoopbackHub) -> None:
    run = make_run(tmp_path / "job", tmp_path, "hf://org/nobody", model={"source": "hf://org/none"})
    with pytest.raises(StageFailure) as caught:
        prepare(run.model_copy(update={"hub": Hub(hugging_face_endpoint=hub.url)}))
    assert "spec.model.source: hf://org/none: no such repository" in caught.value.message
    assert "spec.datasets[0].source: hf://org/nobody: no such repository" in caught.value.message


def test_a_hub_that_is_not_there_is_explained(tmp_path: Path) -> None:
    with pytest.raises(StageFailure) as caught:
        fetch_base_model(run_with("http://127.0.0.1:9", tmp_path, "hf://org/tiny"))
    assert "the hub cannot be reached" in caught.value.message
    assert "set HF_ENDPOINT to a mirror, or use file:///PATH" in caught.value.message


def test_in_a_cluster_the_operators_setting_is_named(tmp_path: Path) -> None:
    run = run_with("http://127.0.0.1:9", tmp_path, "hf://org/tiny").model_copy(update={"namespace": "team"})
    with pytest.raises(StageFailure, match=r"settings.hub.huggingFaceEndpoint to a mirror, or use pvc://CLAIM/PATH"):
        fetch_base_model(run)


def hub_rows(run: RunConfig) -> list[tuple[str, object]]:
    named = NamedDataset("spec.datasets[0]", run.spec.datasets[0])
    return [(str(row.place), row.value) for row in rows_of(run, named)]


@pytest.mark.parametrize(
    ("source", "places"),
    [
        ("hf://org/chats/rows.jsonl", ["hf://org/chats/rows.jsonl:1", "hf://org/chats/rows.jsonl:2"]),
        ("hf://org/chats/more", ["hf://org/chats/more/x.jsonl:1"]),
    ],
)
def test_files_of_a_hub_dataset_keep_their_lines(
    tmp_path: Path, hub: LoopbackHub, source: str, places: list[str]
) -> None:
    run = make_run(tmp_path / "job", tmp_path, source).model_copy(update={"hub": Hub(hugging_face_endpoint=hub.url)})
    rows = hub_rows(run)
    assert [place for place, _ in rows] == places
    assert json.dumps(rows[0][1]) in {json.dumps(chat("a", "b")), json.dumps(chat("e", "f"))}


@pytest.mark.parametrize(
    ("source", "said_of_it"),
    [
        ("hf://org/chats/gone.jsonl", "there is no file 'gone.jsonl'"),
        ("hf://org/none/x.jsonl", "no such repository"),
    ],
)
def test_a_hub_dataset_that_is_not_there_is_explained(
    tmp_path: Path, hub: LoopbackHub, source: str, said_of_it: str
) -> None:
    run = make_run(tmp_path / "job", tmp_path, source).model_copy(update={"hub": Hub(hugging_face_endpoint=hub.url)})
    with pytest.raises(StageFailure) as caught:
        hub_rows(run)
    assert caught.value.code is ExitCode.SOURCE_UNREACHABLE
    assert f"spec.datasets[0].source: {source}" in caught.value.message
    assert said_of_it in caught.value.message

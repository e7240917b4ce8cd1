"""Models and datasets from an object store that speaks S3, through s3fs and against moto's server."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from finetune_operator.api.outcome import ExitCode, StageFailure
from finetune_operator.api.run import Hub, RunConfig
from finetune_trainer.prepare.base_model import fetch_base_model
from finetune_trainer.prepare.remote.s3 import BLOCK
from finetune_trainer.prepare.sources import NamedDataset, rows_of
from finetune_trainer.prepare.stage import prepare
from loopback_s3 import KEYS, LoopbackS3, serving_s3
from trainer_runs import chat, identity_model, make_run, write_lines


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = identity_model(tmp_path_factory.mktemp("s3") / "tiny")
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    return folder


@pytest.fixture(scope="module")
def running(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoopbackS3]:
    rows = write_lines(tmp_path_factory.mktemp("rows") / "rows.jsonl", [chat("a", "b"), chat("c", "d")])
    with serving_s3() as store:
        store.put_folder("lake", "models/tiny", model)
        store.put("lake", "chats/2.jsonl", rows.read_bytes())
        store.put("lake", "chats/1.jsonl", rows.read_bytes())
        store.put("lake", "chats/notes.txt", b"no rows")
        yield store


@pytest.fixture
def store(running: LoopbackS3, monkeypatch: pytest.MonkeyPatch) -> LoopbackS3:
    running.requests.clear()
    running.cut_from, running.spoilt, running.anonymous_only = None, "", False
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    # Nothing of this machine's user or cloud may count.
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    return running


def with_store(run: RunConfig, url: str, tmp_path: Path) -> RunConfig:
    run.paths.root.mkdir(exist_ok=True)
    hub = Hub(s3_endpoint=url, s3_region="us-east-1")
    return run.model_copy(update={"hub": hub, "secrets": str(tmp_path / "secrets")})


def model_run(url: str, tmp_path: Path, source: str = "s3://lake/models/tiny", **model: object) -> RunConfig:
    data = write_lines(tmp_path / "rows.jsonl", [chat("a", "b")])
    return with_store(make_run(tmp_path / "job", tmp_path, data, model={"source": source, **model}), url, tmp_path)


def write_secret(tmp_path: Path, keys: dict[str, str]) -> dict[str, object]:
    folder = tmp_path / "secrets" / "lake"
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in keys.items():
        (folder / name).write_text(value)
    return {"tokenSecret": {"name": "lake"}}


def failure_of(run: RunConfig) -> str:
    with pytest.raises(StageFailure) as caught:
        fetch_base_model(run)
    assert caught.value.code is ExitCode.SOURCE_UNREACHABLE
    return caught.value.message


def test_a_model_is_fetched_with_the_secrets_keys_and_no_pickle_comes_along(tmp_path: Path, store: LoopbackS3) -> None:
    run = model_run(store.url, tmp_path, **write_secret(tmp_path, KEYS))
    assert prepare(run)["rows"] == 1
    names = {path.name for path in run.paths.base_model.iterdir()}
    assert {"model.safetensors", "tokenizer.json", "config.json"} <= names
    assert "pytorch_model.bin" not in names


def test_without_keys_requests_are_not_signed(tmp_path: Path, store: LoopbackS3) -> None:
    store.anonymous_only = True
    assert (fetch_base_model(model_run(store.url, tmp_path)) / "model.safetensors").is_file()


def test_keys_of_the_environment_count_where_there_is_no_secret(
    tmp_path: Path, store: LoopbackS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    store.anonymous_only = True
    message = failure_of(model_run(store.url, tmp_path))
    assert "the object store refused access" in message
    assert "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in message


def test_a_secret_without_a_key_is_named(tmp_path: Path, store: LoopbackS3) -> None:
    secret = write_secret(tmp_path, {"AWS_ACCESS_KEY_ID": "AKIA"})
    assert "secret 'lake' has no key 'AWS_SECRET_ACCESS_KEY'" in failure_of(model_run(store.url, tmp_path, **secret))


def test_a_download_that_broke_off_is_gone_on_with_by_the_next_attempt(tmp_path: Path, store: LoopbackS3) -> None:
    weights = secrets.token_bytes(BLOCK + 4096)
    store.put("lake", "models/big/model.safetensors", weights)
    run = model_run(store.url, tmp_path, "s3://lake/models/big")
    store.cut_from = 1
    assert "the object store cannot be reached" in failure_of(run)
    store.cut_from = None
    store.requests.clear()
    assert (fetch_base_model(run) / "model.safetensors").read_bytes() == weights
    fetched = [request.split()[-1] for request in store.requests if request.startswith("GET") and "bytes=" in request]
    assert fetched == [f"bytes={BLOCK}-{len(weights) - 1}"]


def test_an_object_that_is_spoilt_on_the_way_is_refused(tmp_path: Path, store: LoopbackS3) -> None:
    store.spoilt = "config.json"
    run = model_run(store.url, tmp_path)
    assert "did not come whole" in failure_of(run)
    assert not run.paths.base_model.exists()


def test_an_object_that_was_replaced_during_the_run_is_refused(tmp_path: Path, store: LoopbackS3, model: Path) -> None:
    store.put_folder("lake", "models/moving", model)
    run = model_run(store.url, tmp_path, "s3://lake/models/moving")
    store.spoilt = "model.safetensors"
    failure_of(run)
    store.spoilt = ""
    store.put("lake", "models/moving/model.safetensors", b"other weights")
    assert "model.safetensors was replaced during the run" in failure_of(run)


@pytest.mark.parametrize(
    ("source", "cause"),
    [
        ("s3://nobody/models/tiny", "no bucket 'nobody'"),
        ("s3://lake/models/none", "there are no files of a model"),
    ],
)
def test_what_is_not_there_is_explained(tmp_path: Path, store: LoopbackS3, source: str, cause: str) -> None:
    message = failure_of(model_run(store.url, tmp_path, source))
    assert f"spec.model.source: {source}" in message
    assert cause in message


def test_a_store_that_is_not_there_is_explained(tmp_path: Path, store: LoopbackS3) -> None:
    message = failure_of(model_run("http://127.0.0.1:9", tmp_path))
    assert "the object store cannot be reached" in message
    assert "set AWS_ENDPOINT_URL to a mirror" in message


def test_the_environment_names_the_store_where_no_setting_does(
    tmp_path: Path, store: LoopbackS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", store.url)
    run = model_run(store.url, tmp_path).model_copy(update={"hub": Hub()})
    assert (fetch_base_model(run) / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("source", "places"),
    [
        ("s3://lake/chats/2.jsonl", ["s3://lake/chats/2.jsonl:1", "s3://lake/chats/2.jsonl:2"]),
        ("s3://lake/chats", [f"s3://lake/chats/{name}.jsonl:{line}" for name in "12" for line in (1, 2)]),
    ],
)
def test_rows_of_an_object_or_of_all_below_a_prefix_keep_their_places(
    tmp_path: Path, store: LoopbackS3, source: str, places: list[str]
) -> None:
    run = with_store(make_run(tmp_path / "job", tmp_path, source), store.url, tmp_path)
    named = NamedDataset("spec.datasets[0]", run.spec.datasets[0])
    assert [str(row.place) for row in rows_of(run, named)] == places

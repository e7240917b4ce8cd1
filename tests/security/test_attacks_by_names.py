"""T8: names that lead out of the folder that they are read from or written to, in every place where somebody else names a file."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from attacked_jobs import refused
from damaged_models import TOKENIZER, WEIGHTS, Damage, both, change, in_shards, without
from finetune_merger.checkpoint import Checkpoint
from finetune_merger.stage import merge
from finetune_operator.api.outcome import ExitCode, StageFailure
from finetune_operator.api.run import Hub, RunConfig
from finetune_operator.cli.errors import CommandError
from finetune_trainer.prepare.base_model import fetch_base_model
from finetune_trainer.prepare.sources import NamedDataset, rows_of
from finetune_trainer.prepare.stage import prepare
from job_cases import GOOD, JobCase, as_bytes, checked, write_case
from loopback_hub import LoopbackHub, serving
from loopback_s3 import KEYS, serving_s3
from tiny_models import save_adapter, save_base
from trainer_runs import chat, make_run, write_lines

pytestmark = pytest.mark.threat("T8")
INDEX = f"{WEIGHTS}.index.json"
SECRET = "hf_canaryCANARYcanary0123"


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A token where the kubelet mounts it."""
    path = tmp_path / "secrets" / "hub" / "token"
    path.parent.mkdir(parents=True)
    path.write_text(SECRET)
    return path


def below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def index_names(*names: str) -> Damage:
    def damage(folder: Path) -> None:
        in_shards()(folder)
        weight_map = json.loads((folder / INDEX).read_bytes())["weight_map"]
        (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": dict.fromkeys(weight_map, names[0])}))

    return damage


OUTSIDE = ["../{}", "/{}", "../../secrets/hub/{}", "a/../../{}", "./{}", "a\0{}", "{}\n", ".{}", "..\\{}", ""]


@pytest.mark.parametrize("name", OUTSIDE)
def test_an_index_that_names_a_shard_elsewhere_is_refused_by_the_model_check(
    tmp_path: Path, base: Path, name: str
) -> None:
    named = name.format("x.safetensors")
    code, message = refused(tmp_path, base, index_names(named))
    assert code is ExitCode.MODEL_UNUSABLE
    assert f"{INDEX} names {named!r}, expected safetensors files beside it" in message


@pytest.mark.parametrize("name", OUTSIDE)
def test_the_merger_does_not_follow_an_index_either(tmp_path: Path, base: Path, name: str) -> None:
    save_base(tmp_path / "model")
    named = name.format("x.safetensors")
    index_names(named)(tmp_path / "model")
    with pytest.raises(StageFailure, match="expected safetensors files beside it") as caught:
        Checkpoint.open(tmp_path / "model")
    assert caught.value.code is ExitCode.MODEL_UNUSABLE
    assert repr(named) in caught.value.message


@pytest.mark.parametrize("name", ["../../../evil", "/tmp/evil", "a/b", "..", "x\0y"])
def test_a_chat_template_whose_name_is_a_path_is_refused_before_it_is_saved(
    tmp_path: Path, base: Path, name: str
) -> None:
    templates = [{"name": "default", "template": "{{ messages }}"}, {"name": name, "template": "evil"}]
    named = both(without("chat_template.jinja"), lambda folder: change(folder / TOKENIZER, chat_template=templates))
    before = below(tmp_path.parent)
    code, message = refused(tmp_path, base, named)
    assert code is ExitCode.MODEL_UNUSABLE
    assert f"a chat template is named {name!r}, expected letters, digits" in message
    assert not [path for path in below(tmp_path.parent) - before if "evil" in path]


def test_a_template_that_a_job_names_by_a_path_is_refused_by_the_schema_and_looked_up_in_a_list_alone(
    tmp_path: Path, base: Path
) -> None:
    case = JobCase("template", spec={"tokenization.template": "../../secrets/hub/token"})
    with pytest.raises(CommandError, match=r"spec.tokenization.template: found .*, expected text like"):
        checked(write_case(case, base, tmp_path))
    run = make_run(
        tmp_path / "job", base, write_lines(tmp_path / "rows.jsonl", GOOD), tokenization={"template": "etc.passwd"}
    )
    with pytest.raises(StageFailure, match=r"spec.tokenization.template: etc.passwd is unknown") as caught:
        prepare(run)
    assert caught.value.code is ExitCode.INVALID_SPEC


def on_claim(tmp_path: Path, model: Path, data: Path | None = None, **spec: Any) -> RunConfig:
    """A run in a cluster, with model and data on the claim ``shared``."""
    claim = tmp_path / "claim"
    sources = {"model": {"source": f"pvc://shared/{model.relative_to(claim)}"}}
    rows = f"pvc://shared/{data.relative_to(claim)}" if data else write_lines(tmp_path / "rows.jsonl", GOOD)
    run = make_run(tmp_path / "job", model, rows, **sources, **spec)
    return run.model_copy(
        update={"claims": {"shared": str(claim)}, "namespace": "team", "secrets": str(tmp_path / "secrets")}
    )


LINKED = ["config.json", "model.safetensors", "LICENSE", "chat_template.jinja", "additional_chat_templates/x.jinja"]


@pytest.mark.parametrize("name", LINKED)
def test_a_link_among_a_models_files_that_leads_to_a_secret_is_refused(tmp_path: Path, secret: Path, name: str) -> None:
    model = tmp_path / "claim" / "model"
    save_base(model)
    (model / name).parent.mkdir(exist_ok=True)
    (model / name).unlink(missing_ok=True)
    (model / name).symlink_to(secret)
    run = on_claim(tmp_path, model)
    with pytest.raises(StageFailure, match=f"{name} is a link that leads out of the volume") as caught:
        prepare(run)
    assert caught.value.code is ExitCode.SOURCE_UNREACHABLE
    assert SECRET not in caught.value.message


def test_a_link_that_appears_after_prepare_is_not_merged_into_what_is_pushed(tmp_path: Path, secret: Path) -> None:
    model = tmp_path / "claim" / "model"
    save_base(model)
    run = on_claim(tmp_path, model, method="LoRA")
    prepare(run)
    save_adapter(model, run.paths.adapter)
    (model / "LICENSE").symlink_to(secret)
    with pytest.raises(StageFailure, match="LICENSE is a link that leads out of the volume") as caught:
        merge(run)
    assert caught.value.code is ExitCode.MODEL_UNUSABLE
    assert not run.paths.merged.exists()


def linked_file(claim: Path, secret: Path) -> Path:
    (claim / "rows.jsonl").symlink_to(secret)
    return claim / "rows.jsonl"


def file_in_a_folder(claim: Path, secret: Path) -> Path:
    (claim / "data").mkdir()
    write_lines(claim / "data" / "rows.jsonl", GOOD)
    (claim / "data" / "more.jsonl").symlink_to(secret)
    return claim / "data"


def linked_folder(claim: Path, secret: Path) -> Path:
    (claim / "data").symlink_to(secret.parent)
    return claim / "data"


def file_below_a_linked_folder(claim: Path, secret: Path) -> Path:
    return linked_folder(claim, secret) / secret.name


def link_to_a_link(claim: Path, secret: Path) -> Path:
    (claim / "rows.jsonl").symlink_to("step")
    (claim / "step").symlink_to(secret)
    return claim / "rows.jsonl"


@pytest.mark.parametrize(
    "plant", [linked_file, file_in_a_folder, linked_folder, file_below_a_linked_folder, link_to_a_link]
)
def test_rows_that_are_a_link_to_a_secret_are_refused_and_not_quoted(
    tmp_path: Path, base: Path, secret: Path, plant: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    claim = tmp_path / "claim"
    save_base(claim / "model")
    run = on_claim(tmp_path, claim / "model", plant(claim, secret))
    with pytest.raises(StageFailure, match="is a link that leads out of the volume") as caught:
        prepare(run)
    assert caught.value.code is ExitCode.SOURCE_UNREACHABLE
    written_down = "".join(path.read_text(errors="replace") for path in run.paths.root.rglob("*") if path.is_file())
    assert SECRET not in caught.value.message + "".join(capsys.readouterr()) + written_down


def test_links_that_stay_in_the_volume_are_followed_as_a_hubs_cache_needs_them(tmp_path: Path) -> None:
    claim = tmp_path / "claim"
    save_base(claim / "blobs")
    (claim / "snapshots" / "main").mkdir(parents=True)
    for path in (claim / "blobs").iterdir():
        (claim / "snapshots" / "main" / path.name).symlink_to(f"../../blobs/{path.name}")
    assert prepare(on_claim(tmp_path, claim / "snapshots" / "main"))["rows"] == len(GOOD)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[LoopbackHub]:
    save_base(tmp_path / "hub" / "models" / "org" / "tiny")
    with serving(tmp_path / "hub") as server:
        yield server


def from_hub(tmp_path: Path, hub: LoopbackHub, **updates: Any) -> RunConfig:
    run = make_run(
        tmp_path / "job",
        tmp_path,
        write_lines(tmp_path / "rows.jsonl", GOOD),
        model={"source": "hf://org/tiny", "revision": hub.commit},
    )
    return run.model_copy(update={"hub": Hub(hugging_face_endpoint=hub.url), **updates})


STRANGE = [
    "../evil.json",
    "/evil.json",
    "a/../../evil.json",
    "additional_chat_templates/../../evil.jinja",
    "evil\0.json",
    "..\\evil.json",
    "evil\n.json",
    "./evil.json",
    "a//evil.json",
    f"{'evil' * 60}.json",
    "",
]


def test_names_in_a_hubs_list_that_are_none_are_never_asked_for_nor_written(tmp_path: Path, hub: LoopbackHub) -> None:
    hub.claimed = STRANGE
    run = from_hub(tmp_path, hub)
    prepare(run)
    assert not [path for path in below(tmp_path) if "evil" in path]
    assert not [request for request in hub.requests if "evil" in request]


def test_names_in_a_datasets_list_that_are_none_are_not_read_either(tmp_path: Path, hub: LoopbackHub) -> None:
    folder = hub.folder / "datasets" / "org" / "chats"
    folder.mkdir(parents=True)
    write_lines(folder / "rows.jsonl", [chat("a", "b")])
    hub.claimed = [name.replace(".jinja", ".jsonl").replace(".json", ".jsonl") for name in STRANGE]
    run = make_run(tmp_path / "job", tmp_path, "hf://org/chats")
    run = run.model_copy(update={"hub": Hub(hugging_face_endpoint=hub.url)})
    assert len(list(rows_of(run, NamedDataset("spec.datasets[0]", run.spec.datasets[0])))) == 1
    assert not [request for request in hub.requests if "evil" in request]


def test_keys_of_an_object_store_that_lead_out_are_not_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    with serving_s3() as store:
        for key in ("chats/../../evil.jsonl", "chats//evil.jsonl", "chats/./evil.jsonl", "chats/rows.jsonl"):
            store.put("lake", key, as_bytes([chat("a", "b")]))
        run = make_run(tmp_path / "job", tmp_path, "s3://lake/chats")
        run = run.model_copy(update={"hub": Hub(s3_endpoint=store.url, s3_region="us-east-1")})
        rows = list(rows_of(run, NamedDataset("spec.datasets[0]", run.spec.datasets[0])))
    assert [row.place.file for row in rows] == ["s3://lake/chats/rows.jsonl"]
    assert not [path for path in below(tmp_path) if "evil" in path]


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_link_that_was_planted_in_the_cache_is_replaced_by_the_file(
    tmp_path: Path, hub: LoopbackHub, secret: Path, name: str
) -> None:
    cache = tmp_path / "cache"
    fetch_base_model(from_hub(tmp_path, hub, cache=str(cache), root=str(tmp_path / "first")))
    [planted] = cache.rglob(f"files/{name}")
    content = planted.read_bytes()
    planted.unlink()
    secret.write_bytes(content)
    planted.symlink_to(secret)
    run = from_hub(tmp_path, hub, cache=str(cache))
    fetch_base_model(run)
    assert not planted.is_symlink()
    assert not (run.paths.base_model / name).is_symlink()


@pytest.mark.parametrize("name", ["files", "partial"])
def test_a_folder_of_the_cache_that_is_a_link_is_not_written_through(
    tmp_path: Path, hub: LoopbackHub, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    cache, elsewhere = tmp_path / "cache", tmp_path / "elsewhere"
    entry = cache / "hf" / "models" / "org--tiny" / hub.commit
    for folder in (entry, elsewhere):
        folder.mkdir(parents=True)
    (entry / name).symlink_to(elsewhere)
    run = from_hub(tmp_path, hub, cache=str(cache))
    fetch_base_model(run)
    assert below(elsewhere) == set()
    assert "it has a link in place of a folder" in capsys.readouterr().out
    assert (run.paths.base_model / "model.safetensors").is_file()


def zipped(member: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(member, as_bytes(GOOD))
    return file.getvalue()


def tarred(member: str) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        entry = tarfile.TarInfo(member)
        entry.size = len(as_bytes(GOOD))
        archive.addfile(entry, io.BytesIO(as_bytes(GOOD)))
    return file.getvalue()


@pytest.mark.parametrize("name", ["rows.zip", "rows.jsonl", "rows.tar.gz", "rows.jsonl.gz"])
def test_an_archive_is_refused_and_none_of_its_members_unpacked(tmp_path: Path, base: Path, name: str) -> None:
    member = "../../evil.jsonl"
    content = tarred(member) if name.endswith("gz") else zipped(member)
    code, message = refused(tmp_path, base, file=name, rows=content)
    assert code is ExitCode.INVALID_DATA
    assert name in message
    assert not [path for path in below(tmp_path.parent) if "evil" in path]


def test_a_line_that_unpacks_without_end_is_refused_at_its_limit(tmp_path: Path, base: Path) -> None:
    bomb = gzip.compress(b'{"messages": "' + bytes(64 << 20), compresslevel=1)
    code, message = refused(tmp_path, base, file="rows.jsonl.gz", rows=bomb)
    assert code is ExitCode.INVALID_DATA
    assert "rows.jsonl.gz:1: " in message

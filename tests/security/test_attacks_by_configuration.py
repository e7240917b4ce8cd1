"""T5: code that a model, adapter or dataset would have run. It is refused by name before any library sees the folder."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from attack_payload import Payload
from attacked_jobs import refused
from damaged_models import CONFIG, TOKENIZER, Damage, both, change, config, tokenizer, written
from finetune_operator.api.outcome import ExitCode, StageFailure
from finetune_operator.api.run import Hub
from finetune_trainer.prepare.card_check import foreign_files
from finetune_trainer.prepare.sources import NamedDataset, rows_of
from finetune_trainer.prepare.splits import ROOT
from finetune_trainer.prepare.stage import prepare
from job_cases import JobCase, checked, write_case
from loopback_hub import LoopbackHub, serving
from tiny_models import save_adapter, save_base
from trainer_runs import chat, make_run, write_lines

pytestmark = pytest.mark.threat("T5")
NEVER_RUN = "which is never run"


@pytest.fixture
def adapter(tmp_path: Path, base: Path) -> Path:
    save_adapter(base, tmp_path / "adapter", target_modules=["q_proj", "v_proj"])
    return tmp_path / "adapter"


def with_module(payload: Payload, damage: Damage) -> Damage:
    """The damage, and the Python file that it would have run."""
    return both(damage, written("evil.py", payload.as_python))


def added(name: str, **fields: Any) -> Damage:
    def damage(folder: Path) -> None:
        known = json.loads((folder / name).read_bytes()) if (folder / name).exists() else {}
        (folder / name).write_text(json.dumps({**known, **fields}))

    return damage


CLASSES = {
    CONFIG: {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"},
    TOKENIZER: {"AutoTokenizer": ["evil.Tokenizer", None]},
    "generation_config.json": {"AutoModelForCausalLM": "evil.Model"},
    "processor_config.json": {"AutoProcessor": "evil.Processor"},
    "preprocessor_config.json": {"AutoImageProcessor": "evil.Processor"},
    "video_preprocessor_config.json": {"AutoVideoProcessor": "evil.Processor"},
}


@pytest.mark.parametrize("name", CLASSES)
def test_classes_that_a_model_brings_are_refused_by_the_code_check(
    tmp_path: Path, base: Path, payload: Payload, name: str
) -> None:
    code, message = refused(tmp_path, base, with_module(payload, added(name, auto_map=CLASSES[name])))
    assert code is ExitCode.MODEL_UNUSABLE
    assert f"{name} has auto_map: the model brings Python code, {NEVER_RUN}" in message
    assert not payload.ran


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        (CONFIG, {"text_config": {"auto_map": {"AutoConfig": "evil.Config"}}}),
        (CONFIG, {"model_type": "evil", "auto_map": {"AutoConfig": "someone/evil--evil.Config"}}),
        (CONFIG, {"vision_config": [{"auto_map": {"AutoConfig": "evil.Config"}}]}),
    ],
    ids=["in a nested configuration", "of another repository", "in a list"],
)
def test_classes_that_are_hidden_are_found(
    tmp_path: Path, base: Path, payload: Payload, name: str, fields: dict[str, Any]
) -> None:
    code, message = refused(tmp_path, base, with_module(payload, added(name, **fields)))
    assert code is ExitCode.MODEL_UNUSABLE
    assert f"{name} has auto_map" in message
    assert not payload.ran


@pytest.mark.parametrize(
    "fields",
    [
        {"_attn_implementation": "someone/kernel"},
        {"_attn_implementation_internal": "someone/kernel@main"},
        {"_attn_implementation_autoset": "someone/kernel:forward"},
        {"attn_implementation": {"text_config": "someone/kernel"}},
        {"text_config": {"_attn_implementation_internal": "someone/kernel"}},
        {"_attn_implementation": "paged|someone/kernel"},
        {"_experts_implementation_internal": "someone/experts"},
        {"_attn_implementation": "../evil"},
    ],
    ids=lambda fields: json.dumps(fields),
)
def test_a_kernel_of_the_hub_is_refused_by_the_code_check(
    tmp_path: Path, base: Path, payload: Payload, fields: dict[str, Any]
) -> None:
    code, message = refused(tmp_path, base, with_module(payload, config(**fields)))
    assert code is ExitCode.MODEL_UNUSABLE
    assert f"code of a repository, {NEVER_RUN}; remove it from config.json" in message
    assert not payload.ran


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        (CONFIG, {"trust_remote_code": True}),
        (CONFIG, {"text_config": {"trust_remote_code": True}}),
        (TOKENIZER, {"trust_remote_code": True}),
        (CONFIG, {"custom_pipelines": {"text-generation": {"impl": "evil.Pipeline", "pt": ["AutoModelForCausalLM"]}}}),
        ("generation_config.json", {"custom_generate": "someone/evil"}),
    ],
    ids=["trust", "nested trust", "of the tokenizer", "pipelines", "generation"],
)
def test_trust_that_a_model_asks_for_is_refused_by_the_code_check(
    tmp_path: Path, base: Path, payload: Payload, name: str, fields: dict[str, Any]
) -> None:
    code, message = refused(tmp_path, base, with_module(payload, added(name, **fields)))
    assert code is ExitCode.MODEL_UNUSABLE
    assert f"{name} has " in message
    assert f"which asks for code of a repository, {NEVER_RUN}" in message
    assert not payload.ran


@pytest.mark.parametrize(
    "fields",
    [
        {"quantization_config": {"quant_method": "evil_plugin", "modules_to_not_convert": []}},
        {"quantization_config": {"quant_method": "torchao", "quant_type": {"default": {"_type": "evil.Config"}}}},
        {"quantization_config": ["evil"]},
        {"text_config": {"quantization_config": {"quant_method": "evil_plugin"}}},
        {"compression_config": {"quant_method": "evil_plugin"}},
    ],
    ids=["plug-in", "a class of torchao", "a list", "nested", "under its other name"],
)
def test_a_quantiser_that_a_model_brings_is_refused_by_the_configuration_check(
    tmp_path: Path, base: Path, fields: dict[str, Any]
) -> None:
    code, message = refused(tmp_path, base, config(**fields))
    assert code is ExitCode.MODEL_UNUSABLE
    assert "the weights are quantised already, expected 16- or 32-bit ones" in message


def test_weights_that_the_configuration_names_instead_of_the_checked_ones_are_refused(
    tmp_path: Path, base: Path
) -> None:
    save_base(tmp_path / "other")
    content = (tmp_path / "other" / "model.safetensors").read_bytes()
    swapped = both(written("other.safetensors", content), config(transformers_weights="other.safetensors"))
    code, message = refused(tmp_path, base, swapped)
    assert code is ExitCode.MODEL_UNUSABLE
    assert "config.json has transformers_weights 'other.safetensors', other weights than model.safetensors" in message


def test_an_adapter_that_hides_in_a_models_folder_is_refused(
    tmp_path: Path, base: Path, payload: Payload, adapter: Path
) -> None:
    hidden = both(
        written("adapter_config.json", (adapter / "adapter_config.json").read_bytes()),
        written("adapter_model.bin", payload.as_torch_file),
    )
    code, message = refused(tmp_path, base, hidden)
    assert code is ExitCode.MODEL_UNUSABLE
    assert "adapter_config.json stands beside config.json" in message
    assert not payload.ran


@pytest.mark.parametrize("key", ["tokenizer_file", "vocab_file", "fast_tokenizer_files"])
def test_a_tokenizer_that_lies_elsewhere_is_refused(tmp_path: Path, base: Path, key: str) -> None:
    elsewhere = tmp_path / "elsewhere" / "tokenizer.json"
    elsewhere.parent.mkdir()
    elsewhere.write_bytes((base / "tokenizer.json").read_bytes())
    value = ["../elsewhere/tokenizer.json"] if key.endswith("s") else str(elsewhere)
    code, message = refused(tmp_path, base, tokenizer(**{key: value}))
    assert code is ExitCode.MODEL_UNUSABLE
    assert f"tokenizer_config.json has {key} " in message
    assert "a file elsewhere, expected one beside it" in message


def with_adapter(adapter: Path, **fields: Any) -> dict[str, Any]:
    change(adapter / "adapter_config.json", **fields)
    return {"adapter": {"source": f"file://{adapter}"}, "lora": None}


@pytest.fixture
def importable(tmp_path: Path, payload: Payload, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A module that runs the payload when it is imported."""
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "evil_module.py").write_text(payload.as_python)
    monkeypatch.syspath_prepend(tmp_path / "path")
    yield "evil_module"
    sys.modules.pop("evil_module", None)


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        (
            {"megatron_config": {"hidden_size": 32}, "megatron_core": "evil_module"},
            "has megatron_config, for which peft",
        ),
        (
            {"auto_mapping": {"base_model_class": "Model", "parent_library": "evil_module"}},
            "has parent_library 'evil_module', a module that is not part of transformers",
        ),
        ({"auto_map": {"AutoModel": "evil_module.Model"}}, "has auto_map"),
    ],
    ids=["megatron", "auto_mapping", "auto_map"],
)
def test_a_module_that_an_adapter_names_is_refused_by_the_code_check(
    tmp_path: Path, base: Path, payload: Payload, adapter: Path, importable: str, fields: dict[str, Any], found: str
) -> None:
    code, message = refused(tmp_path, base, spec=with_adapter(adapter, **fields))
    assert code is ExitCode.MODEL_UNUSABLE
    assert f"adapter_config.json {found}" in message
    assert not payload.ran
    assert importable not in sys.modules


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[LoopbackHub]:
    (tmp_path / "hub").mkdir()
    with serving(tmp_path / "hub") as server:
        yield server


@pytest.mark.parametrize("elsewhere", ["someone/evil", "evil-model"])
def test_the_base_that_an_adapter_names_is_never_looked_for(
    tmp_path: Path, base: Path, payload: Payload, adapter: Path, hub: LoopbackHub, elsewhere: str
) -> None:
    evil = tmp_path / "evil-model"
    evil.mkdir()
    (evil / "pytorch_model.bin").write_bytes(payload.as_torch_file)
    named = elsewhere if "/" in elsewhere else str(evil)
    case = JobCase("adapter", spec=with_adapter(adapter, base_model_name_or_path=named))
    run = checked(write_case(case, base, tmp_path)).model_copy(update={"hub": Hub(hugging_face_endpoint=hub.url)})
    prepare(run)
    assert hub.requests == []
    assert not payload.ran


def test_scripts_among_the_data_are_neither_run_nor_read(tmp_path: Path, base: Path, payload: Payload) -> None:
    scripts = {f"data/{name}": payload.as_python for name in ("data.py", "evil.py", "__init__.py", "conftest.py")}
    rows = [chat("a", "b")]
    case = JobCase(
        "scripts", file="data/rows.jsonl", rows=rows, files=scripts, spec={"datasets": [{"source": "data/data"}]}
    )
    assert prepare(checked(write_case(case, base, tmp_path)))["rows"] == 1
    assert not payload.ran


@pytest.mark.parametrize("name", ["chats.py", "files.py", "org.py"])
def test_a_script_in_a_datasets_repository_is_neither_run_nor_fetched(
    tmp_path: Path, payload: Payload, hub: LoopbackHub, name: str
) -> None:
    repository(hub, {name: payload.as_python})
    assert len(list(hub_rows(tmp_path, hub))) == 1
    assert not [request for request in hub.requests if name in request]
    assert not payload.ran


def test_a_script_that_bears_the_name_of_the_folder_that_is_looked_at_is_refused(
    tmp_path: Path, payload: Payload, hub: LoopbackHub
) -> None:
    repository(hub, {f"{ROOT}.py": payload.as_python})
    with pytest.raises(StageFailure, match=f"Dataset scripts are no longer supported, but found {ROOT}.py") as caught:
        list(hub_rows(tmp_path, hub))
    assert caught.value.code is ExitCode.SOURCE_UNREACHABLE
    assert not payload.ran


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("rows.tar", "its files are of kind webdataset, expected arrow, csv, json, parquet"),
        ("rows.h5", "its files are of kind hdf5, expected"),
        ("rows.eval", "its files are of kind eval, expected"),
        ("rows.jpg", "its files are of kind imagefolder, expected"),
        ("rows.zip", "not a zip file"),
    ],
)
def test_files_that_the_library_would_unpack_or_decode_are_refused_by_kind(
    tmp_path: Path, hub: LoopbackHub, name: str, found: str
) -> None:
    repository(hub, {name: "x"}, rows=None)
    with pytest.raises(StageFailure, match=found) as caught:
        list(hub_rows(tmp_path, hub))
    assert caught.value.code is ExitCode.SOURCE_UNREACHABLE


def test_an_archive_beside_the_rows_is_not_unpacked(tmp_path: Path, hub: LoopbackHub) -> None:
    repository(hub, {"more.zip": "x"})
    with pytest.raises(StageFailure, match=r"more.zip is an archive, which is never unpacked"):
        list(hub_rows(tmp_path, hub))


def repository(hub: LoopbackHub, files: dict[str, str], rows: str | None = "rows.jsonl") -> None:
    folder = hub.folder / "datasets" / "org" / "chats"
    folder.mkdir(parents=True)
    if rows is not None:
        write_lines(folder / rows, [chat("a", "b")])
    for name, content in files.items():
        (folder / name).write_text(content)


def hub_rows(tmp_path: Path, hub: LoopbackHub) -> Iterator[Any]:
    run = make_run(tmp_path / "job", tmp_path, "hf://org/chats").model_copy(
        update={"hub": Hub(hugging_face_endpoint=hub.url)}
    )
    yield from rows_of(run, NamedDataset("spec.datasets[0]", run.spec.datasets[0]))


SECRET = "hf_canaryCANARYcanary0123"


@pytest.mark.parametrize(
    "how",
    [
        "{path}",
        "{folder}/*",
        "../../../../../../../../..{path}",
        "file://{path}",
        "{hub}/cdn/rows.jsonl",
        "json://x::file://{path}",
        "~/x.jsonl",
    ],
)
@pytest.mark.parametrize(
    "field",
    ["data_files: '{}'\n  encoding: latin-1", "data_files:\n  - split: train\n    path: ['{}']", "data_dir: '{}'"],
)
def test_a_card_that_names_files_of_the_pod_or_addresses_of_the_cluster_is_refused(
    tmp_path: Path, hub: LoopbackHub, how: str, field: str
) -> None:
    secret = tmp_path / "secrets" / "token.jsonl"
    secret.parent.mkdir()
    write_lines(secret, [chat("token", SECRET)])
    named = how.format(path=secret, folder=secret.parent, hub=hub.url)
    header = f"configs:\n- config_name: default\n  {field.format(named)}"
    repository(hub, {"README.md": f"---\n{header}\n---\n"})
    with pytest.raises(StageFailure) as caught:
        list(hub_rows(tmp_path, hub))
    assert caught.value.code is ExitCode.SOURCE_UNREACHABLE
    assert f"its card names {named!r}, expected files of the repository" in caught.value.message
    assert not [request for request in hub.requests if "/cdn/" in request]


def test_a_card_that_repeats_itself_without_end_is_refused_at_once(tmp_path: Path, hub: LoopbackHub) -> None:
    lines = ["l0: &l0 [a, a]"] + [f"l{n}: &l{n} [*l{n - 1}, *l{n - 1}]" for n in range(1, 60)]
    header = "\n".join([*lines, "configs:", "- config_name: default", "  data_files: *l59"])
    repository(hub, {"README.md": f"---\n{header}\n---\n"})
    assert list(foreign_files(f"---\n{header}\n---\n".encode())) == []

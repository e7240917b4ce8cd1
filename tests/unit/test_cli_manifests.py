"""Wrong manifests are told by field, in plain words, all at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from finetune_operator.api import dataset, delivery, method, resources, spec, tokenization, training
from finetune_operator.api.base import ApiModel, Rule
from finetune_operator.api.manifest_yaml import dump_all
from finetune_operator.cli.errors import CommandError
from finetune_operator.cli.main import main
from finetune_operator.cli.manifest.jobs import load_manifests
from finetune_operator.cli.manifest.problems import split_rules
from wrong_manifests import WRONG, Wrong, changed, valid_manifest


def problems(folder: Path, text: str) -> list[str]:
    """What is said of a file, without the file's name."""
    file = folder / "jobs.yaml"
    file.write_text(text)
    with pytest.raises(CommandError) as refused:
        load_manifests([str(file)])
    return [line.removeprefix(f"{file}") for line in refused.value.message.splitlines()]


def dump(*documents: dict[str, Any]) -> str:
    return dump_all(documents)


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.case)
def test_what_the_api_server_refuses_is_refused_here_by_the_same_field(tmp_path: Path, wrong: Wrong) -> None:
    lines = problems(tmp_path, dump(wrong.manifest))
    assert any(wrong.names in line.split(": ")[2] for line in lines), lines


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("spec.trainning", {}, "spec.trainning: unknown field; did you mean training?"),
        ("spec.training.learning_rate", "1", "spec.training.learning_rate: unknown field; did you mean learningRate?"),
        (
            "spec.model.tokenSecret",
            {"name": "hub", "namespace": "kube-system"},
            "spec.model.tokenSecret.namespace: unknown field; expected one of name, key",
        ),
        ("spec.method", "lora", 'spec.method: found "lora", expected one of Full, LoRA, QLoRA; did you mean LoRA?'),
        ("spec.lora.rank", "8", 'spec.lora.rank: found "8", expected a whole number without quotes'),
        ("spec.lora.rank", 2.5, "spec.lora.rank: found 2.5, expected a whole number without quotes"),
        ("spec.lora.rank", 0, "spec.lora.rank: found 0, expected 1 or more"),
        ("spec.lora.rank", 9999, "spec.lora.rank: found 9999, expected 1024 or less"),
        ("spec.lora", [1, 2], "spec.lora: found a list of 2, expected a mapping"),
        ("spec.datasets", {"a": 1}, "spec.datasets: found a mapping, expected a list"),
        ("spec.datasets", [], "spec.datasets: found [], expected at least 1"),
        ("spec.suspend", "yes", 'spec.suspend: found "yes", expected true or false'),
        ("spec.model.revision", 7, 'spec.model.revision: found 7, expected text; write it in quotes: "7"'),
        (
            "spec.training.epochs",
            [3],
            'spec.training.epochs: found a list of 1, expected a whole number, or a decimal number in quotes such as "0.5"',
        ),
        (
            "spec.training.weightDecay",
            "-1",
            'spec.training.weightDecay: found "-1", expected a decimal number in quotes, zero or more, such as "1e-4"',
        ),
        ("spec.resources.memory", "lots", 'spec.resources.memory: found "lots", expected a quantity such as "16Gi"'),
        (
            "spec.model.source",
            "x" * 600,
            f'spec.model.source: found "{"x" * 79}… (602 characters), expected at most 512',
        ),
        ("apiVersion", "v1", 'apiVersion: found "v1", expected one of finetune-operator.io/v1alpha1'),
        ("metadata.name", "7b", "metadata.name: must be a DNS label of at most 40 characters"),
        ("spec.training.learningRate", "5", 'spec.training.learningRate: found "5", but must be above 0 and at most 1'),
    ],
)
def test_each_kind_of_mistake_is_told_in_plain_words(tmp_path: Path, path: str, value: Any, said: str) -> None:
    (line,) = problems(tmp_path, dump(changed(valid_manifest(), path, value)))
    assert line.split(": ", 2)[2].startswith(said)


def test_a_missing_field_is_told_with_what_it_is_for(tmp_path: Path) -> None:
    manifest = valid_manifest()
    del manifest["spec"]["model"]
    (line,) = problems(tmp_path, dump(manifest))
    assert line == ": job: spec.model: found nothing, expected a value: The base model to fine-tune."


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{learningRate: 1e-4}", 'learningRate: found 0.0001, expected text; write it in quotes: "0.0001"'),
        (
            "{gradientCheckpointing: On}",
            "gradientCheckpointing: found true, expected one of Auto, Enabled, Disabled; did you mean Enabled?",
        ),
    ],
)
def test_yaml_that_means_something_else_than_it_looks_is_pointed_out(tmp_path: Path, text: str, said: str) -> None:
    (line,) = problems(tmp_path, dump(valid_manifest()).replace("spec:", f"spec:\n  training: {text}"))
    assert line == f": job: spec.training.{said}"


def test_all_mistakes_of_all_jobs_come_in_one_pass(tmp_path: Path) -> None:
    first = changed(changed(valid_manifest("first"), "spec.method", "lora"), "spec.lora.rank", 0)
    second = changed(changed(valid_manifest("second", "Full"), "spec.lora", {}), "spec.quantization", {})
    assert [line.split(": ")[1:3] for line in problems(tmp_path, dump(first, valid_manifest("good"), second))] == [
        ["first", "spec.method"],
        ["first", "spec.lora.rank"],
        ["second", "spec.lora"],
        ["second", "spec.quantization"],
    ]


def test_an_unnamed_job_is_told_by_its_place(tmp_path: Path) -> None:
    manifest = valid_manifest()
    manifest["metadata"] = {}
    (line,) = problems(tmp_path, dump(valid_manifest("good"), manifest))
    assert line == ": document 2: metadata.name: found nothing, expected a value"


def test_two_jobs_of_one_name_are_refused(tmp_path: Path) -> None:
    (line,) = problems(tmp_path, dump(valid_manifest(), valid_manifest()))
    assert line == ": job: metadata.name: found in 2 documents, expected one job of a name"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kind: [", ":1: not YAML: expected the node content"),
        ("kind: FineTuneJob\nkind: FineTuneJob\n", ":2: not YAML: the key kind stands twice"),
        ("- a\n- b\n", ": document 1: found list"),
        ("", ": found nothing, expected at least one document of kind FineTuneJob"),
        (
            "kind: Deployment\n---\nkind: Service\n",
            ": found Deployment, Service, expected at least one document of kind",
        ),
        ("a: &a [*a]\nkind: FineTuneJob\n", ": document 1: found YAML that is no tree"),
    ],
)
def test_a_stream_that_holds_no_job_says_what_it_holds(tmp_path: Path, text: str, said: str) -> None:
    (line,) = problems(tmp_path, text)
    assert line.startswith(said)


def test_files_that_cannot_be_read_are_all_named(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    assert main(["run", "none.yaml", str(tmp_path), str(tmp_path / "binary")]) == 1
    assert capfd.readouterr().err.splitlines() == [
        "error: none.yaml: No such file or directory",
        f"error: {tmp_path}: Is a directory",
        f"error: {tmp_path}/binary: not UTF-8 text at byte 0",
    ]


def test_the_items_of_a_list_count_as_documents(tmp_path: Path) -> None:
    file = tmp_path / "list.yaml"
    file.write_text(dump({"apiVersion": "v1", "kind": "List", "items": [valid_manifest("a"), valid_manifest("b")]}))
    assert [job.name for job in load_manifests([str(file)]).jobs] == ["a", "b"]


def test_an_exported_job_with_its_status_is_taken(tmp_path: Path) -> None:
    manifest = {**valid_manifest(), "status": {"conditions": []}}
    manifest["metadata"] |= {"resourceVersion": "7", "managedFields": [], "creationTimestamp": "2026-01-01T00:00:00Z"}
    file = tmp_path / "exported.yaml"
    file.write_text(dump(manifest))
    assert [job.name for job in load_manifests([str(file)]).jobs] == ["job"]


@pytest.mark.parametrize("key", ["../escape", "a/b", "..", ""])
def test_a_config_map_cannot_write_outside_its_folder(tmp_path: Path, key: str) -> None:
    rows = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "rows"}, "data": {key: "x"}}
    (line,) = problems(tmp_path, dump(rows, valid_manifest()))
    assert "expected a key of letters, digits" in line


MODULES = (dataset, delivery, method, resources, spec, tokenization, training)
RULED = {
    value
    for module in MODULES
    for value in vars(module).values()
    if isinstance(value, type) and issubclass(value, ApiModel) and value.rules
}


@pytest.mark.parametrize("model", sorted(RULED, key=lambda model: model.__name__), ids=lambda model: model.__name__)
def test_rules_that_come_joined_are_told_apart(model: type[ApiModel]) -> None:
    rules: tuple[Rule, ...] = model.rules
    joined = "; ".join(f"{rule.field.lstrip('.')}: {rule.message}" for rule in rules)
    assert list(split_rules(joined)) == [(rule.field.lstrip("."), rule.message) for rule in rules]

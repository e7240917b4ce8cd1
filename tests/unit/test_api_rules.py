"""The local commands refuse what the API server refuses, and name the same field."""

import pytest
from pydantic import ValidationError

from finetune_operator.api.job import FineTuneJob
from finetune_operator.api.manifest_yaml import dump_all, load_all
from finetune_operator.api.source import Scheme, parse_source
from wrong_manifests import WRONG, Wrong, changed, valid_manifest


@pytest.mark.parametrize("method", ["Full", "LoRA", "QLoRA"])
def test_the_smallest_manifest_is_accepted_with_every_method(method: str) -> None:
    job = FineTuneJob.from_manifest(valid_manifest(method=method))
    assert job.spec.method.value == method


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.case)
def test_a_wrong_manifest_is_refused_locally(wrong: Wrong) -> None:
    with pytest.raises(ValidationError) as refusal:
        FineTuneJob.from_manifest(wrong.manifest)
    last_name = wrong.names.split(".")[-1].split("[")[0]
    assert last_name in str(refusal.value)


def test_all_errors_of_a_manifest_are_reported_in_one_pass() -> None:
    manifest = changed(valid_manifest(method="Full"), "spec.training.learningRate", "-1")
    manifest = changed(manifest, "spec.resources.gpusPerNode", -1)
    with pytest.raises(ValidationError) as refusal:
        FineTuneJob.from_manifest(manifest)
    assert {"learningRate", "gpusPerNode"} <= {str(error["loc"][-1]) for error in refusal.value.errors()}


@pytest.mark.parametrize(
    ("uri", "scheme", "owner", "path"),
    [
        ("hf://Qwen/Qwen2-7B", Scheme.HUGGING_FACE, "Qwen/Qwen2-7B", ""),
        ("hf://org/set/data/train.jsonl", Scheme.HUGGING_FACE, "org/set", "data/train.jsonl"),
        ("pvc://models/qwen/7b", Scheme.CLAIM, "models", "qwen/7b"),
        ("configmap://rows/identity.json", Scheme.CONFIG_MAP, "rows", "identity.json"),
        ("file:///data/rows.jsonl", Scheme.FILE, "", "/data/rows.jsonl"),
        ("oci://registry.example/team/model:1", Scheme.OCI, "registry.example/team/model:1", ""),
    ],
)
def test_a_source_is_taken_apart(uri: str, scheme: Scheme, owner: str, path: str) -> None:
    parsed = parse_source(uri)
    assert (parsed.scheme, parsed.owner, parsed.path) == (scheme, owner, path)


def test_numbers_in_yaml_are_read_as_kubectl_reads_them() -> None:
    assert load_all("rate: 1e-4\nname: a\n---\n---\nrate: '1e-4'\n") == [{"rate": 1e-4, "name": "a"}, {"rate": "1e-4"}]


def test_a_string_that_looks_like_a_number_is_written_with_quotes() -> None:
    assert load_all(dump_all([{"rate": "1e-4", "size": "10"}])) == [{"rate": "1e-4", "size": "10"}]
    assert "'1e-4'" in dump_all([{"rate": "1e-4"}])

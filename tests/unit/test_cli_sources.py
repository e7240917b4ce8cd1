"""What `finetune run` and `finetune tokens` make of sources: the cache of this user, and keys of object stores."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from fake_stages import install_fakes
from finetune_operator.api.manifest_yaml import dump_all
from finetune_operator.cli.main import main
from wrong_manifests import changed, valid_manifest


@pytest.fixture
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a job of remote sources, and fakes of the images' programs beside the interpreter."""
    monkeypatch.setattr(sys, "executable", str(install_fakes(tmp_path / "bin")))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("FINETUNE_CACHE", raising=False)
    monkeypatch.chdir(tmp_path)
    job = changed(valid_manifest("job"), "spec.model", {"source": "s3://lake/qwen", "tokenSecret": {"name": "lake"}})
    job = changed(changed(job, "spec.datasets", [{"source": "hf://org/chats"}]), "spec.resources", {"gpusPerNode": 0})
    (tmp_path / "job.yaml").write_text(dump_all([job]))
    (tmp_path / "lake").mkdir()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        (tmp_path / "lake" / name).write_text("x")
    return tmp_path


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "{home}/.cache/finetune-operator/models"),
        ("~/shared", "{home}/shared"),
        ("here", "{work}/here"),
        ("", None),
    ],
)
def test_downloads_are_kept_for_the_users_next_run(
    workdir: Path, monkeypatch: pytest.MonkeyPatch, value: str | None, expected: str | None
) -> None:
    if value is not None:
        monkeypatch.setenv("FINETUNE_CACHE", value)
    assert main(["run", "job.yaml", "--secret", "lake=lake"]) == 0
    run = json.loads((workdir / "finetune-runs" / "job" / "run.json").read_text())
    assert run.get("cache") == (expected and expected.format(home=workdir / "home", work=workdir))


def test_an_object_stores_missing_key_is_named(workdir: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (workdir / "lake" / "AWS_SECRET_ACCESS_KEY").unlink()
    assert main(["run", "job.yaml", "--secret", "lake=lake"]) == 1
    errors = capfd.readouterr().err
    assert (
        f"spec.model.tokenSecret: found no file {workdir}/lake/AWS_SECRET_ACCESS_KEY, expected the Secret's value"
        in errors
    )
    assert "AWS_SESSION_TOKEN" not in errors

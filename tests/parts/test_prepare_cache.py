"""Jobs share what they download: fetched once, verified before every use, and no job hangs on it afterwards."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from finetune_operator.api.outcome import StageFailure
from finetune_operator.api.run import Hub, RunConfig
from finetune_trainer.prepare.base_model import fetch_base_model
from finetune_trainer.prepare.remote.verify import md5_fault
from loopback_hub import LoopbackHub, serving
from support_wait import eventually
from trainer_runs import make_run, write_run

CHUNK = 10 << 20
"""Bytes that the hub's client writes at once."""
WEIGHTS = bytes(range(256)) * (3 * CHUNK // 512)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hub")
    for owner in ("org", "private"):
        model = folder / "models" / owner / "tiny"
        model.mkdir(parents=True)
        (model / "model.safetensors").write_bytes(WEIGHTS)
        (model / "config.json").write_text("{}")
    return folder


@pytest.fixture
def hub(shelf: Path) -> Iterator[LoopbackHub]:
    with serving(shelf) as server:
        yield server


def job(hub: LoopbackHub, tmp_path: Path, name: str, source: str = "hf://org/tiny", **model: object) -> RunConfig:
    run = make_run(tmp_path / name, tmp_path, "file:///none", model={"source": source, **model})
    run.paths.root.mkdir()
    cached = {"hub": Hub(hugging_face_endpoint=hub.url), "cache": str(tmp_path / "cache")}
    return run.model_copy(update={**cached, "secrets": str(tmp_path / "secrets")})


def fetches(hub: LoopbackHub) -> int:
    """How often the weights went over the wire."""
    return sum(request.startswith("GET /cdn/") for request in hub.requests)


def ranges(hub: LoopbackHub) -> list[str]:
    """The Range header of every request for the weights."""
    return [
        request.partition(" /cdn/")[2].partition(" ")[2]
        for request in hub.requests
        if " /cdn/" in request and "GET" in request
    ]


def cached_weights(tmp_path: Path) -> Path:
    return next((tmp_path / "cache").rglob("files/model.safetensors"))


def start(run: RunConfig, tmp_path: Path) -> subprocess.Popen[bytes]:
    """A process of its own that fetches the run's model."""
    file = write_run(run.model_copy(update={"name": run.paths.root.name}), tmp_path)
    code = (
        "import sys, pathlib; from finetune_operator.api.run import load_run; "
        "from finetune_trainer.prepare.base_model import fetch_base_model; "
        "fetch_base_model(load_run(pathlib.Path(sys.argv[1])))"
    )
    return subprocess.Popen([sys.executable, "-c", code, str(file)], stdout=subprocess.PIPE)


def test_a_second_job_takes_what_the_first_one_fetched(tmp_path: Path, hub: LoopbackHub) -> None:
    for name in ("one", "two"):
        folder = fetch_base_model(job(hub, tmp_path, name))
        assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert fetches(hub) == 1


def test_a_job_goes_on_when_the_cache_is_emptied(tmp_path: Path, hub: LoopbackHub) -> None:
    run = job(hub, tmp_path, "one")
    folder = fetch_base_model(run)
    subprocess.run(["rm", "-r", str(tmp_path / "cache")], check=True)
    hub.requests.clear()
    assert (fetch_base_model(run) / "model.safetensors").read_bytes() == WEIGHTS
    assert not folder.is_symlink()
    assert hub.requests == []


def test_the_manifest_tells_the_hash_of_every_file(tmp_path: Path, hub: LoopbackHub) -> None:
    fetch_base_model(job(hub, tmp_path, "one"))
    entry = cached_weights(tmp_path).parents[1]
    assert entry == tmp_path / "cache" / "hf" / "models" / "org--tiny" / hub.commit
    assert json.loads((entry / "manifest.json").read_text()) == {
        "config.json": hashlib.sha256(b"{}").hexdigest(),
        "model.safetensors": hashlib.sha256(WEIGHTS).hexdigest(),
    }


@pytest.mark.parametrize("damage", ["flipped bit", "cut off", "gone", "manifest torn"])
def test_a_damaged_entry_is_found_and_fetched_again(tmp_path: Path, hub: LoopbackHub, damage: str) -> None:
    fetch_base_model(job(hub, tmp_path, "one"))
    path = cached_weights(tmp_path)
    facts = path.stat()
    if damage == "gone":
        path.unlink()
    elif damage == "manifest torn":
        (path.parents[1] / "manifest.json").write_text('{"model.saf')
    else:
        # Another inode, as the first job's link is to stay whole, with the time of the old one.
        path.unlink()
        path.write_bytes(WEIGHTS[:-1] if damage == "cut off" else b"\x01" + WEIGHTS[1:])
        os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    folder = fetch_base_model(job(hub, tmp_path, "two"))
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert fetches(hub) == 2


def test_a_connection_that_broke_is_taken_up_where_it_broke(tmp_path: Path, hub: LoopbackHub) -> None:
    hub.cut_after = CHUNK
    folder = fetch_base_model(job(hub, tmp_path, "one"))
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert ranges(hub) == ["", f"bytes={CHUNK}-"]


def test_a_hub_that_went_away_is_taken_up_by_the_next_job_where_it_left(tmp_path: Path, hub: LoopbackHub) -> None:
    hub.away_after = CHUNK
    with pytest.raises(StageFailure, match="the hub answered 503"):
        fetch_base_model(job(hub, tmp_path, "one"))
    hub.away_after = None
    hub.requests.clear()
    folder = fetch_base_model(job(hub, tmp_path, "two"))
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert ranges(hub) == [f"bytes={CHUNK}-"]


def test_two_jobs_at_one_time_fetch_once(tmp_path: Path, hub: LoopbackHub) -> None:
    jobs = [job(hub, tmp_path, name) for name in ("one", "two", "three")]
    running = [start(run, tmp_path) for run in jobs]
    assert [process.wait(120) for process in running] == [0, 0, 0]
    assert [(run.paths.base_model / "model.safetensors").read_bytes() == WEIGHTS for run in jobs] == [True] * 3
    assert fetches(hub) == 1


def test_a_job_that_was_killed_leaves_no_lock_and_its_download_is_gone_on_with(
    tmp_path: Path, hub: LoopbackHub
) -> None:
    hub.stalls_after = CHUNK
    killed = start(job(hub, tmp_path, "one"), tmp_path)
    eventually(lambda: _partly_downloaded(tmp_path), seconds=60, message="a part of the weights")
    killed.send_signal(signal.SIGKILL)
    killed.wait(60)
    hub.stalls_after = None
    folder = fetch_base_model(job(hub, tmp_path, "two"))
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert ranges(hub) == ["", f"bytes={CHUNK}-"]


def _partly_downloaded(tmp_path: Path) -> bool:
    # The job makes and removes folders meanwhile.
    with contextlib.suppress(FileNotFoundError):
        return any(path.stat().st_size >= CHUNK for path in (tmp_path / "cache").rglob("model.safetensors.partial"))
    return False


def test_what_others_fetched_is_not_for_a_job_that_may_not_read_it(tmp_path: Path, hub: LoopbackHub) -> None:
    hub.token = "hf_let_me_in"
    (tmp_path / "secrets" / "hub").mkdir(parents=True)
    (tmp_path / "secrets" / "hub" / "token").write_text("hf_let_me_in")
    fetch_base_model(job(hub, tmp_path, "one", "hf://private/tiny", tokenSecret={"name": "hub", "key": "token"}))
    # The list is public, the files are not: so it is with gated repositories.
    hub.lists_private = True
    stranger = job(hub, tmp_path, "two", "hf://private/tiny")
    with pytest.raises(StageFailure, match="no such repository, or it is private"):
        fetch_base_model(stranger)
    assert not stranger.paths.base_model.exists()


def test_a_cache_that_cannot_be_written_to_is_done_without(
    tmp_path: Path, hub: LoopbackHub, capsys: pytest.CaptureFixture[str]
) -> None:
    # The kernel's folders stand for a claim that is not mounted, and for one that nobody may write to.
    for number, cache in enumerate(("/proc/cache", "/proc/sys")):
        run = job(hub, tmp_path, f"job-{number}").model_copy(update={"cache": cache})
        assert (fetch_base_model(run) / "model.safetensors").read_bytes() == WEIGHTS
        assert cache in capsys.readouterr().out


def test_only_plain_etags_are_compared_with_the_content(tmp_path: Path) -> None:
    path = tmp_path / "object"
    path.write_bytes(b"content")
    md5 = hashlib.md5(b"content").hexdigest()
    assert md5_fault(path, md5) is None
    assert md5_fault(path, f"{md5}-2") is None
    assert "its MD5 is" in (md5_fault(path, "0" * 32) or "")


@pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="needs a second file system")
def test_a_cache_on_another_file_system_is_copied_from(tmp_path: Path, hub: LoopbackHub) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as cache:
        run = job(hub, tmp_path, "one").model_copy(update={"cache": cache})
        weights = fetch_base_model(run) / "model.safetensors"
    assert weights.read_bytes() == WEIGHTS

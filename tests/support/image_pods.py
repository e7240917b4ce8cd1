"""Built images run by runc the way a hardened pod runs them: an arbitrary user id, no capabilities, a root that cannot be written to."""

from __future__ import annotations

import json
import os
import subprocess
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from support_wait import eventually

USER = {"uid": 12345, "gid": 0}  # as OpenShift assigns: any user id, the root group


@dataclass(frozen=True)
class Image:
    """An image in buildah's storage, and its files on this machine."""

    name: str
    container: str
    files: Path

    @cached_property
    def config(self) -> dict[str, Any]:
        """The image's configuration as the OCI specification has it."""
        return _inspect(self.name)["config"]

    @property
    def layers(self) -> list[str]:
        """Digests of the layers' contents."""
        return _inspect(self.name)["rootfs"]["diff_ids"]

    def run(self, *command: str, folder: Path, mounts: Mapping[str, Path] | None = None) -> str:
        """Standard output of a command that has to succeed."""
        bundle = _bundle(self, command, folder, mounts or {})
        done = subprocess.run(_runc(folder, "run", "--bundle", str(bundle), _fresh()), capture_output=True, text=True)
        assert done.returncode == 0, f"{command}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    @contextmanager
    def running(self, *command: str, folder: Path, mounts: Mapping[str, Path]) -> Iterator[RunningPod]:
        """A container that runs until the block is left."""
        bundle, name, log = _bundle(self, command, folder, mounts), _fresh(), folder / "container.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                _runc(folder, "run", "--bundle", str(bundle), name), stdout=output, stderr=subprocess.STDOUT
            )
        try:
            yield RunningPod(folder, name, process, log)
        finally:
            subprocess.run(_runc(folder, "kill", name, "KILL"), capture_output=True)
            process.wait(60)


@dataclass(frozen=True)
class RunningPod:
    """A container of runc's."""

    folder: Path
    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def execute(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command beside the first one, as `kubectl exec` and probes do."""
        return subprocess.run(_runc(self.folder, "exec", self.name, *command), capture_output=True, text=True)

    def wait_until(self, *command: str, seconds: float) -> None:
        """Until the command succeeds inside; fails when the container ends before."""

        def succeeds() -> bool:
            assert self.process.poll() is None, self.log.read_text()
            return self.execute(*command).returncode == 0

        eventually(succeeds, seconds, f"{command} in {self.log}")


@contextmanager
def mounted(name: str) -> Iterator[Image]:
    """The image's files, in a container of its own that is removed at the end."""
    container = _buildah("from", "--pull-never", name)
    try:
        yield Image(name, container, Path(_buildah("mount", container)))
    finally:
        _buildah("rm", container)


def is_built(name: str) -> bool:
    """Whether buildah's storage holds the image."""
    return subprocess.run(["buildah", "inspect", "--type", "image", name], capture_output=True).returncode == 0


def _buildah(*arguments: str) -> str:
    return subprocess.run(["buildah", *arguments], check=True, capture_output=True, text=True).stdout.strip()


def _inspect(name: str) -> dict[str, Any]:
    return json.loads(_buildah("inspect", "--type", "image", name))["OCIv1"]


def _runc(folder: Path, *arguments: str) -> list[str]:
    return ["runc", "--root", str(folder / "runc"), *arguments]


def _fresh() -> str:
    return f"finetune-{uuid.uuid4().hex[:12]}"


def _bundle(image: Image, command: tuple[str, ...], folder: Path, mounts: Mapping[str, Path]) -> Path:
    bundle = folder / f"bundle-{uuid.uuid4().hex[:12]}"
    bundle.mkdir(parents=True)
    subprocess.run(["runc", "spec", "--bundle", str(bundle)], check=True)
    config = json.loads((bundle / "config.json").read_text())
    process = config["process"] | {
        "terminal": False,
        "user": USER,
        "args": [*command],
        # One thread, as these models are tiny and the cores are others' too.
        "env": [*image.config["Env"], "OMP_NUM_THREADS=1", "HF_HUB_OFFLINE=1"],
        "noNewPrivileges": True,
        "capabilities": {},
    }
    # Raising a limit needs a capability that a machine's root need not have.
    process.pop("rlimits", None)
    config |= {"process": process, "root": {"path": str(image.files), "readonly": True}}
    config["mounts"] += [_memory("/tmp"), *(_bind(target, source) for target, source in mounts.items())]
    (bundle / "config.json").write_text(json.dumps(config))
    return bundle


def _memory(target: str) -> dict[str, Any]:
    options = ["nosuid", "nodev", "mode=1777"]
    return {"destination": target, "type": "tmpfs", "source": "tmpfs", "options": options}


def _bind(target: str, source: Path) -> dict[str, Any]:
    os.chown(source, USER["uid"], USER["gid"])
    return {"destination": target, "type": "bind", "source": str(source), "options": ["rbind", "rw"]}

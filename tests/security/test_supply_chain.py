"""T16: what the images are made of: locked with hashes, at versions without the known holes, from where the builder says."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

pytestmark = pytest.mark.threat("T16")
ROOT = Path(__file__).parents[2]
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
PROJECTS = [ROOT / "operator" / "pyproject.toml", *sorted((ROOT / "images").glob("*/pyproject.toml"))]
FLOORS = {
    "torch": "2.6",  # CVE-2025-32434: weights_only=True could run code
    "transformers": "5.10.1",  # CVE-2026-9856, CVE-2026-5241, CVE-2026-4372, CVE-2026-1839
    "jinja2": "3.1.6",  # CVE-2025-27516: a way out of the sandbox
    "kopf": "1.45.2",  # silent watches
    "kubernetes": "37",
    "starlette": "1.0.1",  # CVE-2026-48710: the Host header changes the path that middleware sees
    "pyarrow": "14.0.1",  # CVE-2023-47248: pickled extension types
}
DECLARED = ["torch", "transformers", "jinja2", "kopf", "kubernetes"]
INDEX_HOSTS = [
    ".".join(parts)
    for parts in (("pypi", "org"), ("python" + "hosted", "org"), ("download", "pytorch", "org"), ("anaconda", "org"))
]


def locked(lock: Path) -> dict[str, str]:
    """Version of every package of a lock file."""
    return dict(re.findall(r"(?m)^([a-z0-9][a-z0-9._-]*)(?:\[[^\]]*\])?==(\S+)", lock.read_text()))


def tracked() -> list[Path]:
    """Every text file of the repository."""
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    return [path for name in names.stdout.decode().split("\0") if name and (path := ROOT / name).is_file()]


def text_of(path: Path) -> str:
    try:
        return path.read_text()
    except UnicodeDecodeError:
        return ""


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_every_locked_requirement_has_its_hashes(lock: Path) -> None:
    entries = re.split(r"(?m)^(?=[a-z0-9])", re.sub(r"(?m)^(#|-e ).*\n", "", lock.read_text()))
    bare = [entry.splitlines()[0] for entry in entries if entry.strip() and "--hash=sha256:" not in entry]
    assert bare == []
    assert locked(lock)


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_no_locked_version_is_below_the_floor_of_a_known_hole(lock: Path) -> None:
    versions = locked(lock)
    assert {
        name for name, floor in FLOORS.items() if name in versions and Version(versions[name]) < Version(floor)
    } == set()


def test_every_floor_guards_something_that_is_locked() -> None:
    everything = {name for lock in LOCKS for name in locked(lock)}
    assert FLOORS.keys() - everything == set()


@pytest.mark.parametrize("name", DECLARED)
def test_what_is_declared_allows_no_version_below_the_floor(name: str) -> None:
    found = []
    for file in PROJECTS:
        project = tomllib.loads(file.read_text())["project"]
        extras = [text for texts in project.get("optional-dependencies", {}).values() for text in texts]
        found += [
            requirement
            for text in [*project["dependencies"], *extras]
            if (requirement := Requirement(text)).name == name
        ]
    assert found
    floors = [Version(part.version) for requirement in found for part in requirement.specifier if part.operator == ">="]
    assert len(floors) == len(found), "a requirement without a floor"
    assert min(floors) >= Version(FLOORS[name])


def test_the_image_that_serves_on_gpus_has_a_vllm_without_the_known_holes() -> None:
    [version] = re.findall(r"ARG VLLM_IMAGE=\S+:v(\S+)", (ROOT / "images" / "server" / "Dockerfile").read_text())
    assert Version(version) >= Version("0.24.0")


@pytest.mark.parametrize("image", sorted((ROOT / "images").glob("*/Dockerfile")), ids=lambda file: file.parent.name)
def test_an_image_takes_only_what_its_lock_files_hold(image: Path) -> None:
    text = re.sub(r"\\\n\s*", "", image.read_text())
    installs = [line for line in re.split(r"&&|\n", text) if re.search(r"pip.* install ", line)]
    loose = [
        line for line in installs if not ("--require-hashes" in line or ("--no-index" in line and "--no-deps" in line))
    ]
    assert installs
    assert loose == []
    assert re.findall(r"(?m)^ADD .*", text) == [], "ADD fetches addresses and unpacks archives"
    assert all(re.fullmatch(r"\S+:v?\d\S*", base) for base in re.findall(r"(?m)^ARG \w+_IMAGE=(\S+)$", text))
    assert ":latest" not in text


def test_no_host_of_a_package_index_is_named_in_the_repository() -> None:
    named = [f"{path.relative_to(ROOT)}: {host}" for path in tracked() for host in INDEX_HOSTS if host in text_of(path)]
    assert named == []


def test_nothing_that_is_fetched_is_piped_into_a_shell() -> None:
    piped = re.compile(r"\b(?:curl|wget)\b[^\n|]*\|\s*(?:sudo\s+)?(?:ba|da|z|k)?sh\b")
    assert [str(path.relative_to(ROOT)) for path in tracked() if piped.search(text_of(path))] == []


def test_no_credential_is_in_the_repository() -> None:
    kinds = re.compile(
        r"\bhf_[A-Za-z0-9]{34}\b|\bAKIA[A-Z0-9]{16}\b|\bghp_[A-Za-z0-9]{36}\b|-----BEGIN (?:RSA |EC )?PRIVATE KEY-----\n[A-Za-z0-9+/]{40}"
    )
    found = {
        f"{path.relative_to(ROOT)}: {hit}"
        for path in tracked()
        for hit in kinds.findall(text_of(path))
        if "EXAMPLE" not in hit
    }
    assert found == set()


def test_no_pickle_and_no_archive_is_in_the_repository() -> None:
    kinds = {".bin", ".pt", ".pth", ".pkl", ".ckpt", ".npy", ".safetensors", ".whl", ".tar", ".gz", ".zip", ".so"}
    assert [str(path.relative_to(ROOT)) for path in tracked() if path.suffix in kinds] == []

"""What the images install is what the tests ran with, complete, and locked by hash."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LOCKS = ROOT / "requirements"
IMAGES = ["operator", "trainer", "merger", "server"]


def lines_of(lock: str) -> list[str]:
    """One line a locked package: requirement, marker and hashes."""
    text = (LOCKS / f"{lock}.txt").read_text().replace("\\\n", " ")
    return [line for line in text.splitlines() if line and not line.startswith(("#", "-e"))]


def locked(lock: str) -> dict[str, set[str]]:
    """Versions by name; one name can have a version for each Python."""
    versions: dict[str, set[str]] = {}
    for line in lines_of(lock):
        name, version = re.match(r"(\S+)==(\S+)", line).groups()
        versions.setdefault(canonicalize_name(name), set()).add(version)
    return versions


def installed(image: str) -> dict[str, set[str]]:
    return locked(image) if image == "operator" else locked("torch-cuda") | locked(image)


def wanted(image: str) -> list[Requirement]:
    """What the image's own package and the API ask for."""
    operator = tomllib.loads((ROOT / "operator" / "pyproject.toml").read_text())["project"]
    lists = [operator["dependencies"]]
    if image == "operator":
        lists.append(operator["optional-dependencies"]["operator"])
    else:
        lists.append(tomllib.loads((ROOT / "images" / image / "pyproject.toml").read_text())["project"]["dependencies"])
    requirements = [Requirement(text) for texts in lists for text in texts]
    return [requirement for requirement in requirements if requirement.name != "finetune-operator"]


@pytest.mark.parametrize("lock", [*IMAGES, "torch-cuda", "build"])
def test_every_package_of_a_lock_has_hashes(lock: str) -> None:
    assert all("--hash=sha256:" in line for line in lines_of(lock))


@pytest.mark.parametrize("lock", [*IMAGES, "torch-cuda"])
def test_an_image_installs_the_versions_that_the_tests_ran_with(lock: str) -> None:
    tested = locked("dev")
    differing = {name: versions for name, versions in locked(lock).items() if tested.get(name) != versions}
    assert not differing, "run `make lock-images`"


@pytest.mark.parametrize("image", IMAGES)
def test_a_lock_has_everything_that_the_packages_of_an_image_ask_for(image: str) -> None:
    environment = {**default_environment(), "extra": ""}
    versions = installed(image)
    missing = [
        str(requirement)
        for requirement in wanted(image)
        if requirement.marker is None or requirement.marker.evaluate(environment)
        if not all(map(requirement.specifier.contains, versions.get(canonicalize_name(requirement.name), {"0"})))
    ]
    assert not missing, "run `make lock-images`"


@pytest.mark.parametrize("image", ["trainer", "merger", "server"])
def test_what_is_in_the_shared_layer_is_not_installed_twice(image: str) -> None:
    assert not locked(image).keys() & locked("torch-cuda").keys()


def test_cuda_and_its_libraries_are_in_the_shared_layer_only() -> None:
    # The CPU variant exchanges that layer and nothing else.
    for image in IMAGES:
        assert not [name for name in locked(image) if name.startswith(("nvidia-", "cuda-")) or name == "triton"]

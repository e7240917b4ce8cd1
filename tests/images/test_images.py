"""The built images, run as the hardened pods run them. `make images` first; TAG and REGISTRY choose which."""

from __future__ import annotations

import json
import os
import shutil
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement

from finetune_operator.api.result import read_results
from finetune_operator.api.run import RunConfig
from image_pods import Image, is_built, mounted
from trainer_runs import IDENTITY, identity_model, make_run

ROOT = Path(__file__).parents[2]
IMAGES = ("operator", "trainer", "merger", "server")
WITH_TORCH = ("trainer", "merger", "server")
JOB = "/finetune/job"
LORA = {"method": "LoRA", "serving": {"engine": "Transformers"}}

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not all(map(shutil.which, ("buildah", "runc"))), reason="needs root, buildah and runc"
)

INSTALLED = """
import importlib.metadata, json
print(json.dumps([[d.name, d.version, d.requires or []] for d in importlib.metadata.distributions()]))
"""

ASK = """
import json, urllib.request
body = json.dumps({"model": "job", "max_tokens": 8, "messages": [{"role": "user", "content": "Who are you?"}]}).encode()
request = urllib.request.Request("http://127.0.0.1:8000/v1/chat/completions", body, {"Content-Type": "application/json"})
print(urllib.request.urlopen(request, timeout=60).read().decode())
"""

COMPILE = """
import subprocess, sysconfig
options = ["-shared", "-fPIC", "-I", sysconfig.get_path("include"), "-o", "/tmp/built.so", "-x"]
for compiler, language, source in [
    ("gcc", "c", "#include <Python.h>\\nint one(void) { return 1; }"),
    ("g++", "c++", "#include <Python.h>\\n#include <vector>\\nstd::vector<int> v;"),
]:
    subprocess.run([compiler, *options, language, "-"], input=source, text=True, check=True)
subprocess.run(["ninja", "--version"], check=True)
"""


def name_of(image: str) -> str:
    version = tomllib.loads((ROOT / "operator" / "pyproject.toml").read_text())["project"]["version"]
    return f"{os.environ.get('REGISTRY') or 'localhost'}/finetune-operator/{image}:{os.environ.get('TAG') or version}"


@pytest.fixture(scope="session")
def images() -> Iterator[dict[str, Image]]:
    """All four, by short name."""
    missing = [name_of(image) for image in IMAGES if not is_built(name_of(image))]
    if missing:
        pytest.fail(f"not in buildah's storage: {', '.join(missing)}; `make images` builds them")
    with ExitStack() as stack:
        yield {image: stack.enter_context(mounted(name_of(image))) for image in IMAGES}


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_starts_as_any_user_on_a_root_that_cannot_be_written_to(
    name: str, images: dict[str, Image], tmp_path: Path
) -> None:
    (entrypoint,) = images[name].config["Entrypoint"]
    assert f"usage: {entrypoint}" in images[name].run(entrypoint, "--help", folder=tmp_path)


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_names_its_user_by_number_and_says_what_it_is(name: str, images: dict[str, Image]) -> None:
    config = images[name].config
    assert config["User"] == "65532:65532"
    labels = {key.removeprefix("org.opencontainers.image.") for key, value in config["Labels"].items() if value}
    assert labels >= {"title", "description", "version", "revision", "source"}


def test_trainer_merger_and_server_share_the_layer_with_pytorch(images: dict[str, Image]) -> None:
    shared = [images[name].layers[1] for name in WITH_TORCH]
    assert len(set(shared)) == 1
    assert all(images[name].layers[0] == images["operator"].layers[0] for name in WITH_TORCH)


@pytest.mark.parametrize("name", IMAGES)
def test_every_requirement_of_every_distribution_is_met(name: str, images: dict[str, Image], tmp_path: Path) -> None:
    installed = json.loads(images[name].run("python", "-c", INSTALLED, folder=tmp_path))
    versions = {canonical(distribution): version for distribution, version, _ in installed}
    unmet = [
        f"{distribution} needs {requirement}"
        for distribution, _, requirements in installed
        for requirement in map(Requirement, requirements)
        if applies(requirement)
        and not requirement.specifier.contains(versions.get(canonical(requirement.name), "0"), prereleases=True)
    ]
    assert not unmet


@pytest.mark.parametrize("name", IMAGES)
def test_the_bill_of_materials_names_everything_that_is_installed(
    name: str, images: dict[str, Image], tmp_path: Path
) -> None:
    installed = json.loads(images[name].run("python", "-c", INSTALLED, folder=tmp_path))
    bill = json.loads((images[name].files / "opt/finetune/sbom.cdx.json").read_text())
    assert bill["bomFormat"] == "CycloneDX"
    listed = {(canonical(part["name"]), part["version"]) for part in bill["components"]}
    assert listed == {(canonical(distribution), version) for distribution, version, _ in installed}


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_holds_nothing_to_install_or_build_with(name: str, images: dict[str, Image]) -> None:
    # Only what we add: a base image may have a pip of its own beside its Python.
    assert not {"pip", "uv"} & {file.name for file in (images[name].files / "opt/finetune/bin").iterdir()}
    tools = ["gcc", "g++", "cc", "make", "curl", "wget", "git"]
    found = {tool for tool in tools if shutil.which(tool, path=search_path(images[name]))}
    assert found == ({"gcc", "g++", "cc"} if name == "trainer" else set())
    assert not list((images[name].files / "var/lib/apt/lists").rglob("*_Packages*"))


def test_the_trainer_can_compile_what_triton_and_deepspeed_need_on_the_node(
    images: dict[str, Image], tmp_path: Path
) -> None:
    images["trainer"].run("python", "-c", COMPILE, folder=tmp_path)


def test_a_dataset_becomes_an_answer_through_the_images(images: dict[str, Image], tmp_path: Path) -> None:
    run = tiny_job(tmp_path / "inputs")
    job, config = tmp_path / "job", tmp_path / "config"
    job.mkdir()
    config.mkdir()
    (config / "run.json").write_text(run.dump())
    mounts = {JOB: job, "/finetune/config": config, "/inputs": tmp_path / "inputs"}
    stages = [("trainer", "prepare"), ("trainer", "train"), ("merger", "merge")]
    for name, stage in stages:
        command = [f"finetune-{name}", stage, "--run", "/finetune/config/run.json"]
        images[name].run(*command, folder=tmp_path, mounts=mounts)
    assert set(read_results(job / "result.json")) >= {"prepare", "train", "merge"}

    command = ["finetune-server", "serve", "--run", "/finetune/config/run.json"]
    with images["server"].running(*command, folder=tmp_path, mounts=mounts) as pod:
        pod.wait_until("finetune-server", "probe", "--run", "/finetune/config/run.json", seconds=240)
        answer = pod.execute("python", "-c", ASK)
    assert json.loads(answer.stdout)["choices"][0]["message"]["role"] == "assistant", answer.stderr


def tiny_job(inputs: Path) -> RunConfig:
    """A LoRA job of a few steps whose model and rows lie in the folder, as the containers see them."""
    inputs.mkdir()
    for file in identity_model(inputs / "base").iterdir():
        file.chmod(0o644)  # weights are saved for their owner alone
    shutil.copy(IDENTITY, inputs / "identity.json")
    return make_run(
        Path(JOB), Path("/inputs/base"), Path("/inputs/identity.json"), dataset={"format": "Alpaca"}, **LORA
    )


def canonical(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


def applies(requirement: Requirement) -> bool:
    # Extras are asked for by nobody but the package that names them, whose own list then has the requirement.
    return requirement.marker is None or requirement.marker.evaluate({**default_environment(), "extra": ""})


def search_path(image: Image) -> str:
    (path,) = [entry.removeprefix("PATH=") for entry in image.config["Env"] if entry.startswith("PATH=")]
    return ":".join(str(image.files / folder.lstrip("/")) for folder in path.split(":"))

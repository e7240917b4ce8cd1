"""Every image runs as a numeric, non-root user, without a shell, from locked packages, and on a base and an index that can be chosen."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
IMAGES = ["operator", "trainer", "merger", "server"]
WITH_TORCH = ["trainer", "merger", "server"]
BUILT_IN_ONLY = {"torch", "requirements", "wheels", "build"}


def text_of(image: str) -> str:
    """The Dockerfile, a line an instruction, without comments."""
    text = (ROOT / "images" / image / "Dockerfile").read_text()
    return re.sub(r"\\\n\s*", "", re.sub(r"(?m)^#.*\n", "", text))


def stages_of(image: str) -> dict[str, str]:
    """Text of each stage by name; the last one has none."""
    stages = re.split(r"(?m)^FROM ", text_of(image))[1:]
    return {re.sub(r".* AS |\$.*", "", stage.splitlines()[0]): stage for stage in stages}


def final_stages(image: str) -> list[str]:
    """The text of each stage that is not only built in."""
    return [stage for name, stage in stages_of(image).items() if name not in BUILT_IN_ONLY]


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_runs_as_a_numeric_user_that_is_not_root(image: str) -> None:
    # The kubelet can check runAsNonRoot only for a numeric user.
    for stage in final_stages(image):
        assert re.findall(r"(?m)^USER (.*)$", stage) == ["65532:65532"]


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_starts_its_command_without_a_shell(image: str) -> None:
    for stage in final_stages(image):
        assert re.findall(r"(?m)^ENTRYPOINT (.*)$", stage) == [f'["finetune-{image}"]']
        assert all(command.startswith('["') for command in re.findall(r"(?m)^CMD (.*)$", stage))


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_is_labelled(image: str) -> None:
    for stage in final_stages(image):
        labels = set(re.findall(r"org\.opencontainers\.image\.(\w+)=\"[^\"]+\"", stage))
        assert labels == {"title", "description", "version", "revision", "source"}


@pytest.mark.parametrize("image", IMAGES)
def test_the_base_of_an_image_can_be_chosen_and_has_a_version(image: str) -> None:
    text = text_of(image)
    bases = set(re.findall(r"(?m)^FROM (\S+)", text))
    assert bases <= {"${BASE_IMAGE}", "${VLLM_IMAGE}", "torch", "requirements"}
    defaults = re.findall(r"(?m)^ARG (?:BASE|VLLM)_IMAGE=(.*)$", text)
    assert defaults
    assert all(re.fullmatch(r"\S+/\S+:v?\d\S*", default) for default in defaults)


@pytest.mark.parametrize("image", IMAGES)
def test_everything_that_is_downloaded_is_locked_by_its_hash(image: str) -> None:
    installs = re.findall(r"pip (?:--python \S+ )?install [^&\n]*|pip install [^&\n]*", text_of(image))
    assert installs
    assert all("--no-deps" in command for command in installs)
    assert all(("--require-hashes" in command) != ("--no-index" in command) for command in installs)
    wheels = re.findall(r"pip wheel [^&\n]*", text_of(image))
    assert all("--no-deps --no-build-isolation" in command for command in wheels)


@pytest.mark.parametrize("image", IMAGES)
def test_nothing_is_fetched_past_the_locks_and_no_secret_is_an_argument(image: str) -> None:
    text = text_of(image)
    assert not re.search(r"(?m)^ADD |curl|wget|git clone", text)
    arguments = {argument.partition("=")[0] for argument in re.findall(r"(?m)^ARG (\S+)", text)}
    allowed = {"BASE_IMAGE", "VLLM_IMAGE", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "VARIANT", "VERSION", "REVISION"}
    assert arguments <= allowed | {"SOURCE"}
    # An argument is kept in the history of the stage that declares it, and the final stages are what is pushed.
    assert all("PIP_" not in stage for stage in final_stages(image))


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_leaves_no_list_of_packages_behind(image: str) -> None:
    for run in re.findall(r"(?m)^RUN .*apt-get.*$", text_of(image)):
        assert "--no-install-recommends" in run
        assert "rm -rf /var/lib/apt/lists/*" in run
        assert image == "trainer", "compilers are for the trainer, whose kernels are compiled where they run"


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_holds_its_bill_of_materials_and_compiled_modules(image: str) -> None:
    build = stages_of(image)["build"]
    assert re.search(r"cyclonedx-py environment .*/sbom\.cdx\.json ", build)
    # Nothing can be compiled at run time: the root file system cannot be written to.
    assert "compileall" in build
    assert "compileall" in stages_of(image)["requirements"]


@pytest.mark.parametrize("image", IMAGES)
def test_our_own_packages_are_the_last_and_smallest_layer(image: str) -> None:
    copies = re.findall(r"(?m)^COPY (.*) /opt/finetune$", stages_of(image)[""])
    assert copies[-1] == "--from=build /ours"
    assert "COPY operator" not in stages_of(image)["requirements"]


def test_trainer_merger_and_server_share_the_layer_with_pytorch() -> None:
    stages = [stages_of(image) for image in WITH_TORCH]
    assert len({stage["torch"] for stage in stages}) == 1
    assert {stage[""].splitlines()[1] for stage in stages} == {"COPY --from=torch /opt/finetune /opt/finetune"}


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_holds_only_its_own_package_and_the_api(image: str) -> None:
    copied = {word for line in re.findall(r"(?m)^COPY (?!--from)(.*) \S+$", text_of(image)) for word in line.split()}
    locks = {"requirements/build.txt", f"requirements/{image}.txt"}
    others = {"requirements/torch-${VARIANT}.txt", f"images/{image}"} if image in WITH_TORCH else set()
    assert copied == {"operator"} | locks | others

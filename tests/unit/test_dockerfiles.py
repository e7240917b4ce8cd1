"""Every image runs as a numeric, non-root user, without a shell, and is built from a base and an index that can be chosen."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
IMAGES = ["operator", "trainer", "merger", "server"]


def final_stages(image: str) -> list[str]:
    """The text of each stage that is not only built in."""
    text = (ROOT / "images" / image / "Dockerfile").read_text()
    stages = re.split(r"(?m)^FROM ", text)[1:]
    return [stage for stage in stages if not stage.splitlines()[0].endswith(" AS build")]


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
def test_an_image_is_labelled_and_its_base_can_be_chosen(image: str) -> None:
    text = (ROOT / "images" / image / "Dockerfile").read_text()
    assert all(
        line.startswith(("FROM ${BASE_IMAGE}", "FROM ${VLLM_IMAGE}")) for line in re.findall(r"(?m)^FROM .*", text)
    )
    assert all("org.opencontainers.image.title" in stage for stage in final_stages(image))


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_holds_only_its_own_package_and_the_api(image: str) -> None:
    text = (ROOT / "images" / image / "Dockerfile").read_text()
    copied = set(re.findall(r"(?m)^COPY (?!--from)(\S+)", text))
    own = set() if image == "operator" else {f"images/{image}"}
    assert copied == {"requirements/dev.txt", "operator", *own}

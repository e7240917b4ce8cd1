"""The files that are generated into the chart and beside it say what their sources say. `make manifests` renews them."""

from pathlib import Path

import pytest
import yaml
from pydantic import TypeAdapter

from chart import CHART, ROOT, rendered_text
from finetune_operator import chart_schema
from finetune_operator.api.crd import HEADER, custom_resource_definition
from finetune_operator.chart_values import Values

DEPLOY = ROOT / "deploy" / "operator.yaml"


@pytest.mark.parametrize("path", chart_schema.generated(CHART), ids=lambda path: path.name)
def test_a_generated_file_is_up_to_date(path: Path) -> None:
    assert path.read_text() == chart_schema.generated(CHART)[path], f"{path} is out of date; run `make manifests`"


@pytest.mark.parametrize("folder", [ROOT / "crds", CHART / "files" / "crds"], ids=["crds", "chart"])
def test_the_definition_is_up_to_date_wherever_it_is_kept(folder: Path) -> None:
    text = (folder / "finetunejobs.yaml").read_text()
    assert text.startswith(HEADER)
    assert yaml.safe_load(text) == custom_resource_definition()


def test_the_manifests_for_kubectl_are_the_chart_with_its_defaults() -> None:
    header, _, rendered = DEPLOY.read_text().partition("\n")
    assert header.startswith("#")
    assert rendered == rendered_text("--skip-tests", "--set", "crds.install=false"), (
        f"{DEPLOY} is out of date; run `make manifests`"
    )


def test_values_yaml_holds_every_value_at_its_default() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert values == TypeAdapter(Values).dump_python(Values(), mode="json", by_alias=True)


def test_a_readme_without_markers_is_refused_with_the_line_that_is_missing() -> None:
    with pytest.raises(ValueError, match="values: end"):
        chart_schema.with_table(f"# Chart\n{chart_schema.TABLE_BEGIN}\n")


def test_chart_and_project_have_the_same_version() -> None:
    project = (ROOT / "operator" / "pyproject.toml").read_text()
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    assert f'\nversion = "{version}"\n' in project
    images = Values().settings.images
    assert [i.rpartition(":")[2] for i in (images.trainer, images.merger, images.server)] == [version] * 3

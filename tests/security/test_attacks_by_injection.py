"""T7, T9: text that is more than text in every string field of the API. The list of fields is read from the CRD.

Every field either refuses the text (layer: schema), or hands it on as one string of run.json and of what the Kubernetes
API takes as data: no command, no variable, no right of a pod changes (layer: build).
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from kubernetes import client
from pydantic import ValidationError

from api_refusals import refusal
from every_child import SETTINGS, children
from finetune_operator.api.spec import FineTuneJobSpec
from finetune_operator.build.config_map import run_config
from manifest_builders import a_job
from schema_fields import Field, fields, sample, text_fields

FIELDS = text_fields()
URL_FIELDS = [field for field in FIELDS if field.path in ("tracking.wandb.baseUrl", "tracking.mlflow.trackingUri")]
SOURCES = [field for field in FIELDS if field.path.endswith(".source")]
ENUMS = [field for field in fields() if "enum" in field.schema]
INJECTIONS = {
    "commands of a shell": "$(touch /tmp/pwned) `id`; rm -rf / #",
    "an option": "--trust-remote-code",
    "a line of YAML": "x\n  hostNetwork: true\n",
    "a tag of YAML": '!!python/object/apply:os.system ["id"]',
    "the end of a JSON text": '"}},"spec":{"hostNetwork":true,"x":{"',
    "a template": "{{ .Values.settings }}{% for x in y %}",
    "a header": "x\r\nX-Injected: yes",
    "a climbing path": "../../../etc/passwd",
    "a NUL": "x\u0000y",
    "an address of the metadata service": "http://169.254.169.254/latest/meta-data",
}
METADATA = (
    *("http://169.254.169.254/latest/meta-data", "http://169.254.169.254:80", "https://169.254.170.2/v2/credentials"),
    *("http://2852039166/", "http://0xa9fea9fe/", "http://0251.0376.0251.0376/", "http://169.254.43518/"),
    *("http://169.254.169.254.", "http://169.254.169%2E254/", "http://[::ffff:169.254.169.254]/", "http://[::1]/"),
    *("http://metadata.google.internal/computeMetadata/v1", "http://METADATA.google.internal", "http://metadata/"),
    *("http://100.100.100.200/latest", "http://168.63.129.16/", "http://user@169.254.169.254/"),
    *("http://good.example@169.254.169.254/", "file:///etc/shadow", "gopher://169.254.169.254:6379/_FLUSHALL"),
    *("http://good.example#@169.254.169.254/", "http://good.example\\@169.254.169.254/"),
)


def test_every_string_field_of_the_schema_is_attacked() -> None:
    assert len(FIELDS) > 100
    assert {"model.source", "datasets.[].placeholders.{key}", "deepspeed.config"} <= {field.path for field in FIELDS}
    assert {field.path for field in FIELDS if "://" in field.schema.get("pattern", "")} == {
        *(field.path for field in URL_FIELDS + SOURCES),
        "merge.push.target",
    }


@pytest.mark.threat("T7")
@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.path)
def test_text_stays_text(jobs_api: client.CustomObjectsApi, field: Field) -> None:
    harmless = refusal(jobs_api, field.manifest(sample(field.schema)))
    assert harmless == "", "the manifest without an attack has to be accepted"
    for what, text in INJECTIONS.items():
        manifest = field.manifest(text)
        if not refusal(jobs_api, manifest):
            assert _is_data_only(manifest["spec"], text), what


def _is_data_only(spec: dict[str, Any], text: str) -> bool:
    try:
        parsed = FineTuneJobSpec.model_validate(spec)
    except ValidationError:
        return True  # the operator says InvalidSpec and builds nothing
    job = a_job().with_spec(**spec).job()
    written = json.loads(run_config(job, SETTINGS).dump())["spec"]
    assert FineTuneJobSpec.model_validate(written) == parsed, "run.json does not hold what the job says"
    plain = a_job().with_spec(**_without(spec, text)).job()
    return [_powers(child) for child in children(job)] == [_powers(child) for child in children(plain)]


def _without(node: Any, text: str) -> Any:
    """The same spec with harmless words in the place of the attack."""
    if isinstance(node, dict):
        return {("text" if key == text else key): _without(value, text) for key, value in node.items()}
    if isinstance(node, list):
        return [_without(item, text) for item in node]
    return "text" if node == text else node


def _powers(child: dict[str, Any]) -> Any:
    """What a pod may do and what it runs; for other kinds, their kind and name."""
    if child["kind"] not in ("Job", "Deployment"):
        return child["kind"], child["metadata"]["name"]
    pod = child["spec"]["template"]["spec"]
    names = (
        "serviceAccountName",
        "automountServiceAccountToken",
        "securityContext",
        "hostNetwork",
        "hostPID",
        "hostIPC",
    )
    container = {key: value for key, value in pod["containers"][0].items() if key != "resources"}
    sources = [sorted(volume) for volume in pod["volumes"]]
    return {name: pod.get(name) for name in names}, container, sources, sorted(pod)


@pytest.mark.threat("T7")
@pytest.mark.parametrize("field", ENUMS, ids=lambda field: field.path)
def test_a_word_that_is_not_listed_is_refused(jobs_api: client.CustomObjectsApi, field: Field) -> None:
    assert field.steps[-1].strip("[]{}") in refusal(jobs_api, field.manifest("$(id)"))


@pytest.mark.threat("T9")
@pytest.mark.parametrize("url", METADATA)
def test_no_url_of_a_job_names_a_metadata_service(jobs_api: client.CustomObjectsApi, url: str) -> None:
    for field in URL_FIELDS:
        assert field.path in refusal(jobs_api, field.manifest(url)), "layer: schema and CEL"


@pytest.mark.threat("T9")
@pytest.mark.parametrize(
    "image", ["169.254.169.254/models", "2852039166/x:1", "metadata.google.internal/x", "0xa9.254/x"]
)
def test_no_image_of_a_job_is_pulled_from_a_metadata_service(jobs_api: client.CustomObjectsApi, image: str) -> None:
    for field in SOURCES:
        assert "link-local" in refusal(jobs_api, field.manifest(f"oci://{image}")), "layer: CEL"


@pytest.mark.threat("T9")
@pytest.mark.parametrize(
    "url", ["http://tracker.ml.svc:5000", "https://10.0.0.7/api", "http://127.0.0.1:8080", "https://w.example/a"]
)
def test_a_tracker_of_ones_own_can_be_named(jobs_api: client.CustomObjectsApi, url: str) -> None:
    for field in URL_FIELDS:
        assert refusal(jobs_api, field.manifest(url)) == ""


@pytest.mark.threat("T9")
@pytest.mark.parametrize(
    "source",
    [
        "https://169.254.169.254/x",
        "http://10.0.0.1/x",
        "ftp://h/x",
        "FILE:///etc/passwd",
        "hf://h:80@169.254.169.254/x",
    ],
)
def test_no_source_is_a_url(jobs_api: client.CustomObjectsApi, source: str) -> None:
    for field in SOURCES:
        assert "source" in refusal(jobs_api, field.manifest(source)), "layer: schema"


@pytest.mark.threat("T9")
def test_where_hubs_and_stores_are_is_the_administrators_to_say() -> None:
    endpoints = [field.path for field in fields() if any("endpoint" in step.lower() for step in field.steps)]
    assert endpoints == [], "layer: schema"

"""Mirrors whose certificates are signed by an authority of the platform's own: trusted by the variables that pods are given."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

from finetune_operator.api.outcome import ExitCode
from finetune_operator.api.run import Hub, RunConfig
from finetune_operator.build import certificates
from finetune_operator.settings import Settings
from finetune_operator.shell.certificate import make
from loopback_hub import serving
from loopback_modelscope import serving_modelscope
from loopback_s3 import serving_s3
from trainer_process import run_stages
from trainer_runs import chat, identity_model, make_run, write_lines

TRUSTING = certificates.environment(Settings.model_validate({"certificates": {"configMap": "authorities"}}))
CERTIFICATE = make(["localhost"], dt.datetime.now(dt.UTC))
TLS = CERTIFICATE.context()
NOBODYS = {"AWS_EC2_METADATA_DISABLED": "true", "AWS_SHARED_CREDENTIALS_FILE": "/none", "AWS_CONFIG_FILE": "/none"}


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shelf")
    identity_model(folder / "models" / "org" / "tiny")
    return folder


@contextmanager
def bucket(shelf: Path) -> Iterator[ThreadingHTTPServer]:
    with serving_s3() as store:
        store.put_folder("lake", "tiny", shelf / "models" / "org" / "tiny")
        yield store


Server = Callable[[Path], AbstractContextManager[ThreadingHTTPServer]]
SERVERS: dict[str, tuple[str, Server]] = {
    "hf": ("hugging_face_endpoint", serving),
    "ms": ("model_scope_endpoint", serving_modelscope),
    "s3": ("s3_endpoint", bucket),
}


def prepared(scheme: str, shelf: Path, folder: Path, environment: dict[str, str]) -> tuple[int, str]:
    """Exit code and output of prepare, with a model from a server that speaks TLS."""
    endpoint, serve = SERVERS[scheme]
    data = write_lines(folder / "rows.jsonl", [chat("a", "b")])
    with serve(shelf) as server:
        # The handshake is left to the thread of the connection
        server.socket = TLS.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        source = f"{scheme}://{'lake' if scheme == 's3' else 'org'}/tiny"
        run = make_run(folder / "job", folder, data, model={"source": source})
        hub = Hub(**{endpoint: f"https://localhost:{server.server_address[1]}"})
        ended = run_stages(with_hub(run, hub), "prepare", **environment)
    return ended.code, ended.output


def with_hub(run: RunConfig, hub: Hub) -> RunConfig:
    return run.model_copy(update={"hub": hub})


@pytest.mark.parametrize("scheme", SERVERS)
def test_a_mirror_is_trusted_by_the_authorities_that_the_platform_names(
    scheme: str, shelf: Path, tmp_path: Path
) -> None:
    bundle = tmp_path / "ca-bundle.crt"
    bundle.write_bytes(CERTIFICATE.authority)
    code, output = prepared(scheme, shelf, tmp_path, NOBODYS | {entry["name"]: str(bundle) for entry in TRUSTING})
    assert code == 0, output


def test_a_mirror_of_an_unknown_authority_is_refused_and_the_certificate_named(shelf: Path, tmp_path: Path) -> None:
    code, output = prepared("hf", shelf, tmp_path, NOBODYS)
    assert code == ExitCode.SOURCE_UNREACHABLE
    assert "certificate" in output.lower()

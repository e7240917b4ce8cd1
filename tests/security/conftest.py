"""One control plane without a node, and one operator in it, for every attack that needs them."""

import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from kubernetes import client, config

from attack_payload import Payload
from finetune_devcluster import Cluster
from job_space import Space
from operator_process import OperatorProcess
from schema_fields import CRD
from support_wait import eventually


@pytest.fixture(scope="session")
def control_plane(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A control plane that serves FineTuneJobs."""
    own = Cluster(f"security-{uuid.uuid4().hex[:6]}", tmp_path_factory.mktemp("security"), node=False)
    try:
        own.up()
        ran(own.kubectl("apply", "--server-side", "-f", str(CRD)))
        eventually(lambda: own.kubectl("get", "finetunejobs").returncode == 0, message="FineTuneJobs are served")
        yield own
    finally:
        own.down(keep_state=request.session.testsfailed > 0)


@pytest.fixture(scope="session")
def jobs_api(control_plane: Cluster) -> client.CustomObjectsApi:
    """FineTuneJobs as the cluster's administrator sees them, without the start of a kubectl for every request."""
    return client.CustomObjectsApi(config.new_client_from_config(str(control_plane.kubeconfig)))


@pytest.fixture(scope="session")
def operator(control_plane: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OperatorProcess]:
    """An operator with a short resync, which no attack may end."""
    made = OperatorProcess(control_plane, tmp_path_factory.mktemp("operator"), resyncSeconds=5, retryDelaySeconds=0)
    made.grant_rights()
    made.start()
    try:
        yield made
        assert made.is_running(), f"an attack ended the operator; see {made.log}"
    finally:
        if made.is_running():
            made.kill()


@pytest.fixture(scope="session")
def team(control_plane: Cluster, operator: OperatorProcess) -> Space:
    """The attacked tenant's namespace, which admits pods of the restricted standard only."""
    return tenant(control_plane, "team-a")


@pytest.fixture(scope="session")
def neighbour(control_plane: Cluster, operator: OperatorProcess) -> Space:
    """Another tenant's namespace."""
    return tenant(control_plane, "team-b")


@pytest.fixture(scope="session")
def crowd(control_plane: Cluster, operator: OperatorProcess) -> Space:
    """A third tenant's namespace, for quotas."""
    return tenant(control_plane, "team-c")


def tenant(cluster: Cluster, name: str) -> Space:
    made = Space(cluster, name)
    ran(cluster.kubectl("create", "namespace", name))
    ran(cluster.kubectl("label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted"))
    eventually(lambda: made.exists("serviceaccount", "default"), message="its default service account")
    return made


def ran(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model without a fault."""
    # torch takes seconds to import, and the attacks on the cluster do without it
    from tiny_models import save_base

    folder = tmp_path_factory.mktemp("model") / "base"
    save_base(folder)
    return folder


@pytest.fixture
def payload(tmp_path: Path) -> Payload:
    return Payload(tmp_path)

"""Real clusters for the tests; nothing of them is left when the tests have ended."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from finetune_devcluster import Cluster
from support_wait import eventually

CRD = Path(__file__).parents[2] / "crds" / "finetunejobs.yaml"


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One cluster with a node for all tests; after a failure its logs stay in pytest's temporary folder."""
    shared = Cluster(f"test-{os.getpid()}", tmp_path_factory.mktemp("devcluster"), gpus=1)
    try:
        yield shared.up()
    finally:
        shared.down(keep_state=request.session.testsfailed > 0)


@pytest.fixture(scope="session")
def cluster_with_crd(cluster: Cluster) -> Cluster:
    """The cluster once it serves FineTuneJobs."""
    applied = cluster.kubectl("apply", "--server-side", "-f", str(CRD))
    assert applied.returncode == 0, applied.stderr
    # The first list after a definition may be refused while its storage is set up.
    eventually(lambda: cluster.kubectl("get", "finetunejobs").returncode == 0, message="kubectl get finetunejobs")
    return cluster

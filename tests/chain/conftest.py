"""A cluster with the operator installed by its chart, and a tiny model on a claim."""

import os
from collections.abc import Iterator

import pytest

from finetune_devcluster import Cluster, operator_chart
from finetune_devcluster.layout import project_root
from job_driver import Driver
from support_wait import eventually


@pytest.fixture(scope="session")
def driver() -> Iterator[Driver]:
    with Cluster(f"chain-{os.getpid()}", gpus=2) as cluster:
        operator_chart.install(cluster, "--set", "settings.resyncSeconds=5")
        driver = Driver(cluster)
        driver.kubectl("apply", "-k", str(project_root() / "examples/data"))
        driver.kubectl("apply", "-f", str(project_root() / "examples/demo/tiny-model.yaml"))
        eventually(lambda: _made(driver), 300, "the tiny model is made")
        yield driver


def _made(driver: Driver) -> bool:
    return bool(driver.batch.read_namespaced_job("make-tiny-model", driver.namespace).status.succeeded)

"""`down` after an `up` that was killed at any moment leaves the machine as it was. Runs first: there is one kubelet a machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from finetune_devcluster import Cluster
from finetune_devcluster.components import CONTAINERD, DEVICE_PLUGIN
from machine_traces import traces
from support_wait import eventually

pytestmark = pytest.mark.skipif(bool(os.environ.get("E2E_CONTEXT")), reason="the cluster is not ours to take down")


@pytest.mark.parametrize("started", [CONTAINERD, DEVICE_PLUGIN])
def test_down_takes_back_all_of_an_up_that_was_killed(started: str) -> None:
    cluster = Cluster(f"e2e-down-{os.getpid()}", kubelet=True, gpus=1)
    before = traces(cluster.layout)
    program = Path(sys.executable).with_name("devcluster")
    up = subprocess.Popen([program, "up", "--name", cluster.layout.name, "--kubelet", "--gpus", "1"])
    try:
        eventually(cluster.layout.pid_file(started).exists, 180, f"{started} is started")
    finally:
        up.kill()
        up.wait()
        cluster.down()
    assert traces(cluster.layout) == before

"""A fused model in several processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

SUPPORT = Path(__file__).parents[1] / "support"


def test_two_processes_compute_with_the_same_weights_and_share_their_gradients(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command += [str(SUPPORT / "fused_rank.py"), str(tmp_path / "found")]
    paths = os.pathsep.join([str(SUPPORT), *sys.path])
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    first, second = (json.loads((tmp_path / f"found-{rank}").read_text()) for rank in (0, 1))
    assert first == second
    assert first["products"] == 8
    assert any(first["gradients"])

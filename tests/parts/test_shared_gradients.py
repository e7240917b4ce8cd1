"""Processes that each update a part of the weights make of them what one process makes of the mean of all gradients."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from finetune_trainer.train.shared_gradients import owners
from finetune_trainer.train.split_adamw import SplitAdamW
from shared_rank import CLIPPED_AT, CONSTANTS, SHAPES, STEPS, some_gradients, some_parameters

SUPPORT = Path(__file__).parents[1] / "support"


@pytest.fixture(scope="module", params=[2, 3])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of several processes has in the end."""
    folder, count = tmp_path_factory.mktemp("shared"), request.param
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(count)]
    command += [str(SUPPORT / "shared_rank.py"), str(folder / "found")]
    paths = os.pathsep.join([str(SUPPORT), *sys.path])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [torch.load(folder / f"found-{rank}") for rank in range(count)]


def sent(passes: list[list[Tensor]]) -> list[Tensor]:
    """What a process sends of its passes' gradients: their sum, rounded once."""
    sums = [torch.stack([each.float() for each in of_one]).sum(0) for of_one in zip(*passes, strict=True)]
    return [each.bfloat16() for each in sums]


def alone(processes: int) -> tuple[list[Tensor], dict[int, Any], list[float]]:
    """Weights, state and gradient lengths of one process that is given the mean."""
    parameters, lengths = some_parameters(), []
    optimizer = SplitAdamW(parameters, **CONSTANTS)
    for step in range(STEPS):
        of_all = [sent(some_gradients(step, rank)) for rank in range(processes)]
        for parameter, gradients in zip(parameters, zip(*of_all, strict=True), strict=True):
            optimizer.gradients._sums[parameter] = sum(each.float() for each in gradients) / processes
        lengths.append(float(optimizer.clip(CLIPPED_AT)))
        optimizer.step()
    return [each.detach() for each in parameters], optimizer.state_dict()["state"], lengths


def test_all_processes_end_with_the_weights_of_one_that_saw_all_gradients(trained: list[dict[str, Any]]) -> None:
    weights, _, lengths = alone(len(trained))
    for found in trained:
        assert found["lengths"] == pytest.approx(lengths, rel=1e-6)
        for one, other in zip(found["weights"], weights, strict=True):
            # The gradients' length, by which they are scaled, is added up in another order.
            torch.testing.assert_close(one, other, rtol=2**-8, atol=0)
    for found in trained[1:]:
        assert all(map(torch.equal, found["weights"], trained[0]["weights"]))


def test_each_moment_and_remainder_is_kept_by_one_process(trained: list[dict[str, Any]]) -> None:
    _, state, _ = alone(len(trained))
    kept = [found["remainders"] for found in trained]
    assert sorted(number for part in kept for number in part) == list(range(len(SHAPES)))
    assert all(part for part in kept)
    for part in kept:
        for number, found in part.items():
            torch.testing.assert_close(found["exp_avg"], state[number]["exp_avg"], rtol=1e-5, atol=1e-7)
            assert found["step"] == STEPS


def test_tensors_are_dealt_so_that_all_processes_have_about_the_same() -> None:
    assert owners([1, 8, 3, 5, 2], 2) == [1, 0, 1, 1, 0]
    assert owners([5, 5], 3) == [0, 1]
    assert owners([], 2) == []

"""The rows of a step, dealt to several processes: those that the Trainer takes when it is handed them batch by batch."""

import itertools
import math
from collections import Counter
from typing import Any

import pytest
from accelerate import Accelerator, skip_first_batches
from accelerate.data_loader import BatchSamplerShard, SeedableRandomSampler
from accelerate.utils import DataLoaderConfiguration
from torch.utils.data import BatchSampler, DataLoader, RandomSampler

from finetune_trainer.train.step_shares import StepShares, prepared_loader

CASES = list(itertools.product((1, 2, 3), (1, 2, 4), (2, 3, 4)))
"""Rows of a batch, batches of a share, processes."""
ROWS = range(1, 50)


def shares(rows: int, batch: int, batches: int, processes: int) -> list[list[list[int]]]:
    """Each process's shares, step by step."""
    dealt = [
        StepShares(range(rows), batch=batch, batches=batches, processes=processes, process=process)
        for process in range(processes)
    ]
    made = [list(each) for each in dealt]
    assert [len(each) for each in dealt] == [len(each) for each in made]
    return made


def trainers_steps(rows: int, batch: int, batches: int, processes: int) -> list[Counter[int]]:
    """Rows of each step of the Trainer, which takes ``batches`` batches of every process, and at the end what is left."""
    sampler = BatchSampler(range(rows), batch, drop_last=False)
    taken = [list(BatchSamplerShard(sampler, processes, process)) for process in range(processes)]
    return [
        Counter(row for process in taken for each in process[begin : begin + batches] for row in each)
        for begin in range(0, len(taken[0]), batches)
    ]


@pytest.mark.parametrize(("batch", "batches", "processes"), CASES)
def test_every_step_has_the_rows_that_it_has_batch_by_batch(batch: int, batches: int, processes: int) -> None:
    for rows in ROWS:
        made = shares(rows, batch, batches, processes)
        steps = [Counter(row for share in step for row in share) for step in zip(*made, strict=True)]
        assert steps == trainers_steps(rows, batch, batches, processes), rows
        assert len(steps) == math.ceil(math.ceil(rows / (batch * processes)) / batches), rows


@pytest.mark.parametrize(("batch", "batches", "processes"), CASES)
def test_shares_are_equal_and_an_epoch_repeats_less_than_a_batch_a_process(
    batch: int, batches: int, processes: int
) -> None:
    for rows in ROWS:
        made = shares(rows, batch, batches, processes)
        assert all(len({len(share) for share in step}) == 1 for step in zip(*made, strict=True)), rows
        taken = Counter(row for process in made for share in process for row in share)
        assert set(taken) == set(range(rows)), rows
        assert taken.total() - rows < batch * processes, rows


def test_the_last_step_of_an_epoch_is_filled_up_with_its_first_rows() -> None:
    first, second = shares(rows=11, batch=1, batches=4, processes=2)
    assert first == [[0, 2, 4, 6], [8, 10]]
    assert second == [[1, 3, 5, 7], [9, 0]]


def loader(process: int) -> Any:
    sampler = StepShares(RandomSampler(range(20)), batch=1, batches=3, processes=2, process=process)
    options = DataLoaderConfiguration(use_seedable_sampler=True, data_seed=5)
    accelerator = Accelerator(cpu=True, dataloader_config=options)
    return prepared_loader(DataLoader(range(20), batch_sampler=sampler, collate_fn=list), accelerator)


def test_processes_shuffle_alike_and_each_epoch_anew() -> None:
    both = [loader(process) for process in (0, 1)]
    epochs = []
    for epoch in (0, 1):
        for each in both:
            each.set_epoch(epoch)
        epochs.append([row for step in zip(*both, strict=True) for share in step for row in share])
    assert all(sorted(rows) == list(range(20)) for rows in epochs)
    assert epochs[0] != epochs[1]
    expected = SeedableRandomSampler(range(20), data_seed=5)
    assert sorted(epochs[0][:6]) == sorted(itertools.islice(expected, 6))


def test_an_epoch_gone_on_with_has_the_rows_that_are_left() -> None:
    whole = loader(1)
    whole.set_epoch(2)
    rest = skip_first_batches(loader(1), 2)
    rest.set_epoch(2)
    assert list(rest) == list(whole)[2:]
    assert len(rest) == len(whole) - 2

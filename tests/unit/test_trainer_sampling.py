"""Rows by length: close lengths share a batch, and a resumed epoch has the order that it began with."""

from finetune_trainer.train.sampling import ByLength

LENGTHS = [(37 * index) % 101 for index in range(96)]


def order(seed: int, epoch: int) -> list[int]:
    sampler = ByLength(LENGTHS, batch_size=8, seed=seed)
    sampler.set_epoch(epoch)
    return list(sampler)


def test_every_row_comes_once_and_rows_of_a_batch_are_of_about_one_length() -> None:
    taken = order(seed=1, epoch=0)
    assert sorted(taken) == list(range(len(LENGTHS)))
    batches = [[LENGTHS[index] for index in taken[begin : begin + 8]] for begin in range(0, len(taken), 8)]
    spread = sorted(max(batch) - min(batch) for batch in batches)
    assert spread[len(spread) // 2] < 40 < max(LENGTHS) - min(LENGTHS)


def test_an_epochs_order_depends_on_seed_and_epoch_alone() -> None:
    assert order(seed=1, epoch=2) == order(seed=1, epoch=2)
    assert len({tuple(order(seed, epoch)) for seed in (1, 7) for epoch in (0, 1)}) == 4

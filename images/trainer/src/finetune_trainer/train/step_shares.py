"""Which rows of an optimizer step each of several processes computes."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from accelerate import Accelerator  # type: ignore[import-untyped]
from accelerate.data_loader import BatchSamplerShard, prepare_data_loader  # type: ignore[import-untyped]
from torch.utils.data import BatchSampler, DataLoader, Sampler


class StepShares(BatchSampler):
    """One process's rows of each optimizer step: what the Trainer would hand it in several batches, as one.

    accelerate deals the batches, so that a step has the rows that it has without this, those at the end of an epoch too.
    Batches as long as a share, dealt one a process, would repeat up to a whole step of rows there.
    """

    def __init__(self, sampler: Sampler[int], *, batch: int, batches: int, processes: int, process: int) -> None:
        """``batch`` rows are dealt at a time; ``batches`` of them are a share."""
        # accelerate puts a sampler of its own, which draws from the epoch's seed, into ``self.sampler``.
        super().__init__(sampler, batch * batches, drop_last=False)
        self._batch = batch
        self._batches = batches
        self._processes = processes
        self._process = process

    def __len__(self) -> int:
        """Optimizer steps of an epoch, the same number in every process."""
        return -(-len(self._dealt()) // self._batches)

    def __iter__(self) -> Iterator[list[int]]:
        dealt = iter(self._dealt())
        while share := list(islice(dealt, self._batches)):
            yield [row for batch in share for row in batch]

    def _dealt(self) -> Any:
        rows = BatchSampler(self.sampler, self._batch, drop_last=False)
        return BatchSamplerShard(rows, self._processes, self._process)


def prepared_loader(loader: DataLoader[Any], accelerator: Accelerator) -> Any:
    """A loader of shares, made ready as the Trainer has accelerate make its own ready."""
    # Told of one process, as the shares are dealt already.
    return prepare_data_loader(
        loader,
        num_processes=1,
        process_index=0,
        use_seedable_sampler=accelerator.use_seedable_sampler,
        data_seed=accelerator.dataloader_config.data_seed,
    )

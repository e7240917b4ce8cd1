"""Code that came with a model is ended, and nothing else is."""

import resource

import pytest

from finetune_operator.api.bounded import LimitReached, bounded


def loop() -> None:
    while True:
        pass


def test_computing_without_end_is_ended() -> None:
    with pytest.raises(LimitReached, match=r"more than 0\.2 s"), bounded(0.2):
        loop()


def test_memory_without_end_is_ended() -> None:
    with pytest.raises(LimitReached, match="512 MiB"), bounded():
        bytearray(1 << 40)


@pytest.mark.parametrize("of_memory", [True, False])
def test_the_limit_on_memory_holds_in_the_block_alone_and_only_where_no_other_thread_works(of_memory: bool) -> None:
    before = resource.getrlimit(resource.RLIMIT_AS)
    with bounded(of_memory=of_memory):
        assert (resource.getrlimit(resource.RLIMIT_AS) != before) == of_memory
    assert resource.getrlimit(resource.RLIMIT_AS) == before

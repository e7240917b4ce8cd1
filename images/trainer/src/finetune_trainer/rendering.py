"""A tokenised conversation as text for people: special tokens visible, what is learnt told apart."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from finetune_trainer.sequences import IGNORED

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

GREEN, PLAIN = "\x1b[32m", "\x1b[0m"
OPEN, CLOSE = "«", "»"


def render(
    tokenizer: PreTrainedTokenizerBase, input_ids: Sequence[int], labels: Sequence[int], *, coloured: bool
) -> tuple[str, int]:
    """The text, and how many of its tokens are learnt. What is learnt is green, or stands between « and »."""
    before, after = (GREEN, PLAIN) if coloured else (OPEN, CLOSE)
    pieces: list[str] = []
    begin = ""
    for is_learnt, end in _spans(labels):
        # Decoded from the start every time: some tokenizers leave out the space that a piece begins with.
        whole = tokenizer.decode(input_ids[:end], skip_special_tokens=False, clean_up_tokenization_spaces=False)
        piece = _visible(whole[len(begin) :])
        pieces.append(f"{before}{piece}{after}" if is_learnt else piece)
        begin = whole
    return "".join(pieces), sum(label != IGNORED for label in labels)


def _spans(labels: Sequence[int]) -> Iterator[tuple[bool, int]]:
    """(whether it is learnt, end) of every run of tokens."""
    end = 0
    for is_learnt, run in groupby(labels, key=lambda label: label != IGNORED):
        end += len(list(run))
        yield is_learnt, end


def _visible(text: str) -> str:
    """Rows come from anywhere: what they hold must not steer the terminal."""
    return "".join(
        character if character in "\n\t" or unicodedata.category(character) != "Cc" else ascii(character)[1:-1]
        for character in text
    )

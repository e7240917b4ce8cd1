"""Token ids of texts by themselves, without what a tokenizer puts around a whole one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from finetune_trainer.prepare.seen_pieces import SeenPieces

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def leave_whole(tokenizer: PreTrainedTokenizerBase) -> None:
    """Have no text cut nor padded, whatever tokenizer.json says: transformers sets it at every call of its own."""
    tokenizer([""], add_special_tokens=False)


class TextTokens:
    """A tokenizer's ids."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        leave_whole(tokenizer)
        self._tokenizer = tokenizer
        self._seen = SeenPieces.of(tokenizer.backend_tokenizer) if tokenizer.is_fast else None

    def ids(self, texts: list[str]) -> list[list[int]]:
        """The ids of each text."""
        if self._seen is None:
            return self._asked(texts)
        found = {text: ids for text in texts if (ids := self._seen.ids(text)) is not None}
        others = [text for text in texts if text not in found]
        found |= zip(others, self._asked(others), strict=True)
        return [found[text] for text in texts]

    def _asked(self, texts: list[str]) -> list[list[int]]:
        if not self._tokenizer.is_fast:
            return [list(ids) for ids in self._tokenizer(texts, add_special_tokens=False)["input_ids"]] if texts else []
        # transformers' own call takes half as long again, for attention masks and the like.
        return [each.ids for each in self._tokenizer.backend_tokenizer.encode_batch(texts, add_special_tokens=False)]

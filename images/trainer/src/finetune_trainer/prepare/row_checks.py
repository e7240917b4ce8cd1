"""What can be wrong, or suspicious, with a row that is well formed."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from finetune_trainer.prepare.conversation import Conversation, Role, RowError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def refuse_empty_answers(conversation: Conversation) -> None:
    """Raise RowError where an answer has no text: the model would learn to say nothing."""
    for number, turn in enumerate(turn for turn in conversation.turns if turn.role is Role.ASSISTANT):
        if not turn.content.strip():
            raise RowError(
                f"answer {number + 1} of the assistant is empty or blank, expected text; write it, or remove the row"
            )


class SpecialTokens:
    """Finds the tokenizer's special tokens in the text of a conversation, where they act as what they are."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        added = (str(token) for token in tokenizer.added_tokens_decoder.values() if token.special)
        words = sorted({*map(str, tokenizer.all_special_tokens), *added} - {""}, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, words))) if words else None

    def found_in(self, conversation: Conversation) -> str | None:
        """The first one, or None."""
        if self._pattern is None:
            return None
        texts = [conversation.system or "", *(turn.content for turn in conversation.turns)]
        return next((found[0] for text in texts if (found := self._pattern.search(text))), None)

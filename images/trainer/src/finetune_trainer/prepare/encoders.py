"""From conversations to token ids, a (prompt, answer) pair a turn: by a named template, or by the model's own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from finetune_trainer.prepare.conversation import Conversation, Role, RowError
from finetune_trainer.prepare.tokenizer import special_tokens
from finetune_trainer.templates import CONTENT, Piece, Slot, Template

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

EncodedTurn = tuple[list[int], list[int]]
"""Ids of a prompt (with what stands before it) and of the answer with its terminator."""


class Encoder(Protocol):
    """Turns conversations into ids, many at a time, because tokenizers work on batches in parallel."""

    def encode(self, conversations: Sequence[Conversation]) -> list[list[EncodedTurn] | RowError]:
        """One list of turns a conversation, or why the template refuses it."""


class TemplateEncoder:
    """Encodes by a named template: every piece tokenised on its own, as LLaMA-Factory does."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, template: Template) -> None:
        self._tokenizer = tokenizer
        self._template = template
        self._special = special_tokens(tokenizer)

    def encode(self, conversations: Sequence[Conversation]) -> list[list[EncodedTurn] | RowError]:
        """Encode a batch; a named template refuses no conversation."""
        spelled = [
            [self._spell(conversation, index) for index in range(len(conversation.turns))]
            for conversation in conversations
        ]
        texts = [text for turns in spelled for pieces in turns for text in pieces]
        ids = iter(self._tokenizer(texts, add_special_tokens=False)["input_ids"]) if texts else iter(())
        encoded: list[list[EncodedTurn] | RowError] = []
        for turns in spelled:
            messages = [[token for _ in pieces for token in next(ids)] for pieces in turns]
            encoded.append(list(zip(messages[::2], messages[1::2], strict=True)))
        return encoded

    def _spell(self, conversation: Conversation, index: int) -> list[str]:
        turn, template = conversation.turns[index], self._template
        pieces, content = self._opening(conversation) if index == 0 else ([], turn.content)
        if turn.role is Role.USER:
            return pieces + self._filled(template.user, content)
        thought = template.empty_thought(content)
        return pieces + ([thought] if thought else []) + self._filled(template.assistant, content)

    def _opening(self, conversation: Conversation) -> tuple[list[str], str]:
        """What stands before the first turn, and the text of that turn."""
        template, first = self._template, conversation.turns[0].content
        prefix = self._filled(template.prefix, "")
        prompt = conversation.system or template.default_system
        system = self._filled(template.system, prompt) if prompt else []
        if template.system_opens_user:
            return prefix, "".join([*system, first])
        return prefix + system, first

    def _filled(self, slot: Slot, content: str) -> list[str]:
        return [text for piece in slot if (text := self._text(piece, content))]

    def _text(self, piece: Piece, content: str) -> str:
        return piece.replace(CONTENT, content, 1) if isinstance(piece, str) else self._special.get(piece, "")


class UnstableTemplate(RowError):
    """The model's chat template spells earlier turns otherwise once more turns follow, so no span can be told apart."""


class ChatTemplateEncoder:
    """Encodes by the tokenizer's own chat template: ids equal those of the whole conversation rendered at once."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer

    def encode(self, conversations: Sequence[Conversation]) -> list[list[EncodedTurn] | RowError]:
        """Encode a batch."""
        spans = [self._spans(conversation) for conversation in conversations]
        texts = ["".join(found) for found in spans if not isinstance(found, RowError)]
        encoded = iter(self._tokens_with_starts(texts))
        return [found if isinstance(found, RowError) else _cut(found, next(encoded)) for found in spans]

    def _spans(self, conversation: Conversation) -> list[str] | RowError:
        """Text of prompt, answer, prompt, answer... whose concatenation is the whole rendering."""
        try:
            return list(self._rendered_spans(conversation.messages()))
        except RowError as error:
            return error
        # Templates refuse a conversation with jinja2.TemplateError, and fail on one in whatever way Python has.
        except Exception as error:
            return RowError(f"the model's chat template refuses it: {error}")

    def _rendered_spans(self, messages: list[dict[str, str]]) -> Iterator[str]:
        done = ""
        for index, message in enumerate(messages):
            if message["role"] != Role.ASSISTANT.value:
                continue
            prompt = self._render(messages[:index], generate=True)
            through = self._render(messages[: index + 1], generate=False)
            if not (prompt.startswith(done) and through.startswith(prompt)):
                raise UnstableTemplate(
                    "the model's chat template spells earlier turns otherwise once more turns follow"
                )
            yield prompt[len(done) :]
            yield through[len(prompt) :]
            done = through

    def _render(self, messages: list[dict[str, str]], *, generate: bool) -> str:
        return str(self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=generate))

    def _tokens_with_starts(self, texts: list[str]) -> list[tuple[list[int], list[int]]]:
        if not texts:
            return []
        encoded = self._tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True)
        starts = [[start for start, _ in offsets] for offsets in encoded["offset_mapping"]]
        return list(zip(encoded["input_ids"], starts, strict=True))


def _cut(spans: list[str], tokens: tuple[list[int], list[int]]) -> list[EncodedTurn]:
    """Hand each token to the span that it begins in."""
    ids, starts = tokens
    pieces: list[list[int]] = []
    position, border = 0, 0
    for span in spans:
        border += len(span)
        begin = position
        while position < len(ids) and starts[position] < border:
            position += 1
        pieces.append(ids[begin:position])
    return list(zip(pieces[::2], pieces[1::2], strict=True))

"""From conversations to token ids, a (prompt, answer) pair a turn: by a named template, or by the model's own."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

from finetune_trainer.chat_rendering import render_chat
from finetune_trainer.prepare.conversation import PROMPTS, Conversation, Role, RowError, Turn
from finetune_trainer.prepare.foreign_rows import NO_TOOLS
from finetune_trainer.prepare.text_tokens import TextTokens, leave_whole
from finetune_trainer.prepare.tokenizer import special_tokens
from finetune_trainer.prepare.tool_messages import chat_messages, tool_list
from finetune_trainer.templates import CONTENT, Piece, Slot, Template
from finetune_trainer.templates.tool_turns import ToolError, spell_call, spell_tools

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

EncodedTurn = tuple[list[int], list[int]]
"""Ids of a prompt (with what stands before it) and of the answer with its terminator."""
Message = dict[str, Any]


class Encoder(Protocol):
    """Turns conversations into ids, many at a time, because tokenizers work on batches in parallel."""

    def encode(self, conversations: Sequence[Conversation]) -> list[list[EncodedTurn] | RowError]:
        """One list of turns a conversation, or why the template refuses it."""


class TemplateEncoder:
    """Encodes by a named template: every piece tokenised on its own, as LLaMA-Factory does."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, template: Template, *, last_thought_only: bool = False
    ) -> None:
        """``last_thought_only`` takes the thoughts out of all answers but the last."""
        self._tokenizer = tokenizer
        self._template = template
        self._last_thought_only = last_thought_only
        self._special = special_tokens(tokenizer)
        self._today = datetime.now().astimezone().date()
        self._tokens = TextTokens(tokenizer)

    def encode(self, conversations: Sequence[Conversation]) -> list[list[EncodedTurn] | RowError]:
        """Encode a batch; a named template refuses no conversation but one whose tools it cannot spell."""
        spelled = [self._spell_all(conversation) for conversation in conversations]
        readable = [turns for turns in spelled if not isinstance(turns, RowError)]
        # Equal pieces, such as system prompts, are tokenised once.
        texts = list(dict.fromkeys(text for turns in readable for pieces in turns for text in pieces))
        ids = dict(zip(texts, self._tokens.ids(texts), strict=True))
        return [turns if isinstance(turns, RowError) else _paired(turns, ids) for turns in spelled]

    def header(self) -> list[int]:
        """Tokens between a user's text and the answer."""
        pieces = list(self._template.user)
        place = next(index for index, piece in enumerate(pieces) if isinstance(piece, str) and CONTENT in piece)
        rest = (str(pieces[place]).partition(CONTENT)[2], *pieces[place + 1 :])
        return [
            token for text in self._filled(rest, "") for token in self._tokenizer.encode(text, add_special_tokens=False)
        ]

    def _spell_all(self, conversation: Conversation) -> list[list[str]] | RowError:
        spelled = []
        for index in range(len(conversation.turns)):
            try:
                spelled.append(self._spell(conversation, index))
            except ToolError as error:
                return RowError(f"turn {index + 1}: {error}")
        return spelled

    def _spell(self, conversation: Conversation, index: int) -> list[str]:
        turn, template = conversation.turns[index], self._template
        pieces, content = self._opening(conversation) if index == 0 else ([], turn.content)
        if turn.role in PROMPTS:
            slot = template.observation if turn.role is Role.OBSERVATION else ()
            return pieces + self._filled(slot or template.user, content)
        if self._last_thought_only and index < len(conversation.turns) - 1:
            return self._answer(turn.role, template.without_thought(content))
        thought = template.empty_thought(content)
        return ([thought] if thought else []) + self._answer(turn.role, content)

    def _answer(self, role: Role, content: str) -> list[str]:
        template = self._template
        if role is Role.FUNCTION:
            return self._filled(template.function or template.assistant, spell_call(content, template))
        return self._filled(template.assistant, content)

    def _opening(self, conversation: Conversation) -> tuple[list[str], str]:
        """What stands before the first turn, and the text of that turn."""
        template, first = self._template, conversation.turns[0]
        prefix = self._filled(template.prefix, "")
        prompt = conversation.system or template.default_system
        tools = spell_tools(conversation.tools, template, self._today) if conversation.tools else ""
        # Tools of which nothing is said, an empty list, still make for a system prompt in LLaMA-Factory.
        system = self._filled(template.system, prompt + tools) if prompt or conversation.tools else []
        if not template.system_opens_user:
            return prefix + system, first.content
        # A tool's result does not take the system prompt in; the source loses it there as well.
        return prefix, "".join([*system, first.content]) if first.role is Role.USER else first.content

    def _filled(self, slot: Slot, content: str) -> list[str]:
        return [text for piece in slot if (text := self._text(piece, content))]

    def _text(self, piece: Piece, content: str) -> str:
        return piece.replace(CONTENT, content, 1) if isinstance(piece, str) else self._special.get(piece, "")


_PROBE = "7f3a"


class UnstableTemplate(RowError):
    """The model's chat template spells earlier turns otherwise once more turns follow, so no span can be told apart."""


class ChatTemplateEncoder:
    """Encodes by the tokenizer's own chat template: ids equal those of the whole conversation rendered at once."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        leave_whole(tokenizer)

    def encode(self, conversations: Sequence[Conversation]) -> list[list[EncodedTurn] | RowError]:
        """Encode a batch."""
        spans = [self._spans(conversation) for conversation in conversations]
        texts = ["".join(found) for found in spans if not isinstance(found, RowError)]
        encoded = iter(self._tokens_with_starts(texts))
        return [found if isinstance(found, RowError) else _cut(found, next(encoded)) for found in spans]

    def header(self) -> list[int]:
        """Tokens between a user's text and the answer; none where the template refuses a lone question."""
        spans = self._spans(Conversation((Turn(Role.USER, _PROBE), Turn(Role.ASSISTANT, _PROBE))))
        if isinstance(spans, RowError):
            return []
        ids: list[int] = self._tokenizer.encode(spans[0].rpartition(_PROBE)[2], add_special_tokens=False)
        return ids

    def _spans(self, conversation: Conversation) -> list[str] | RowError:
        """Text of prompt, answer, prompt, answer... whose concatenation is the whole rendering."""
        try:
            messages, tools = chat_messages(conversation), tool_list(conversation)
            spans = list(self._rendered_spans(messages, tools or None))
            _refuse_unshown_tools(spans, messages, tools)
            return spans
        except RowError as error:
            return error
        except ToolError as error:
            return RowError(str(error))
        # Templates refuse a conversation with jinja2.TemplateError, and fail on one in whatever way Python has.
        except Exception as error:
            return RowError(f"the model's chat template refuses it: {error}")

    def _rendered_spans(self, messages: list[Message], tools: list[Message] | None) -> Iterator[str]:
        done = ""
        for index, message in enumerate(messages):
            if message["role"] != Role.ASSISTANT.value:
                continue
            prompt = self._render(messages[:index], tools, generate=True)
            through = self._render(messages[: index + 1], tools, generate=False)
            if not (prompt.startswith(done) and through.startswith(prompt)):
                raise UnstableTemplate(
                    "the model's chat template spells earlier turns otherwise once more turns follow"
                )
            yield prompt[len(done) :]
            yield through[len(prompt) :]
            done = through

    def _render(self, messages: list[Message], tools: list[Message] | None, *, generate: bool) -> str:
        return render_chat(self._tokenizer, messages, tools=tools, add_generation_prompt=generate)

    def _tokens_with_starts(self, texts: list[str]) -> list[tuple[list[int], list[int]]]:
        encodings = self._tokenizer.backend_tokenizer.encode_batch(texts, add_special_tokens=False)
        return [(encoding.ids, [start for start, _ in encoding.offsets]) for encoding in encodings]


def _refuse_unshown_tools(spans: list[str], messages: list[Message], tools: list[Message]) -> None:
    """Raise RowError where the chat template leaves tools, calls or results out, as one without a word on tools does."""
    prompts, answers = "".join(spans[::2]), "".join(spans[1::2])
    names = [tool["function"].get("name", "") for tool in tools]
    called = [call["function"]["name"] for message in messages for call in message.get("tool_calls", ())]
    results = [message["content"] for message in messages if message["role"] == Role.OBSERVATION.value]
    # Some templates write a result as JSON.
    has_results = all(text in prompts or json.dumps(text, ensure_ascii=False)[1:-1] in prompts for text in results)
    shown = has_results and all(name in prompts for name in names) and all(name in answers for name in called)
    if not shown:
        raise RowError(f"has tools or calls of tools: {NO_TOOLS}")


def _paired(turns: list[list[str]], ids: dict[str, list[int]]) -> list[EncodedTurn]:
    messages = [[token for piece in pieces for token in ids[piece]] for pieces in turns]
    return list(zip(messages[::2], messages[1::2], strict=True))


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

"""The chat completions of an OpenAI-compatible endpoint."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from finetune_operator.cli.answers import Answer
from finetune_operator.cli.errors import CommandError

PATH = "/v1/chat/completions"
Message = Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chat:
    """One model behind one endpoint."""

    post: Callable[[Mapping[str, Any]], Answer]
    """Sends a body to the endpoint's chat completions."""
    model: str
    temperature: float
    max_tokens: int

    def answer(self, messages: list[Message]) -> str:
        """The whole answer. Raises CommandError."""
        return "".join(self._parts(messages, stream=False))

    def stream(self, messages: list[Message]) -> Iterator[str]:
        """The answer in parts as they come; in one part from a server that does not stream. Raises CommandError."""
        return self._parts(messages, stream=True)

    def _parts(self, messages: list[Message], stream: bool) -> Iterator[str]:
        body = {
            "model": self.model,
            "messages": messages,
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
            "stream": stream,
        }
        answer = self.post(body)
        events = _events(answer) if answer.is_event_stream else [answer.json()]
        for event in events:
            yield _content(event)


def _events(answer: Answer) -> Iterator[dict[str, Any]]:
    """The JSON objects of a stream of server-sent events, up to the closing [DONE]."""
    for line in answer.lines():
        field, _, data = line.partition(":")
        if field == "data" and data.strip() == "[DONE]":
            return
        if field == "data":
            yield json.loads(data)


def _content(event: Mapping[str, Any]) -> str:
    if "error" in event:
        raise CommandError(f"the model could not answer: {event['error']}")
    choices = event.get("choices") or [{}]
    part = choices[0].get("delta") or choices[0].get("message") or {}
    return str(part.get("content") or "")

"""What a request may ask of the engine. Templates of the client's, addresses to fetch, and work for hours are refused.

vLLM had each of them as an advisory: CVE-2025-61620 (chat_template), CVE-2025-62164 (prompt_embeds), CVE-2026-34753 and
CVE-2026-25960 (URLs of media); `transformers serve` takes a chat_template among the chat_template_kwargs, and any
generation_config.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

MOST_TOKENS = 32_768
"""Of one answer. `transformers serve` does not stop at the model's context, and answers one request after the other."""
_MOST = {"n": 8, "best_of": 8, "num_beams": 8, "logprobs": 20, "top_logprobs": 20}
_MOST_STOPS, _LONGEST_STOP, _MOST_BIASES = 16, 1000, 1024
_NO_MESSAGES = 'expected a JSON object with "messages", a list of {"role": …, "content": …}'
_NOT_TAKEN = {
    "chat_template": "the model's own is used",
    "generation_config": "set temperature, top_p, max_tokens, seed and stop",
    "prompt_embeds": "send text",
    "mm_processor_kwargs": "send text",
    "media_io_kwargs": "send text",
}
_OWN_KWARGS = frozenset(
    {
        *("conversation", "tools", "documents", "chat_template", "add_generation_prompt", "continue_final_message"),
        *("tokenize", "padding", "truncation", "max_length", "return_tensors", "return_dict"),
        *("return_assistant_tokens_mask", "tokenizer_kwargs", "processor_kwargs", "load_audio_from_video"),
    }
)
"""Arguments of apply_chat_template, which are the engine's to set; others are the template's, such as enable_thinking."""


def fault(body: bytes, *, is_chat: bool) -> str | None:
    """Why the request is not passed on; None where it is."""
    try:
        request = json.loads(body)
    # Brackets within brackets: Python's reader gives up on them, and so would the engine's.
    except (ValueError, RecursionError):
        request = None
    if is_chat and not _has_messages(request):
        return _NO_MESSAGES
    if not isinstance(request, dict):
        return "expected a JSON object"
    return next(_faults(request), None)


def _has_messages(request: Any) -> bool:
    """Whether a chat has what the engine takes for granted: it answers 500 where it is missing."""
    try:
        messages = request["messages"]
        return isinstance(messages, list) and len(messages) > 0 and all("role" in message for message in messages)
    except (LookupError, TypeError):
        return False


def _faults(request: Mapping[str, Any]) -> Iterator[str]:
    for name, instead in _NOT_TAKEN.items():
        if request.get(name) is not None:
            yield f"{name} is not taken from a request; {instead}"
    yield from _kwargs_faults(request.get("chat_template_kwargs"))
    for name in ("max_tokens", "max_completion_tokens", "min_tokens"):
        yield from _number_faults(name, request.get(name), MOST_TOKENS)
    for name, most in _MOST.items():
        yield from _number_faults(name, request.get(name), most)
    yield from _stop_faults(request.get("stop"))
    biases = request.get("logit_bias")
    if isinstance(biases, dict) and len(biases) > _MOST_BIASES:
        yield f"logit_bias has {len(biases)} tokens, expected {_MOST_BIASES} at most"
    yield from _content_faults(request.get("messages"))


def _number_faults(name: str, value: Any, most: int) -> Iterator[str]:
    if value is None or isinstance(value, bool):  # logprobs of a chat is one
        return
    if not isinstance(value, int) or not 0 <= value <= most:
        yield f"{name} is {json.dumps(value)[:40]}, expected a whole number up to {most}"


def _kwargs_faults(kwargs: Any) -> Iterator[str]:
    if kwargs is None:
        return
    if not isinstance(kwargs, dict):
        yield "chat_template_kwargs is no JSON object"
        return
    for name, value in kwargs.items():
        if name in _OWN_KWARGS or not isinstance(value, bool | int | float | str | None):
            yield f"chat_template_kwargs has {name[:40]}, expected settings of the model's template such as enable_thinking"


def _stop_faults(stop: Any) -> Iterator[str]:
    stops = stop if isinstance(stop, list) else [] if stop is None else [stop]
    if len(stops) > _MOST_STOPS or not all(isinstance(text, str) and len(text) <= _LONGEST_STOP for text in stops):
        yield f"stop is not a list of up to {_MOST_STOPS} texts of up to {_LONGEST_STOP} characters"


def _content_faults(messages: Any) -> Iterator[str]:
    """Parts that are no text name an address, which the engine would fetch."""
    for message in messages if isinstance(messages, list) else ():
        content = message.get("content") if isinstance(message, dict) else None
        for part in content if isinstance(content, list) else ():
            kind = part.get("type") if isinstance(part, dict) else part
            if kind != "text":
                yield f"a message has a part of type {json.dumps(kind)[:40]}, expected text"

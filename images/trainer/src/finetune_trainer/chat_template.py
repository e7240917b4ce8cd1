"""A named template written as the Jinja text that tokenizers carry, so that serving renders what was trained."""

from __future__ import annotations

import json

from finetune_trainer.chat_template_tools import CALLING, add_tools, knows_tools, spell_calls, spell_result
from finetune_trainer.templates import CONTENT, Slot, Special, Template


def to_jinja(template: Template, tokens: dict[Special, str]) -> str:
    """The template in Jinja. ``tokens`` has the text of the special tokens that the tokenizer knows.

    The system prompt falls back to the template's own where it is absent or empty, as in training.
    """
    user = _spelled(template.user, tokens).removesuffix(template.answer_header)
    header = _quoted(template.answer_header)
    asked = f"opening.text ~ {_CONTENT_OF_MESSAGE}" if template.system_opens_user else _CONTENT_OF_MESSAGE
    answer = _answer(template, tokens, _CONTENT_OF_MESSAGE)
    return "".join(
        [
            "{%- set has_system = messages and messages[0]['role'] == 'system' -%}",
            "{%- set system = (messages[0]['content'] if has_system else '') or ",
            f"{_quoted(template.default_system)} -%}}",
            _output(_quoted(_spelled(template.prefix, tokens))),
            add_tools() if knows_tools(template) else "",
            _system(template, _with_content(_spelled(template.system, tokens), "system")),
            "{%- for message in (messages[1:] if has_system else messages) -%}",
            "{%- if message['role'] == 'user' -%}",
            _output(_with_content(user, asked)),
            "{%- set opening.text = '' -%}" if template.system_opens_user else "",
            _tools(template, tokens) if knows_tools(template) else "",
            "{%- elif message['role'] == 'assistant' -%}",
            _output(answer),
            "{%- else -%}",
            "{{- raise_exception('role ' ~ message['role'] ~ ' has no place in this chat template') -}}",
            "{%- endif -%}",
            "{%- endfor -%}",
            "{%- if add_generation_prompt -%}",
            _output(header),
            _closing(template, tokens),
            "{%- endif -%}",
        ]
    )


def with_default_system(chat_template: str, prompt: str) -> str:
    """A model's own template that puts ``prompt`` before conversations without a system message."""
    message = f"{{'role': 'system', 'content': {_quoted(prompt)}}}"
    return (
        "{%- if not messages or messages[0]['role'] != 'system' -%}"
        f"{{%- set messages = [{message}] + messages -%}}{{%- endif -%}}{chat_template}"
    )


_CONTENT_OF_MESSAGE = "message['content']"


def _answer(template: Template, tokens: dict[Special, str], content: str) -> str:
    spelled = _with_content(_spelled(template.assistant, tokens), content)
    return f"{_quoted(template.answer_header)} ~ {_thought(template, content)}{spelled}"


def _tools(template: Template, tokens: dict[Special, str]) -> str:
    return "".join(
        [
            "{%- elif message['role'] == 'assistant' and message['tool_calls'] -%}",
            spell_calls(),
            _output(_answer(template, tokens, CALLING)),
            "{%- elif message['role'] == 'tool' -%}",
            spell_result(template),
        ]
    )


def _system(template: Template, spelled: str) -> str:
    if template.system_opens_user:
        return f"{{%- set opening = namespace(text=({spelled}) if system else '') -%}}"
    return "{%- if system -%}" + _output(spelled) + "{%- endif -%}"


def _thought(template: Template, content: str) -> str:
    if template.thought is None:
        return ""
    brings_its_own = " or ".join(f"{_quoted(word.strip())} in {content}" for word in template.thought)
    return f"('' if {brings_its_own} else {_quoted(template.empty_thought(''))}) ~ "


def _closing(template: Template, tokens: dict[Special, str]) -> str:
    if not template.ends_once:
        return ""
    ends = "{%- elif messages and messages[-1]['role'] == 'assistant' -%}"
    return ends + _output(_quoted(tokens.get(Special.EOS, "")))


def _spelled(slot: Slot, tokens: dict[Special, str]) -> str:
    return "".join(piece if isinstance(piece, str) else tokens.get(piece, "") for piece in slot)


def _with_content(text: str, expression: str) -> str:
    before, _, after = text.partition(CONTENT)
    return " ~ ".join(part for part in (before and _quoted(before), expression, after and _quoted(after)) if part)


def _quoted(text: str) -> str:
    # A JSON string is a Jinja string as well.
    return json.dumps(text, ensure_ascii=False)


def _output(expression: str) -> str:
    return "{{- " + expression + " -}}"

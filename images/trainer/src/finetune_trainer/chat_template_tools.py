"""What a chat template in Jinja says of tools: of the templates by name, those with Qwen's tool format."""

from __future__ import annotations

import json

from finetune_trainer.templates import CONTENT, Template
from finetune_trainer.templates.tool_formats import AFTER_QWENS_TOOLS, BEFORE_QWENS_TOOLS, BETWEEN_RESULTS

CALLING = "told.text"
"""Expression for the text of an answer that calls tools, after ``spell_calls``."""


def knows_tools(template: Template) -> bool:
    """Whether the template is saved with tools, calls and results."""
    return template.tools == "qwen"


def add_tools() -> str:
    """Appends the tools to ``system``."""
    return "".join(
        [
            "{%- if tools -%}",
            f"{{%- set described = namespace(text={json.dumps(BEFORE_QWENS_TOOLS)}) -%}}",
            "{%- for tool in tools -%}",
            '{%- set described.text = described.text ~ "\\n" ~ (tool | tojson) -%}',
            "{%- endfor -%}",
            f"{{%- set system = system ~ described.text ~ {json.dumps(AFTER_QWENS_TOOLS)} -%}}",
            "{%- endif -%}",
        ]
    )


def spell_calls() -> str:
    """Sets ``CALLING`` to what ``message`` says and calls."""
    called = "{'name': call['function']['name'], 'arguments': call['function']['arguments']} | tojson"
    return "".join(
        [
            "{%- set told = namespace(text=message['content'] or '') -%}",
            "{%- for call in message['tool_calls'] -%}",
            "{%- set told.text = told.text ~ ('' if loop.first else \"\\n\") ~ ",
            f'"<tool_call>\\n" ~ ({called}) ~ "\\n</tool_call>" -%}}',
            "{%- endfor -%}",
        ]
    )


def spell_result(template: Template) -> str:
    """Writes ``message``, a result, into one turn with those before and after it."""
    before, _, after = "".join(map(str, template.observation)).removesuffix(template.answer_header).partition(CONTENT)
    return "".join(
        [
            "{{- (",
            f"{json.dumps(before)} if loop.first or loop.previtem['role'] != 'tool' else {json.dumps(BETWEEN_RESULTS)}",
            ") ~ message['content'] ~ (",
            f"{json.dumps(after)} if loop.last or loop.nextitem['role'] != 'tool' else ''",
            ") -}}",
        ]
    )

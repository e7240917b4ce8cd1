"""How tools are described to a model, and how it spells its calls of them: one format a model family.

Source of the wording: LLaMA-Factory 0.9.5, ``data/tool_utils.py``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from types import MappingProxyType
from typing import Any

Tool = Mapping[str, Any]
BETWEEN_RESULTS = "\n</tool_response>\n<tool_response>\n"
"""Stands between results that follow one another, whatever the template."""


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a tool."""

    name: str
    arguments: Any
    """What JSON says they are: an object, or whatever else the row has."""

    @property
    def spelled_arguments(self) -> str:
        """The arguments as JSON."""
        return _json(self.arguments)


@dataclass(frozen=True, slots=True)
class ToolFormat:
    """The format of one model family. Both functions raise whatever Python has for tools and calls of another shape."""

    describe: Callable[[Sequence[Tool], date], str]
    """What is appended to the system prompt."""
    spell: Callable[[Sequence[Call]], str]
    """The text of an answer that calls tools."""
    call_words: tuple[str, str] = ("<tool_call>", "</tool_call>")
    """What may stand around the calls in a row's text, beside which other text is kept."""
    frame: str = ""
    """Where there is one, the tools stand in it just as the row has them, and are not described otherwise."""


def _json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _bare(tool: Tool) -> Tool:
    inner: Tool = tool["function"] if tool.get("type") == "function" else tool
    return inner


def _wrapped(tool: Tool) -> Tool:
    return tool if tool.get("type") == "function" else {"type": "function", "function": tool}


def _lines_of(tools: Sequence[Tool]) -> str:
    return "".join(f"\n{_json(_wrapped(tool))}" for tool in tools)


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else _json(value)


def _describe_in_words(tools: Sequence[Tool], _today: date) -> str:
    functions = [_bare(tool) for tool in tools]
    told = "".join(
        f"> Tool Name: {tool['name']}\nTool Description: {tool.get('description', '')}\nTool Args:\n{_parameters(tool)}\n"
        for tool in functions
    )
    return (
        f"You have access to the following tools:\n{told}Use the following format if using a tool:\n```\n"
        f"Action: tool name (one of [{', '.join(tool['name'] for tool in functions)}])\n"
        "Action Input: the input to the tool, in a JSON format representing the kwargs "
        '(e.g. ```{"input": "hello world", "num_beams": 5}```)\n```\n'
    )


def _parameters(tool: Tool) -> str:
    parameters = tool["parameters"]
    required = parameters.get("required", [])
    return "".join(_parameter(name, of, name in required) for name, of in parameters["properties"].items())


def _parameter(name: str, of: Tool, required: bool) -> str:
    choices = f", should be one of [{', '.join(of['enum'])}]" if of.get("enum") else ""
    items = f", where each item should be {of['items'].get('type', '')}" if of.get("items") else ""
    kind = f"{of.get('type', '')}{', required' if required else ''}"
    return f"  - {name} ({kind}): {of.get('description', '')}{choices}{items}\n"


def _spell_as_actions(calls: Sequence[Call]) -> str:
    return "\n".join(f"Action: {call.name}\nAction Input: {call.spelled_arguments}" for call in calls)


_IN_TAGS = (
    "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
    "You are provided with function signatures within <tools></tools> XML tags:\n<tools>"
)


BEFORE_QWENS_TOOLS = f"\n\n{_IN_TAGS}"
AFTER_QWENS_TOOLS = (
    "\n</tools>\n\nFor each function call, return a json object with function name and arguments within "
    "<tool_call></tool_call> XML tags:\n<tool_call>\n"
    '{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>'
)


def _describe_qwen(tools: Sequence[Tool], _today: date) -> str:
    return f"{BEFORE_QWENS_TOOLS}{_lines_of(tools)}{AFTER_QWENS_TOOLS}"


def _spell_qwen(calls: Sequence[Call]) -> str:
    return "\n".join(
        f"<tool_call>\n{_json({'name': call.name, 'arguments': call.arguments})}\n</tool_call>" for call in calls
    )


def _describe_llama3(tools: Sequence[Tool], today: date) -> str:
    told = "".join(f"{_json(_wrapped(tool), indent=4)}\n\n" for tool in tools)
    return (
        f"Cutting Knowledge Date: December 2023\nToday Date: {today:%d %b %Y}\n\n"
        "You have access to the following functions. To call a function, please respond with JSON for a function call. "
        'Respond in the format {"name": function name, "parameters": dictionary of argument name and its value}. '
        f"Do not use variables.\n\n{told}"
    )


def _spell_llama3(calls: Sequence[Call]) -> str:
    spoken = [{"name": call.name, "parameters": call.arguments} for call in calls]
    return _json(spoken[0] if len(spoken) == 1 else spoken)


def _describe_mistral(tools: Sequence[Tool], _today: date) -> str:
    return f"[AVAILABLE_TOOLS] {_json([_wrapped(tool) for tool in tools])}[/AVAILABLE_TOOLS]"


def _spell_mistral(calls: Sequence[Call]) -> str:
    return _json([{"name": call.name, "arguments": call.arguments} for call in calls])


def _describe_glm4(tools: Sequence[Tool], _today: date) -> str:
    told = "".join(
        f"\n\n## {tool['name']}\n\n{_json(tool, indent=4)}\n在调用上述函数时，请使用 Json 格式表示调用的参数。"
        for tool in map(_bare, tools)
    )
    return (
        "你是一个名为 ChatGLM 的人工智能助手。你是基于智谱 AI 公司训练的语言模型 GLM-4 模型开发的，"
        f"你的任务是针对用户的问题和要求提供适当的答复和支持。\n\n# 可用工具{told}"
    )


def _spell_glm4(calls: Sequence[Call]) -> str:
    if len(calls) > 1:
        raise ValueError("GLM-4 calls one tool at a time")
    return f"{calls[0].name}\n{calls[0].spelled_arguments}"


def _describe_glm4_moe(tools: Sequence[Tool], _today: date) -> str:
    return (
        f"\n\n{_IN_TAGS}{_lines_of(tools)}\n</tools>\n\nFor each function call, output the function name and arguments "
        "within the following XML format:\n<tool_call>{function-name}\n<arg_key>{arg-key-1}</arg_key>"
        "\n<arg_value>{arg-value-1}</arg_value>\n<arg_key>{arg-key-2}</arg_key>"
        "\n<arg_value>{arg-value-2}</arg_value>\n...\n</tool_call>\n"
    )


def _spell_glm4_moe(calls: Sequence[Call]) -> str:
    return "\n".join(
        f"\n<tool_call>{call.name}"
        + "".join(
            f"\n<arg_key>{key}</arg_key>\n<arg_value>{_shown(value)}</arg_value>"
            for key, value in call.arguments.items()
        )
        for call in calls
    )


def _describe_seed(tools: Sequence[Tool], _today: date) -> str:
    return (
        "system\nYou are Doubao, a helpful AI assistant. You may call one or more functions to assist with the user "
        "query.Tool List:\nYou are authorized to use the following tools (described in JSON Schema format). Before "
        "performing any task, you must decide how to call them based on the descriptions and parameters of these tools."
        f"\n{_json(tools)}\n工具调用请遵循如下格式:\n<seed:tool_call>\n<function=example_function_name>\n"
        "<parameter=example_parameter_1>value_1</parameter>\n<parameter=example_parameter_2>This is the value for the "
        "second parameter\nthat can span\nmultiple lines</parameter>\n</function>\n</seed:tool_call>\n"
    )


def _spell_seed(calls: Sequence[Call]) -> str:
    return "\n".join(
        f"\n<seed:tool_call>\n<function={call.name}"
        + "".join(f"\n<parameter={key}>{_shown(value)}</parameter>" for key, value in call.arguments.items())
        + "\n</function>\n</seed:tool_call>"
        for call in calls
    )


def _describe_lfm2(tools: Sequence[Tool], _today: date) -> str:
    return f"List of tools: <|tool_list_start|>{_json([_bare(tool) for tool in tools])}<|tool_list_end|>"


def _spell_lfm2(calls: Sequence[Call]) -> str:
    return f"<|tool_call_start|>[{', '.join(map(_spell_as_python, calls))}]<|tool_call_end|>"


def _spell_as_python(call: Call) -> str:
    arguments = (
        f'{key}="{value}"' if isinstance(value, str) else f"{key}={_json(value)}"
        for key, value in call.arguments.items()
    )
    return f"{call.name}({', '.join(arguments)})"


TOOL_FORMATS: Mapping[str, ToolFormat] = MappingProxyType(
    {
        "default": ToolFormat(_describe_in_words, _spell_as_actions),
        "qwen": ToolFormat(_describe_qwen, _spell_qwen),
        "llama3": ToolFormat(_describe_llama3, _spell_llama3),
        "mistral": ToolFormat(_describe_mistral, _spell_mistral),
        "glm4": ToolFormat(_describe_glm4, _spell_glm4),
        "glm4_moe": ToolFormat(_describe_glm4_moe, _spell_glm4_moe),
        "seed_oss": ToolFormat(_describe_seed, _spell_seed),
        "phi4_mini": ToolFormat(_describe_in_words, _spell_as_actions, frame="<|tool|>{content}<|/tool|>"),
        "lfm2": ToolFormat(_describe_lfm2, _spell_lfm2, ("<|tool_call_start|>", "<|tool_call_end|>")),
    }
)

"""Tools, their calls and results are trained on as LLaMA-Factory spells them, or as the model's own chat template does."""

from __future__ import annotations

import json
from collections import defaultdict
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase

from finetune_operator.api.outcome import ExitCode
from finetune_trainer.prepare.conversation import Conversation, Role, RowError, Turn
from finetune_trainer.prepare.encoders import ChatTemplateEncoder, TemplateEncoder
from finetune_trainer.prepare.tokenizer import apply_template, load_tokenizer
from finetune_trainer.prepare.tool_messages import chat_messages, tool_list
from finetune_trainer.sequences import IGNORED
from finetune_trainer.templates import TEMPLATES
from finetune_trainer.templates.tool_formats import BETWEEN_RESULTS
from finetune_trainer.templates.tool_turns import ToolError, spell_call, spell_tools
from finetune_trainer.tokens import View, show_tokens
from trainer_runs import make_run, write_lines, write_run

GOLDENS = Path(__file__).parent / "data" / "llamafactory"
GOLDEN: dict[str, Any] = json.loads((GOLDENS / "tools.json").read_text(encoding="utf-8"))
"""``rows`` by dataset, and ``cases``: what LLaMA-Factory 0.9.5 makes of them, template|dataset|cutoff_len|mode to rows of
[ids, learnt runs, [position, label] where another token than the one there is learnt], with the qwen tokenizer."""
DATASETS: dict[str, dict[str, Any]] = {
    "sharegpt": {"format": "ShareGPT", "columns": {"messages": "conversations", "tools": "tools"}},
    "thoughts": {"format": "ShareGPT", "columns": {"messages": "conversations", "tools": "tools"}},
    "unread": {"format": "ShareGPT"},
    "openai": {"columns": {"messages": "messages", "tools": "tools"}},
    "alpaca": {"format": "Alpaca", "columns": {"tools": "tools"}},
}
TODAY = date(2026, 3, 1)
TOOL = {"name": "now", "description": "Time", "parameters": {"properties": {"zone": {"type": "string"}}}}
CALL = '{"name": "now", "arguments": {"zone": "UTC"}}'
TALK = Conversation(
    (
        Turn(Role.USER, "What time?"),
        Turn(Role.FUNCTION, CALL),
        Turn(Role.OBSERVATION, "12:00"),
        Turn(Role.ASSISTANT, "Noon."),
    ),
    tools=json.dumps([TOOL]),
)
OWN_TEMPLATE = (
    "{%- for tool in tools or [] %}<tool>{{ tool | tojson }}</tool>{% endfor %}"
    "{%- for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}"
    "{%- for call in message.tool_calls or [] %}<call>{{ call.function | tojson }}</call>{% endfor %}<|im_end|>{{ '\n' }}"
    "{%- endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tokenizer(chat_template: str) -> PreTrainedTokenizerBase:
    found = load_tokenizer(GOLDENS / "qwen")
    found.chat_template = chat_template
    return found


def labels(ids: list[int], runs: list[list[int]], others: list[list[int]]) -> list[int]:
    found = [IGNORED] * len(ids)
    for begin, end in runs:
        found[begin:end] = ids[begin:end]
    for position, label in others:
        found[position] = label
    return found


def test_rows_with_tools_give_llama_factorys_lists(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = []
    for number, key in enumerate(GOLDEN["cases"]):
        template, kind, cutoff, mode = key.split("|")
        rules = {
            "template": "Auto" if template == "none" else template,
            "cutoffLen": int(cutoff),
            "packing": "None",
            "maskHistory": mode == "mask_history",
            "trainOnPrompt": mode == "train_on_prompt",
            "compatibility": "LLaMAFactory",
        }
        data = write_lines(tmp_path / f"{kind}.jsonl", GOLDEN["rows"][kind])
        folder = tmp_path / str(number)
        run = make_run(folder, GOLDENS / "qwen", data, f"job-{number}", tokenization=rules, dataset=DATASETS[kind])
        files.append(write_run(run, tmp_path))
    view = View(packed=False, rendered=False, evaluation=False, coloured=False)
    assert show_tokens(files, view) == ExitCode.DONE
    found = defaultdict(list)
    for line in map(json.loads, capsys.readouterr().out.splitlines()):
        found[line["job"]].append([line["input_ids"], line["labels"]])
    for number, (key, expected) in enumerate(GOLDEN["cases"].items()):
        assert found[f"job-{number}"] == [[row[0], labels(*row)] for row in expected], key


def test_llama3_tells_the_day() -> None:
    told = spell_tools(json.dumps([TOOL]), TEMPLATES["llama3"], TODAY)
    assert told.startswith("Cutting Knowledge Date: December 2023\nToday Date: 01 Mar 2026\n\n")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "the tools are malformed JSON"),
        ('["a"]', "cannot be described in the way of template default"),
        ('[{"name": "a"}]', "no 'parameters'"),
        ("3", "expected a list of objects"),
    ],
)
def test_tools_that_cannot_be_described_are_refused(text: str, says: str) -> None:
    with pytest.raises(ToolError, match=says):
        spell_tools(text, TEMPLATES["default"], TODAY)


@pytest.mark.parametrize(
    ("template", "text", "says"),
    [
        ("qwen", "now()", "a tool call is malformed JSON"),
        ("qwen", '{"name": "now"}', "no 'arguments'"),
        ("qwen", '"now"', "cannot be spelled in the way of template qwen"),
        ("glm4", f"[{CALL}, {CALL}]", "GLM-4 calls one tool at a time"),
        ("glm4_moe", '{"name": "now", "arguments": "{}"}', "cannot be spelled in the way of template glm4_moe"),
        ("mistral", f"<think>\na\n</think>\n\n{CALL}", "a tool call is malformed JSON"),
    ],
)
def test_a_call_that_cannot_be_spelled_is_refused(template: str, text: str, says: str) -> None:
    with pytest.raises(ToolError, match=says):
        spell_call(text, TEMPLATES[template])


def test_a_row_with_such_a_call_is_refused_and_the_others_are_not() -> None:
    wrong = Conversation((Turn(Role.USER, "a"), Turn(Role.FUNCTION, "now()")))
    encoder = TemplateEncoder(load_tokenizer(GOLDENS / "qwen"), TEMPLATES["qwen"])
    refused, good = encoder.encode([wrong, TALK])
    assert isinstance(refused, RowError)
    assert str(refused).startswith("turn 2: a tool call is malformed JSON")
    assert len(good) == 2


@pytest.mark.parametrize("name", ["qwen", "qwen3"])
def test_the_chat_template_that_is_saved_with_qwens_tool_format_renders_what_was_trained(name: str) -> None:
    tokens = load_tokenizer(GOLDENS / "qwen")
    apply_template(tokens, TEMPLATES[name])
    two_results = Turn(Role.OBSERVATION, BETWEEN_RESULTS.join(["12:00", "UTC"]))
    two_calls = Turn(Role.FUNCTION, f"<think>\nHm.\n</think>\n\n[{CALL}, {CALL}]")
    talk = Conversation(
        (*TALK.turns, Turn(Role.USER, "Again?"), two_calls, two_results, TALK.turns[3]), "Be brief.", TALK.tools
    )
    for conversation in (TALK, talk):
        [turns] = TemplateEncoder(tokens, TEMPLATES[name]).encode([conversation])
        assert not isinstance(turns, RowError)
        trained = [token for prompt, answer in turns for token in prompt + answer]
        messages, tools = chat_messages(conversation), tool_list(conversation)
        assert tokens.apply_chat_template(messages, tools=tools, tokenize=False) == tokens.decode(trained)
        asked = tokens.apply_chat_template(messages[:-1], tools=tools, tokenize=False, add_generation_prompt=True)
        assert tokens.decode(trained).startswith(asked)


def test_the_models_own_template_spells_tools_where_it_can() -> None:
    tokens = tokenizer(OWN_TEMPLATE)
    [turns] = ChatTemplateEncoder(tokens).encode([TALK])
    assert not isinstance(turns, RowError)
    text = [(tokens.decode(prompt), tokens.decode(answer)) for prompt, answer in turns]
    assert text[0][0].startswith('<tool>{"type": "function", "function": {"name": "now"')
    assert text[0][1] == '<call>{"name": "now", "arguments": {"zone": "UTC"}}</call><|im_end|>\n'
    assert text[1] == ("<|im_start|>tool\n12:00<|im_end|>\n<|im_start|>assistant\n", "Noon.<|im_end|>\n")


@pytest.mark.parametrize(
    "silent",
    [
        "{%- for tool in tools or [] %}<tool>{{ tool | tojson }}</tool>{% endfor %}",
        "<call>{{ call.function | tojson }}</call>",
    ],
)
def test_the_models_own_template_that_leaves_tools_or_calls_out_is_refused(silent: str) -> None:
    [refused] = ChatTemplateEncoder(tokenizer(OWN_TEMPLATE.replace(silent, ""))).encode([TALK])
    assert isinstance(refused, RowError)
    assert "template Auto, the model's own, does not show them all; name a template" in str(refused)

"""Under LLaMA-Factory's rules every list is its own, faults included, and the report tells what they did; by default they do nothing."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from finetune_operator.api.outcome import ExitCode, StageFailure
from finetune_operator.api.tokenization import Tokenization
from finetune_trainer.prepare.compatibility import counted, lines, without_thinking
from finetune_trainer.prepare.conversation import Conversation, Role, Turn
from finetune_trainer.prepare.labels import label_turns
from finetune_trainer.prepare.model_check import refuse_new_tokens
from finetune_trainer.prepare.tokenizer import apply_template, load_tokenizer
from finetune_trainer.sequences import IGNORED
from finetune_trainer.templates import TEMPLATES
from finetune_trainer.tokens import View, show_tokens
from tiny_models import save_base
from trainer_runs import chat, make_run, write_lines, write_run

GOLDENS = Path(__file__).parent / "data" / "llamafactory"
COMBINATIONS: dict[str, list[Any]] = json.loads((GOLDENS / "combinations.json").read_text())
"""What LLaMA-Factory 0.9.5 makes of rows.jsonl: tokenizer|template|cutoff_len|mode to rows of [ids, learnt runs]. The template
``none`` stands for a configuration without one; of the modes, ``neat`` and ``packing`` are neat_packing and packing."""
TAGGED: dict[str, Any] = {
    "format": "ShareGPT",
    "columns": {"messages": "messages"},
    "tags": {"role": "role", "content": "content", "user": "user", "assistant": "assistant", "system": "system"},
}
PLAIN_VIEW = View(packed=False, rendered=False, evaluation=False, coloured=False)
QUESTION = ([1, 2, 3, 90, 91], [7, 8, 9])
"""A turn whose answer is opened by 90, 91."""


def rules(template: str, cutoff: str, mode: str) -> dict[str, Any]:
    packing = "Segmented" if "neat" in mode else "Plain" if "packing" in mode else "None"
    return {
        "template": "Auto" if template == "none" else template,
        "cutoffLen": int(cutoff),
        "packing": packing,
        "maskHistory": "mask_history" in mode,
        "trainOnPrompt": "train_on_prompt" in mode,
        "compatibility": "LLaMAFactory",
    }


def labels(ids: list[int], runs: list[list[int]]) -> list[int]:
    learnt = {index for begin, end in runs for index in range(begin, end)}
    return [token if index in learnt else IGNORED for index, token in enumerate(ids)]


def shown(capsys: pytest.CaptureFixture[str]) -> tuple[dict[str, list[list[list[int]]]], str]:
    """The lists that were printed, by job, and what stood on stderr."""
    printed = capsys.readouterr()
    found: dict[str, list[list[list[int]]]] = defaultdict(list)
    for line in map(json.loads, printed.out.splitlines()):
        found[line["job"]].append([line["input_ids"], line["labels"]])
    return found, printed.err


@pytest.mark.parametrize("packed", [False, True])
def test_every_combination_gives_llama_factorys_lists(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], packed: bool
) -> None:
    names = {f"job-{index}": key for index, key in enumerate(COMBINATIONS)}
    chosen = {name: key for name, key in names.items() if (rules(*key.split("|")[1:])["packing"] != "None") == packed}
    files = []
    for name, key in chosen.items():
        family, *rest = key.split("|")
        run = make_run(
            tmp_path / name, GOLDENS / family, GOLDENS / "rows.jsonl", name, tokenization=rules(*rest), dataset=TAGGED
        )
        files.append(write_run(run, tmp_path))
    view = View(packed=packed, rendered=False, evaluation=False, coloured=False)
    assert show_tokens(files, view) == ExitCode.DONE
    found, _ = shown(capsys)
    for name, key in chosen.items():
        assert found[name] == [[ids, labels(ids, runs)] for ids, runs in COMBINATIONS[key]], key


def test_what_the_rules_did_to_the_rows_is_counted_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        chat("Hi", "Hello!"),
        chat("Hi", "Hello!", system="Be brief."),
        chat("no answer"),
        chat("a " * 200, "b " * 200),
        chat("a " * 900, "b " * 14),
    ]
    data = write_lines(tmp_path / "rows.jsonl", rows)
    tags = {**TAGGED["tags"], "system": "(none)"}
    run = make_run(
        tmp_path / "job",
        GOLDENS / "qwen",
        data,
        tokenization={"template": "qwen", "cutoffLen": 64, "packing": "None", "compatibility": "LLaMAFactory"},
        dataset={**TAGGED, "tags": tags},
    )
    assert show_tokens([write_run(run, tmp_path)], PLAIN_VIEW) == ExitCode.DONE
    told = shown(capsys)[1]
    assert (
        "note: job: as in LLaMA-Factory, 1 rows open with a system message that the dataset's tags do not name" in told
    )
    assert "1 rows do not have user and assistant in turn" in told
    assert "3 rows have no system prompt and get the one of the template" in told
    assert "2 rows lose, with the end of a prompt, the words that open the answer" in told
    assert "lose the end of an answer" in told


def test_only_faults_that_happened_are_reported() -> None:
    assert counted([{"cutPrompts": 1, "unlearnt": 0}, {"cutPrompts": 2}]) == {"cutPrompts": 3}
    assert list(lines({})) == []


@pytest.mark.parametrize(("header", "kept"), [((), [1, 2, 3]), ((90, 91), [1, 90, 91])])
def test_a_prompt_that_is_cut_keeps_what_opens_the_answer_unless_the_rules_are_llama_factorys(
    header: tuple[int, ...], kept: list[int]
) -> None:
    long = ([1, 2, 3, 4, 5, 6, 7, 8, 90, 91], [7, 8])
    example = label_turns([long], Tokenization(), 5, header=header)
    assert example.input_ids == [*kept, 7, 8]
    assert example.labels == [IGNORED] * 3 + [7, 8]
    assert example.lost_header
    assert not example.lost_end


def test_a_prompt_that_is_not_cut_or_does_not_end_in_the_header_is_left_as_it_is() -> None:
    assert label_turns([QUESTION], Tokenization(), 8, header=(90, 91)).input_ids == [1, 2, 3, 90, 91, 7, 8, 9]
    other = label_turns([([1, 2, 3, 4, 5, 6, 7], [8])], Tokenization(), 4, header=(90, 91))
    assert other.input_ids == [1, 2, 3, 8]


def test_a_token_that_the_template_adds_is_refused_where_the_model_has_no_embedding_for_it(tmp_path: Path) -> None:
    save_base(tmp_path)
    tokens = load_tokenizer(tmp_path)
    spec = make_run(tmp_path, tmp_path, tmp_path, tokenization={"template": "llama3"}).spec
    refuse_new_tokens(tokens, tmp_path, spec)
    apply_template(tokens, TEMPLATES["llama3"], adds_tokens=True)
    assert tokens.eos_token == "<|eot_id|>"
    with pytest.raises(StageFailure, match="template: llama3 adds tokens to the tokenizer") as caught:
        refuse_new_tokens(tokens, tmp_path, spec)
    assert caught.value.code is ExitCode.INVALID_SPEC


@pytest.mark.parametrize(
    ("system", "expected"),
    [
        (None, "detailed thinking off"),
        ("Be brief.", "Be brief.\ndetailed thinking off"),
        ("detailed thinking on", "detailed thinking on"),
    ],
)
def test_the_openai_formatting_turns_thinking_off_where_the_system_prompt_does_not_say(
    system: str | None, expected: str
) -> None:
    talk = Conversation((Turn(Role.USER, "Hi"), Turn(Role.ASSISTANT, "Hello!")), system)
    assert without_thinking(talk).system == expected

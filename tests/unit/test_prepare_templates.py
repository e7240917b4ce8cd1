"""Token ids and labels equal LLaMA-Factory's, and the chat template that is saved renders what was trained."""

import json
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerBase

from finetune_operator.api.dataset import Dataset
from finetune_operator.api.outcome import ExitCode, StageFailure
from finetune_operator.api.tokenization import Tokenization
from finetune_trainer.prepare.conversation import Conversation, MisorderedRow, Role, RowError, Turn
from finetune_trainer.prepare.encoders import ChatTemplateEncoder, EncodedTurn, TemplateEncoder, UnstableTemplate
from finetune_trainer.prepare.labels import Example, label_turns
from finetune_trainer.prepare.layouts import conversation_of
from finetune_trainer.prepare.support import check_supported
from finetune_trainer.prepare.tokenizer import apply_template, fix_padding, load_tokenizer, stop_token_ids
from finetune_trainer.prepare.tool_messages import chat_messages
from finetune_trainer.sequences import IGNORED
from finetune_trainer.templates import TEMPLATES, Template
from trainer_runs import make_run

GOLDENS = Path(__file__).parent / "data" / "llamafactory"
EVERY = json.loads((GOLDENS / "templates.json").read_text(encoding="utf-8"))
"""What LLaMA-Factory 0.9.5 makes of three conversations with each template, for cases of [conversation, cutoff, mode].

A row is [ids, runs of learnt tokens, [position, label] where another token than the one there is learnt], made with the
qwen tokenizer to which ``added`` and ``bos`` were added; null stands for a mode that the template does not go with.
"""
TALK = Conversation(
    (Turn(Role.USER, "Hi"), Turn(Role.ASSISTANT, "Hello!"), Turn(Role.USER, "Who?"), Turn(Role.ASSISTANT, "Me."))
)


def tokenizer(family: str) -> PreTrainedTokenizerBase:
    return load_tokenizer(GOLDENS / family)


def encode(encoder: TemplateEncoder | ChatTemplateEncoder, conversation: Conversation) -> list[EncodedTurn]:
    [turns] = encoder.encode([conversation])
    assert not isinstance(turns, RowError), turns
    return turns


def learnt(labels: list[int]) -> list[list[int]]:
    """Runs [begin, end) of the tokens that are learnt."""
    borders = [index for index in range(len(labels) + 1) if _is_learnt(labels, index) != _is_learnt(labels, index - 1)]
    return [list(pair) for pair in zip(borders[::2], borders[1::2], strict=True)]


def _is_learnt(labels: list[int], index: int) -> bool:
    return 0 <= index < len(labels) and labels[index] != IGNORED


@pytest.mark.parametrize("cutoff", [128, 1024])
@pytest.mark.parametrize("family", ["qwen", "yi"])
def test_ids_and_labels_equal_llama_factorys(family: str, cutoff: int) -> None:
    expected = json.loads((GOLDENS / "golden.json").read_text())[f"{family}|{cutoff}"]
    tokens = tokenizer(family)
    apply_template(tokens, TEMPLATES[family])
    conversations, dropped = [], []
    rows = [json.loads(line) for line in (GOLDENS / "rows.jsonl").read_text().split("\n") if line]
    for index, row in enumerate(rows):
        try:
            conversations.append(conversation_of(row, Dataset(source="pvc://data/rows.jsonl")))
        except MisorderedRow:
            dropped.append(index)
    assert dropped == expected["dropped"]
    turns = TemplateEncoder(tokens, TEMPLATES[family]).encode(conversations)
    examples = [label_turns(row, Tokenization(), cutoff) for row in turns if not isinstance(row, RowError)]
    assert [[example.input_ids, learnt(example.labels)] for example in examples] == expected["rows"]


@pytest.mark.parametrize("system", [None, "Be brief.", ""])
@pytest.mark.parametrize("name", ["qwen", "chatml", "yi"])
def test_the_saved_chat_template_renders_what_was_trained(name: str, system: str | None) -> None:
    tokens = tokenizer("qwen")
    apply_template(tokens, TEMPLATES[name])
    conversation = Conversation(TALK.turns, system)
    trained = [
        token
        for turn in encode(TemplateEncoder(tokens, TEMPLATES[name]), conversation)
        for part in turn
        for token in part
    ]
    assert tokens.apply_chat_template(chat_messages(conversation), tokenize=True, return_dict=False) == trained
    asked = tokens.apply_chat_template(
        chat_messages(conversation)[:-1], tokenize=True, return_dict=False, add_generation_prompt=True
    )
    assert asked == trained[: len(asked)]


def test_every_named_template_is_compared_with_llama_factorys() -> None:
    assert set(TEMPLATES) == set(EVERY["templates"])


@pytest.mark.parametrize("name", EVERY["templates"])
def test_ids_labels_and_stop_tokens_of_every_template_equal_llama_factorys(name: str) -> None:
    template, expected = TEMPLATES[name], EVERY["templates"][name]
    tokens = with_all_special_tokens(template)
    assert stop_token_ids(tokens, template) == expected["stops"]
    assert tokens.eos_token == expected["eos"]
    for (number, cutoff, mode), row in zip(EVERY["cases"], expected["rows"], strict=True):
        if row is None:  # trainOnPrompt or maskHistory, refused with this template
            continue
        turns = encode(TemplateEncoder(tokens, template), spoken(number))
        rules = Tokenization(train_on_prompt=mode == "prompt", mask_history=mode == "history")
        example = label_turns(turns, rules, cutoff, tokens.eos_token_id if template.ends_once else None)
        assert [example.input_ids, learnt(example.labels), learnt_otherwise(example)] == row


@pytest.mark.parametrize("name", EVERY["templates"])
def test_the_chat_template_of_every_named_template_renders_its_pieces(name: str) -> None:
    template = TEMPLATES[name]
    tokens = with_all_special_tokens(template)
    encoder = TemplateEncoder(tokens, template)
    for number in range(len(EVERY["conversations"])):
        messages = chat_messages(spoken(number))
        turns = encode(encoder, spoken(number))
        closing = [tokens.eos_token_id] if template.ends_once else []
        trained = tokens.decode([token for turn in turns for part in turn for token in part] + closing)
        assert tokens.apply_chat_template(messages, tokenize=False) == trained
        asked = tokens.apply_chat_template(messages[:-1], tokenize=False, add_generation_prompt=True)
        answer = tokens.decode(turns[-1][1] + closing)
        assert asked == trained.removesuffix(answer)


def with_all_special_tokens(template: Template) -> PreTrainedTokenizerBase:
    """A tokenizer that knows the special tokens of every template, set up for one."""
    tokens = tokenizer("qwen")
    tokens.add_tokens([*EVERY["added"], EVERY["bos"]], special_tokens=True)
    tokens.bos_token = EVERY["bos"]
    apply_template(tokens, template)
    fix_padding(tokens)
    return tokens


def spoken(number: int) -> Conversation:
    """A conversation of the reference data, its texts by user and model in turn."""
    system, texts = EVERY["conversations"][number]
    speakers = (Role.USER, Role.ASSISTANT)
    return Conversation(tuple(Turn(speakers[index % 2], text) for index, text in enumerate(texts)), system)


def learnt_otherwise(example: Example) -> list[list[int]]:
    """Positions that learn another token than stands there, with that token."""
    pairs = zip(example.input_ids, example.labels, strict=True)
    return [[index, label] for index, (token, label) in enumerate(pairs) if label not in (IGNORED, token)]


def test_a_first_token_that_the_tokenizer_names_but_does_not_know_is_left_out() -> None:
    tokens = tokenizer("qwen")
    tokens.bos_token = "<|nowhere|>"
    apply_template(tokens, TEMPLATES["deepseek"])
    [(prompt, _)] = encode(TemplateEncoder(tokens, TEMPLATES["deepseek"]), Conversation(TALK.turns[:2]))
    assert tokens.decode(prompt) == "User: Hi\n\nAssistant:"


def test_the_models_own_template_gives_the_ids_of_the_whole_rendering() -> None:
    tokens = tokenizer("qwen")
    for conversation in (TALK, Conversation(TALK.turns, "Be brief.")):
        turns = encode(ChatTemplateEncoder(tokens), conversation)
        whole = tokens.apply_chat_template(chat_messages(conversation), tokenize=True, return_dict=False)
        assert [token for turn in turns for part in turn for token in part] == whole
        assert [tokens.decode(answer) for _, answer in turns] == ["Hello!<|im_end|>\n", "Me.<|im_end|>\n"]
        asked = tokens.apply_chat_template(
            chat_messages(conversation)[:-1], tokenize=True, return_dict=False, add_generation_prompt=True
        )
        assert asked == whole[: len(asked)]


def test_a_template_without_a_generation_prompt_of_its_own_is_understood() -> None:
    tokens = tokenizer("yi")
    assert [tokens.decode(answer) for _, answer in encode(ChatTemplateEncoder(tokens), TALK)] == [
        "Hello!<|im_end|>\n",
        "Me.<|im_end|>\n",
    ]


def test_a_template_that_respells_earlier_turns_is_refused() -> None:
    tokens = tokenizer("qwen")
    tokens.chat_template = "{% for m in messages %}{{ m.role if loop.last else '' }}{{ m.content }}{% endfor %}"
    [refused] = ChatTemplateEncoder(tokens).encode([TALK])
    assert isinstance(refused, UnstableTemplate)


def test_a_row_that_the_models_template_refuses_is_an_error_of_that_row_alone() -> None:
    tokens = tokenizer("qwen")
    tokens.chat_template = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system prompts') }}{% endif %}"
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
    )
    refused, accepted = ChatTemplateEncoder(tokens).encode([Conversation(TALK.turns, "Be brief."), TALK])
    assert isinstance(refused, RowError)
    assert "no system prompts" in str(refused)
    assert isinstance(accepted, list)


def test_an_answer_ends_where_the_template_says() -> None:
    qwen, yi = tokenizer("qwen"), tokenizer("yi")
    end = {"qwen": qwen.convert_tokens_to_ids("<|im_end|>"), "yi": yi.convert_tokens_to_ids("<|im_end|>")}
    assert stop_token_ids(qwen, None) == [end["qwen"]]
    assert stop_token_ids(yi, None) == [end["yi"]]
    # Yi's base models name another end-of-sequence token; the template's terminator ends an answer all the same.
    yi.eos_token = "<|endoftext|>"
    apply_template(yi, TEMPLATES["yi"])
    assert stop_token_ids(yi, TEMPLATES["yi"]) == sorted([yi.eos_token_id, end["yi"]])
    assert stop_token_ids(yi, None) == sorted([yi.eos_token_id, end["yi"]])


def test_a_template_whose_terminator_the_tokenizer_does_not_know_is_refused() -> None:
    with pytest.raises(StageFailure, match=r"llama3 ends an answer with <\|eot_id\|>") as caught:
        apply_template(tokenizer("qwen"), TEMPLATES["llama3"])
    assert caught.value.code is ExitCode.INVALID_SPEC


@pytest.mark.parametrize(
    ("tokenization", "said_of_it"),
    [
        ({"template": "lama3"}, "template: lama3 is unknown; did you mean llama3"),
        ({"template": "Qwen3"}, "template: Qwen3 is unknown; did you mean qwen3"),
        ({"template": "xyzzy"}, "template: xyzzy is unknown; expected Auto (the model's own) or one of alpaca, "),
        ({"template": "glm4", "trainOnPrompt": True}, "trainOnPrompt: the template glm4 labels the begin of a prompt"),
    ],
)
def test_what_a_template_cannot_do_is_refused_before_anything_is_fetched(
    tmp_path: Path, tokenization: dict[str, object], said_of_it: str
) -> None:
    with pytest.raises(StageFailure) as caught:
        check_supported(make_run(tmp_path, tmp_path / "model", tmp_path / "rows.jsonl", tokenization=tokenization))
    assert caught.value.code is ExitCode.INVALID_SPEC
    assert f"spec.tokenization.{said_of_it}" in caught.value.message


def test_a_closing_token_has_its_place_within_the_longest_sequence() -> None:
    turns = [([1, 2], [3, 4]), ([5, 6], [7, 8])]
    whole = label_turns(turns, Tokenization(), 9, closing=99)
    assert whole.input_ids == [1, 2, 3, 4, 5, 6, 7, 8, 99]
    assert whole.labels == [IGNORED, IGNORED, 3, 4, 99, IGNORED, 7, 8, 99]
    assert len(label_turns(turns, Tokenization(), 8, closing=99).input_ids) <= 8


def test_a_turn_without_a_prompt_leaves_no_place_for_the_closing_token_before_it() -> None:
    example = label_turns([([1], [2]), ([], [3])], Tokenization(), 100, closing=99)
    assert example.input_ids == [1, 2, 3, 99]
    assert example.labels == [IGNORED, 2, 3, 99]

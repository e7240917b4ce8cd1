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
from finetune_trainer.prepare.labels import IGNORED, label_turns
from finetune_trainer.prepare.layouts import conversation_of
from finetune_trainer.prepare.tokenizer import apply_template, load_tokenizer, stop_token_ids
from finetune_trainer.templates import TEMPLATES

GOLDENS = Path(__file__).parent / "data" / "llamafactory"
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
    assert tokens.apply_chat_template(conversation.messages(), tokenize=True, return_dict=False) == trained
    asked = tokens.apply_chat_template(
        conversation.messages()[:-1], tokenize=True, return_dict=False, add_generation_prompt=True
    )
    assert asked == trained[: len(asked)]


@pytest.mark.parametrize("name", ["llama3", "default"])
def test_templates_of_several_pieces_are_rendered_as_they_are_spelled(name: str) -> None:
    tokens = tokenizer("yi")
    for word in TEMPLATES[name].stop_words:
        tokens.add_tokens(word, special_tokens=True)
    apply_template(tokens, TEMPLATES[name])
    conversation = Conversation(TALK.turns, "Be brief.")
    trained = [
        token
        for turn in encode(TemplateEncoder(tokens, TEMPLATES[name]), conversation)
        for part in turn
        for token in part
    ]
    rendered = str(tokens.apply_chat_template(conversation.messages(), tokenize=False))
    assert tokens.decode(trained) == tokens.decode(tokens(rendered, add_special_tokens=False)["input_ids"])


def test_the_models_own_template_gives_the_ids_of_the_whole_rendering() -> None:
    tokens = tokenizer("qwen")
    for conversation in (TALK, Conversation(TALK.turns, "Be brief.")):
        turns = encode(ChatTemplateEncoder(tokens), conversation)
        whole = tokens.apply_chat_template(conversation.messages(), tokenize=True, return_dict=False)
        assert [token for turn in turns for part in turn for token in part] == whole
        assert [tokens.decode(answer) for _, answer in turns] == ["Hello!<|im_end|>\n", "Me.<|im_end|>\n"]
        asked = tokens.apply_chat_template(
            conversation.messages()[:-1], tokenize=True, return_dict=False, add_generation_prompt=True
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

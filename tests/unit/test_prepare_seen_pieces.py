"""Ids that are put together from pieces seen before are those of the tokenizer itself."""

import random

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from finetune_trainer.prepare import seen_pieces
from finetune_trainer.prepare.seen_pieces import SeenPieces
from finetune_trainer.prepare.text_tokens import TextTokens

PATTERNS = sorted(seen_pieces._PATTERNS)
SPECIAL = ["<|im_start|>", "<|im_end|>", "<|im", "<tool_call>"]
TEXT = "It's what they'LL say: we've 1234 ways, don't we? print(f'{x:>10}')\n\n    return  x  # 12.5%\r\n\tdone... Ça suffit, 你好。"
WORDS = [
    *TEXT.split(" "),
    *SPECIAL,
    " ",
    "  ",
    "\n",
    "\r\n",
    "\t",
    "'S",
    "'re",
    "_",
    "--",
    "0",
    "99999",
    "<|",
    "|>",
    "<",
]
ODD = ["é", "ſ", "\x0b", "\x1c", "\x85", "\u2028", "Ⅷ", "½", "e\u0301", "\U0001f600"]
"""What engines of regular expressions take for different things, or what NFC changes."""


def a_tokenizer(pattern: str, behavior: str = "isolated", ignore_merges: bool = False) -> Tokenizer:
    """One that learnt its pieces from the text, with the bytes of all others."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    tokenizer.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(pattern), behavior=behavior)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([TEXT] * 3, trainer)
    tokenizer.add_special_tokens([AddedToken(content, normalized=False) for content in SPECIAL])
    return tokenizer


def some_texts(words: list[str]) -> list[str]:
    chance = random.Random(0)
    ascii_alone = ["".join(chr(chance.randrange(128)) for _ in range(chance.randrange(12))) for _ in range(2000)]
    return ["", *ascii_alone, *("".join(chance.choices(words, k=chance.randrange(1, 30))) for _ in range(2000))]


def ids_of(tokenizer: Tokenizer, texts: list[str]) -> list[list[int]]:
    return [encoding.ids for encoding in tokenizer.encode_batch(texts, add_special_tokens=False)]


@pytest.mark.parametrize("ignore_merges", [False, True])
@pytest.mark.parametrize("pattern", PATTERNS, ids=["Llama 3", "Qwen2"])
def test_the_ids_are_the_tokenizers_own_whatever_the_text(pattern: str, ignore_merges: bool) -> None:
    tokenizer = a_tokenizer(pattern, ignore_merges=ignore_merges)
    texts = some_texts(WORDS + ODD)
    ids = TextTokens(PreTrainedTokenizerFast(tokenizer_object=tokenizer)).ids
    expected = ids_of(tokenizer, texts)
    assert ids(texts) == expected
    assert ids(texts) == expected, "otherwise once they were seen"


@pytest.mark.parametrize("pattern", PATTERNS, ids=["Llama 3", "Qwen2"])
def test_plain_text_is_put_together_and_other_text_is_left_to_the_tokenizer(pattern: str) -> None:
    tokenizer = a_tokenizer(pattern)
    seen = SeenPieces.of(tokenizer)
    assert seen is not None
    words = [word for word in WORDS if word.isascii()]
    plain = [text for text in some_texts(words) if all(each.isprintable() or each in "\t\n\r" for each in text)]
    assert len(plain) > 2000
    assert [seen.ids(text) for text in plain] == ids_of(tokenizer, plain)
    assert [seen.ids(f"a{odd}") for odd in ODD] == [None] * len(ODD)


def test_pieces_are_forgotten_before_they_take_much_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seen_pieces, "_MOST", 3)
    tokenizer = a_tokenizer(PATTERNS[0])
    seen = SeenPieces.of(tokenizer)
    assert seen is not None
    assert [seen.ids("one two three four five one")] == ids_of(tokenizer, ["one two three four five one"])
    assert len(seen._known) <= 3
    assert [seen.ids("a" * 1000)] == ids_of(tokenizer, ["a" * 1000])
    assert "a" * 1000 not in seen._known


@pytest.mark.parametrize("flag", ["normalized", "lstrip", "rstrip", "single_word"])
def test_a_text_with_a_token_that_takes_in_its_surroundings_is_left_to_the_tokenizer(flag: str) -> None:
    tokenizer = a_tokenizer(PATTERNS[0])
    tokenizer.add_tokens([AddedToken("<odd>", **{"normalized": False, flag: True})])
    seen = SeenPieces.of(tokenizer)
    assert seen is not None
    assert seen.ids("a <odd> b") is None
    assert seen.ids("a odd b") is not None


def a_whitespace_tokenizer() -> Tokenizer:
    tokenizer = a_tokenizer(PATTERNS[0])
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer


def one_that_changes_letters() -> Tokenizer:
    tokenizer = a_tokenizer(PATTERNS[0])
    tokenizer.normalizer = normalizers.Lowercase()
    return tokenizer


def one_that_drops_merges() -> Tokenizer:
    tokenizer = a_tokenizer(PATTERNS[0])
    tokenizer.model.dropout = 0.5
    return tokenizer


@pytest.mark.parametrize(
    "tokenizer",
    [
        a_tokenizer(PATTERNS[0] + r"|\s"),
        a_tokenizer(PATTERNS[0], behavior="removed"),
        a_whitespace_tokenizer(),
        one_that_changes_letters(),
        one_that_drops_merges(),
        Tokenizer(models.WordLevel({"a": 0}, unk_token="a")),
    ],
    ids=["another pattern", "another behaviour", "white space", "lower case", "dropout", "words"],
)
def test_a_tokenizer_of_another_kind_is_always_asked(tokenizer: Tokenizer) -> None:
    assert SeenPieces.of(tokenizer) is None

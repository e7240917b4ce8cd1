"""Rows of every layout become conversations, and every way to be wrong is told apart."""

import json

import pytest

from finetune_operator.api.dataset import Dataset
from finetune_trainer.prepare.conversation import Conversation, MisorderedRow, Role, RowError, Turn
from finetune_trainer.prepare.layouts import conversation_of, refuse_unread_tools
from finetune_trainer.prepare.tool_messages import with_read_arguments


def dataset(**fields: object) -> Dataset:
    return Dataset.model_validate({"source": "pvc://data/rows.jsonl", **fields})


MESSAGES = dataset()
SHAREGPT = dataset(format="ShareGPT")
ALPACA = dataset(format="Alpaca")
TOOLED = dataset(columns={"tools": "tools"})
TALKS = dataset(format="ShareGPT", columns={"tools": "tools"})
RENAMED = dataset(
    format="ShareGPT",
    columns={"messages": "talk", "system": "prompt"},
    tags={"role": "who", "content": "what", "user": "me", "assistant": "you", "system": "boss"},
)


def talk(*texts: str, system: str | None = None) -> Conversation:
    roles = (Role.USER, Role.ASSISTANT)
    return Conversation(tuple(Turn(roles[index % 2], text) for index, text in enumerate(texts)), system)


def said(role: str, content: object) -> dict[str, object]:
    return {"role": role, "content": content}


@pytest.mark.parametrize(
    ("of", "row", "expected"),
    [
        (MESSAGES, {"messages": [said("user", "a"), said("assistant", "b")]}, talk("a", "b")),
        (
            MESSAGES,
            {"messages": [said("system", "s"), said("user", "a"), said("assistant", "")]},
            talk("a", "", system="s"),
        ),
        (
            MESSAGES,
            {"messages": [said("system", ""), said("user", ""), said("assistant", "b")]},
            talk("", "b", system=""),
        ),
        (SHAREGPT, {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}, talk("a", "b")),
        (
            RENAMED,
            {"prompt": "p", "talk": [{"who": "me", "what": "a"}, {"who": "you", "what": "b"}]},
            talk("a", "b", system="p"),
        ),
        (
            RENAMED,
            {
                "prompt": "p",
                "talk": [{"who": "boss", "what": "s"}, {"who": "me", "what": "a"}, {"who": "you", "what": "b"}],
            },
            talk("a", "b", system="s"),
        ),
        (ALPACA, {"instruction": "a", "input": "i", "output": "b"}, talk("a\ni", "b")),
        (ALPACA, {"instruction": "", "input": "i", "output": ""}, talk("i", "")),
        (ALPACA, {"instruction": "a", "output": "b", "system": "s"}, talk("a", "b", system="s")),
        (ALPACA, {"instruction": "a", "output": "b", "history": [["q", "r"]]}, talk("q", "r", "a", "b")),
        (ALPACA, {"instruction": "a", "output": "b", "history": '[["q", "r"]]'}, talk("q", "r", "a", "b")),
        (MESSAGES, {"messages": json.dumps([said("user", "a"), said("assistant", "b")])}, talk("a", "b")),
        (
            MESSAGES,
            {
                "messages": [said("user", "a"), {**said("assistant", "b"), "tool_calls": None}],
                "chosen": [],
                "rejected": [],
            },
            talk("a", "b"),
        ),
    ],
)
def test_a_row_of_each_layout_becomes_a_conversation(of: Dataset, row: object, expected: Conversation) -> None:
    assert conversation_of(row, of) == expected


@pytest.mark.parametrize(
    ("of", "row", "said_of_it"),
    [
        (MESSAGES, ["no", "object"], "is a list, expected an object"),
        (MESSAGES, {"text": "x"}, "has no 'messages', found text"),
        (MESSAGES, {"messages": None}, "column 'messages' is null, expected a list"),
        (MESSAGES, {"messages": ["x"]}, r"messages\[0\] is a string, expected an object"),
        (MESSAGES, {"messages": [said("user", None), said("assistant", "b")]}, r"messages\[0\]\.content is null"),
        (MESSAGES, {"messages": [said("user", 3), said("assistant", "b")]}, r"messages\[0\]\.content is a number"),
        (
            MESSAGES,
            {"messages": [{"role": "user"}, said("assistant", "b")]},
            r"messages\[0\] has no 'content', found role",
        ),
        (MESSAGES, {"messages": [said("user", "a"), said("function", "b")]}, r"messages\[1\] is of role function"),
        (
            MESSAGES,
            {"messages": [said("user", "a"), {**said("assistant", None), "tool_calls": [1]}]},
            r"messages\[1\]\.tool_calls is not a list of calls",
        ),
        (
            TOOLED,
            {"tools": 3, "messages": [said("user", "a"), said("assistant", "b")]},
            "column 'tools' is 3, expected a list",
        ),
        (MESSAGES, {"prompt": "a", "chosen": [], "rejected": []}, "is a preference row"),
        (ALPACA, {"instruction": "a", "chosen": "b", "rejected": "c"}, "is a preference row"),
        (ALPACA, {"instruction": "a", "output": "b", "kto_tag": True}, "is a preference row"),
        (ALPACA, {"messages": []}, "looks like format Messages: set the dataset's format"),
        (MESSAGES, {"instruction": "a", "output": "b"}, "looks like format Alpaca: set the dataset's format"),
        (MESSAGES, {"messages": "[{"}, "holds a list that is malformed JSON"),
        (ALPACA, {"output": "b"}, "has no 'instruction', found output"),
        (ALPACA, {"instruction": "a", "output": 3}, "column 'output' is a number, expected a string"),
        (ALPACA, {"instruction": "a", "output": "b", "history": [["q"]]}, r"history\[0\] is not a pair"),
    ],
)
def test_a_row_that_cannot_be_read_says_what_was_found(of: Dataset, row: object, said_of_it: str) -> None:
    with pytest.raises(RowError, match=said_of_it) as caught:
        conversation_of(row, of)
    assert not isinstance(caught.value, MisorderedRow)


@pytest.mark.parametrize(
    ("of", "row", "said_of_it"),
    [
        (MESSAGES, {"messages": []}, "has no message of a user"),
        (MESSAGES, {"messages": [said("system", "s")]}, "has no message of a user"),
        (MESSAGES, {"messages": [said("user", "a")]}, "ends with a message of the user"),
        (
            MESSAGES,
            {"messages": [said("assistant", "a"), said("user", "b")]},
            r"messages\[0\] is of role assistant, expected user",
        ),
        (
            MESSAGES,
            {"messages": [said("user", "a"), said("user", "b")]},
            r"messages\[1\] is of role user, expected assistant",
        ),
        (
            MESSAGES,
            {"messages": [said("system", "s"), said("system", "t"), said("user", "a"), said("assistant", "b")]},
            r"messages\[1\] is of role system, expected user",
        ),
        (
            MESSAGES,
            {"messages": [said("robot", "a"), said("assistant", "b")]},
            "role is 'robot', expected one of system, user",
        ),
        (
            RENAMED,
            {"prompt": "", "talk": [{"who": "me", "what": "a"}, {"who": "function_call", "what": "b"}]},
            "who is 'function_call', expected one of boss, me, you",
        ),
        (
            SHAREGPT,
            {"conversations": [{"from": "user", "value": "a"}]},
            "from is 'user', expected one of system, human, gpt",
        ),
        (ALPACA, {"instruction": "a", "output": None}, "column 'output' is null"),
    ],
)
def test_a_row_whose_turns_are_out_of_order_is_told_apart(of: Dataset, row: object, said_of_it: str) -> None:
    with pytest.raises(MisorderedRow, match=said_of_it):
        conversation_of(row, of)


CALL = {"name": "now", "arguments": '{"zone": "UTC"}'}


def turns(*said_by: tuple[Role, str]) -> tuple[Turn, ...]:
    return tuple(Turn(role, text) for role, text in said_by)


def test_calls_are_answers_and_results_prompts_in_the_openai_layout() -> None:
    row = {
        "tools": [{"name": "now"}],
        "messages": [
            said("user", "a"),
            {**said("assistant", None), "tool_calls": [{"type": "function", "function": CALL}]},
            said("tool", "1"),
            said("tool", "2"),
            said("assistant", "b"),
        ],
    }
    found = conversation_of(row, TOOLED)
    assert found.tools == '[{"name": "now"}]'
    assert found.turns == turns(
        (Role.USER, "a"),
        (Role.FUNCTION, json.dumps([CALL])),
        (Role.OBSERVATION, "1\n</tool_response>\n<tool_response>\n2"),
        (Role.ASSISTANT, "b"),
    )
    read = with_read_arguments(found).turns[1].content
    assert json.loads(read) == [{"name": "now", "arguments": {"zone": "UTC"}}]


def test_a_message_out_of_order_is_named_by_its_own_number_though_results_before_it_were_joined() -> None:
    row = {
        "messages": [
            said("user", "a"),
            {**said("assistant", None), "tool_calls": [{"function": CALL}]},
            said("tool", "1"),
            said("tool", "2"),
            said("user", "b"),
        ]
    }
    with pytest.raises(MisorderedRow, match=r"messages\[4\] is of role user, expected assistant"):
        conversation_of(row, MESSAGES)


def test_results_that_no_answer_follows_are_left_out() -> None:
    row = {
        "messages": [
            said("user", "a"),
            {**said("assistant", ""), "tool_calls": [{"function": CALL}]},
            said("tool", "1"),
        ]
    }
    assert [turn.role for turn in conversation_of(row, MESSAGES).turns] == [Role.USER, Role.FUNCTION]


def test_calls_are_answers_and_results_prompts_under_sharegpts_roles() -> None:
    row = {
        "tools": "[]",
        "conversations": [
            {"from": "human", "value": "a"},
            {"from": "function_call", "value": "{}"},
            {"from": "observation", "value": "1"},
            {"from": "gpt", "value": "b"},
        ],
    }
    found = conversation_of(row, TALKS)
    assert [turn.role for turn in found.turns] == [Role.USER, Role.FUNCTION, Role.OBSERVATION, Role.ASSISTANT]
    assert found.tools == "[]"


def test_calls_that_only_the_openai_layout_reads_are_refused_by_their_own_check() -> None:
    row = {
        "conversations": [
            {"from": "human", "value": "a"},
            {"from": "gpt", "value": "", "tool_calls": [{"function": CALL}]},
        ]
    }
    assert conversation_of(row, SHAREGPT).turns
    with pytest.raises(RowError, match="has tool_calls, which only format Messages reads"):
        refuse_unread_tools(row, SHAREGPT)


def test_tools_that_no_column_is_named_for_are_refused_by_their_own_check() -> None:
    row = {"tools": "[]", "messages": [said("user", "a"), said("assistant", "b")]}
    assert conversation_of(row, MESSAGES).turns
    with pytest.raises(RowError, match="has tools in column 'tools'"):
        refuse_unread_tools(row, MESSAGES)

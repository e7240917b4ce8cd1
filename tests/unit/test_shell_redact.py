"""Secrets are cut out, and what helps to find a fault is left in."""

import json
import logging
import secrets
import sys

import pytest

from finetune_operator.api.redact import REDACTED
from finetune_operator.shell.log import JsonLine, PlainLine
from finetune_operator.shell.logtail import last_lines
from finetune_operator.shell.redact import redact


@pytest.mark.parametrize(
    "secret",
    [
        "hf_abcdefghijklmnopqrstuvwx",
        "Bearer abc123.def456",
        "bearer 0123456789abcdef",
        "AKIAIOSFODNN7EXAMPLE",
        "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        "sk-proj-abcd1234efgh",
        "ghp_0123456789abcdefghijABCDEFGHIJ",
        "8f14e45fceea167a5a36dedd4bea2543f6a1b2c3",
        "eyJhbGciOiJSUzI1NiIsImtpZCI6.eyJhdWQiOlsiYSJdfQ.c2lnbmF0dXJl",
        "QWxhZGRpbjpvcGVuIHNlc2FtZTEyMzQ1Njc4OTA=",
    ],
)
def test_a_secret_does_not_get_through(secret: str) -> None:
    shown = redact(f"request failed with {secret} at step 7")
    assert secret not in shown
    assert REDACTED in shown
    assert shown.endswith("at step 7")


def test_a_password_in_an_address_does_not_get_through() -> None:
    assert redact("https://me:pa55@hub.example/x") == f"https://{REDACTED}@hub.example/x"


@pytest.mark.parametrize(
    "line",
    [
        "FileNotFoundError: /finetune/job/checkpoints/checkpoint-100/model-00001-of-00004.safetensors",
        "OSError: models--Qwen--Qwen2-7B-Instruct is not a local folder",
        "chat.jsonl:7: messages[2].content: found an empty string, expected text",
        "{'loss': 1.2345, 'grad_norm': 0.98765, 'learning_rate': 0.0001, 'epoch': 0.5}",
        "ValidationError: training.gradientAccumulationSteps: Input should be greater than 0",
        "hf://org/name: revision '8f14e45fceea167a5a36dedd4bea2543f6a1b2c3' does not exist",
        f"its sha256 is {'0e' * 32}, expected {'a1' * 32}",
        "at commit 8f14e45fceea167a5a36dedd4bea2543f6a1b2c3",
    ],
)
def test_what_helps_is_left_as_it_is(line: str) -> None:
    assert redact(line) == line


def test_random_keys_without_a_prefix_are_found() -> None:
    keys = [secrets.token_urlsafe(36) for _ in range(1000)]
    missed = [key for key in keys if key in redact(f"key {key}")]
    assert len(missed) < 10


def test_of_a_progress_bar_only_the_last_state_is_shown() -> None:
    text = "start\n 1%|#\r 50%|##\r100%|###\nTraceback:\n\nValueError: no\n"
    assert last_lines(text, 3) == ("100%|###", "Traceback:", "ValueError: no")


def test_a_very_long_line_is_cut() -> None:
    (line,) = last_lines("a b " * 5000, 1)
    assert len(line) == 400


def test_a_log_line_bears_no_secret_and_stays_one_line() -> None:
    record = logging.LogRecord("finetune", logging.WARNING, "", 1, "sent %s\nagain", ("Bearer abcdef123456",), None)
    plain = PlainLine().format(record)
    assert plain.endswith(f"WARNING finetune: sent {REDACTED} | again")
    entry = json.loads(JsonLine().format(record))
    assert (entry["level"], entry["logger"], entry["message"]) == ("warning", "finetune", f"sent {REDACTED}\nagain")


def test_a_traceback_stands_in_the_log_without_its_secrets() -> None:
    try:
        raise ValueError("token hf_abcdefghijklmnop was refused")
    except ValueError:
        record = logging.LogRecord("finetune", logging.ERROR, "", 1, "failed", (), sys.exc_info())
    for line in (PlainLine().format(record), JsonLine().format(record)):
        assert "ValueError" in line
        assert "hf_abc" not in line

"""The operator's own log: one line an event, on stderr, without secrets."""

from __future__ import annotations

import datetime as dt
import json
import logging
import sys

from finetune_operator.shell.redact import redact

PLAIN = "plain"
JSON = "json"


def configure(layout: str, verbose: bool) -> None:
    """Send every logger of the process to stderr in that layout."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLine() if layout == JSON else PlainLine())
    logging.basicConfig(level=logging.DEBUG if verbose else logging.INFO, handlers=[handler], force=True)
    if not verbose:
        # kopf tells of every handler that it called; ours only enqueue
        for chatty in ("kopf.objects", "kopf.activities", "kopf._core.engines.activities"):
            logging.getLogger(chatty).setLevel(logging.WARNING)


class PlainLine(logging.Formatter):
    """``2026-01-02T03:04:05Z INFO logger: message``."""

    def format(self, record: logging.LogRecord) -> str:
        """One line; a traceback follows on lines of its own."""
        message = record.getMessage().replace("\n", " | ")
        text = f"{_moment(record)} {record.levelname} {record.name}: {message}"
        return redact(text + (f"\n{self.formatException(record.exc_info)}" if record.exc_info else ""))


class JsonLine(logging.Formatter):
    """One JSON object a line, traceback included."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        entry = {
            "time": _moment(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": redact(record.getMessage()),
        }
        if record.exc_info:
            entry["traceback"] = redact(self.formatException(record.exc_info))
        return json.dumps(entry, ensure_ascii=False)


def _moment(record: logging.LogRecord) -> str:
    return dt.datetime.fromtimestamp(record.created, dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")

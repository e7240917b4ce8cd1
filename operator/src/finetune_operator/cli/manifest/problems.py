"""Pydantic's errors in plain words: ``spec.field: found X, expected Y``."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from finetune_operator.api import base
from finetune_operator.api.source import SOURCE_PATTERN
from finetune_operator.cli.manifest.fields import ABSENT, Place, find, names

SHOWN = 80
"""Characters of a found value that are shown."""

PATTERNS: Mapping[str, str] = {
    base.DECIMAL_PATTERN: 'a decimal number in quotes, zero or more, such as "1e-4"',
    base.QUANTITY_PATTERN: 'a quantity such as "16Gi" or "500m"',
    base.DNS_LABEL_PATTERN: "lower-case letters, digits and hyphens, beginning and ending with a letter or digit",
    base.DNS_SUBDOMAIN_PATTERN: "lower-case letters, digits, hyphens and dots, beginning and ending with a letter or digit",
    SOURCE_PATTERN: "hf://org/name, ms://org/name, pvc://claim/path, configmap://name/key, s3://bucket/prefix, oci://image or "
    "file:///path",
}

# Rules that span fields come joined in one text, each as `field: message`, because they belong to the model as a whole.
_NEXT_RULE = re.compile(r"; (?=[A-Za-z][A-Za-z0-9.]*: )")


def explain(error: ValidationError, root: type[BaseModel], document: Any) -> list[str]:
    """One line for each wrong field, in the order of the API's fields."""
    by_field: dict[str, str] = {}
    for detail in error.errors(include_url=False):
        for place, words in _explain(detail, root, document):
            # A field of two possible types fails once for each; the first says it all.
            by_field.setdefault(place.path, words)
    return [f"{path}: {words}" for path, words in by_field.items()]


def _explain(detail: ErrorDetails, root: type[BaseModel], document: Any) -> Iterator[tuple[Place, str]]:
    place = find(root, document, detail["loc"])
    if detail["type"] == "value_error":
        yield from _broken_rules(detail, root, document)
    elif detail["type"] == "extra_forbidden":
        yield place, f"unknown field; {_neighbours(place)}"
    else:
        yield place, f"found {show(place.value)}, expected {_expected(detail, place)}"


def _broken_rules(detail: ErrorDetails, root: type[BaseModel], document: Any) -> Iterator[tuple[Place, str]]:
    for field, message in split_rules(str(detail["ctx"]["error"])):
        location = (*detail["loc"], *field.split(".")) if field else detail["loc"]
        place = find(root, document, location)
        found = f"found {show(place.value)}, but " if field else ""
        yield place, found + message.removeprefix(place.path).strip()


def split_rules(text: str) -> Iterator[tuple[str, str]]:
    """(field, message) of each rule in a joined text; the field is empty where the text names none."""
    for rule in _NEXT_RULE.split(text):
        field, separator, message = rule.partition(": ")
        yield (field, message) if separator and " " not in field else ("", rule)


def _neighbours(place: Place) -> str:
    known = names(place.model) if place.model else []
    word = place.path.rpartition(".")[2]
    close = difflib.get_close_matches(word.lower(), [name.lower() for name in known], n=1, cutoff=0.7)
    match = next((name for name in known if close and name.lower() == close[0]), None)
    return f"did you mean {match}?" if match else f"expected one of {', '.join(known)}"


def show(value: Any) -> str:
    """A found value in a line."""
    if value is ABSENT:
        return "nothing"
    if isinstance(value, (dict, list)) and value:
        return "a mapping" if isinstance(value, dict) else f"a list of {len(value)}"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}… ({len(text)} characters)"


def _expected(detail: ErrorDetails, place: Place) -> str:
    describe = _EXPECTED.get(detail["type"])
    return describe(detail.get("ctx", {}), place) if describe else detail["msg"][0].lower() + detail["msg"][1:]


def _missing(_: Mapping[str, Any], place: Place) -> str:
    description = place.field.description if place.field else None
    return f"a value: {description}" if description else "a value"


def _choices(context: Mapping[str, Any], place: Place) -> str:
    choices = re.findall(r"'([^']*)'", context["expected"])
    return f"one of {', '.join(choices)}{_hint(place.value, choices)}"


def _hint(value: Any, choices: list[str]) -> str:
    if isinstance(value, bool):
        # YAML reads a bare On, Off, Yes or No as true or false.
        word = "Enabled" if value else "Disabled"
        return f"; did you mean {word}?" if word in choices else ""
    by_lower = {choice.lower(): choice for choice in choices}
    close = difflib.get_close_matches(str(value).lower(), by_lower, n=1)
    return f"; did you mean {by_lower[close[0]]}?" if close else ""


def _text(_: Mapping[str, Any], place: Place) -> str:
    is_scalar = isinstance(place.value, (bool, int, float))
    return f'text; write it in quotes: "{json.dumps(place.value)}"' if is_scalar else "text"


def _whole(_: Mapping[str, Any], place: Place) -> str:
    if place.field and "str" in str(place.field.annotation):
        return 'a whole number, or a decimal number in quotes such as "0.5"'
    return "a whole number without quotes"


_Describe = Callable[[Mapping[str, Any], Place], str]
_EXPECTED: Mapping[str, _Describe] = {
    "missing": _missing,
    "enum": _choices,
    "literal_error": _choices,
    "string_type": _text,
    "int_type": _whole,
    "int_from_float": _whole,
    "bool_type": lambda context, place: "true or false",
    "dict_type": lambda context, place: "a mapping",
    "model_type": lambda context, place: "a mapping",
    "list_type": lambda context, place: "a list",
    "string_pattern_mismatch": lambda context, place: PATTERNS.get(
        context["pattern"], f"text like {context['pattern']}"
    ),
    "string_too_short": lambda context, place: f"at least {context['min_length']} characters",
    "string_too_long": lambda context, place: f"at most {context['max_length']} characters",
    "too_short": lambda context, place: f"at least {context['min_length']}",
    "too_long": lambda context, place: f"at most {context['max_length']}",
    "greater_than_equal": lambda context, place: f"{context['ge']} or more",
    "less_than_equal": lambda context, place: f"{context['le']} or less",
}

"""The keys of one file, checked against the table, with LLaMA-Factory's defaults for those that do not stand in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from finetune_operator.cli.convert.findings import Findings, closest
from finetune_operator.cli.convert.keys import (
    CHAT,
    DEPENDENT,
    EXPORT,
    KNOWN,
    MAPPED,
    NOTED,
    REFUSED,
    RENAMED,
    TRAIN,
    Mapped,
)
from finetune_operator.cli.convert.kinds import WrongKind, read
from finetune_operator.cli.convert.training_keys import TRAINING_KEYS
from finetune_operator.cli.convert.yaml_lines import Config
from finetune_operator.cli.manifest.problems import show


@dataclass(frozen=True, slots=True)
class Settings:
    """Typed values by key. A value that was wrong has been reported, and the default stands in its place."""

    config: Config
    purpose: str
    findings: Findings
    _values: Mapping[str, Any]

    def is_set(self, key: str) -> bool:
        """Whether the file gives the key a value, of the right kind."""
        return key in self._values

    def get(self, key: str) -> Any:
        """The value, of the kind that the table says."""
        return self._values.get(key, MAPPED[key].default)

    def flag(self, key: str) -> bool:
        """A switch; off where it is left open."""
        return bool(self.get(key))

    def number(self, key: str) -> float:
        """A number of a key that has a default."""
        return cast(float, self.get(key))

    def text(self, key: str) -> str:
        """Text; empty where there is none."""
        return cast(str, self.get(key) or "")

    def names(self, key: str) -> list[str]:
        """Names; an empty list where there are none."""
        return cast(list[str], self.get(key) or [])


def purpose_of(config: Config) -> str:
    """Which LLaMA-Factory command the file is for."""
    if config.values.get("export_dir") is not None and config.values.get("do_train") is not True:
        return EXPORT
    return TRAIN if "dataset" in config.values or TRAINING_KEYS & config.values.keys() else CHAT


def read_settings(config: Config) -> Settings:
    """Check every key of a file; what is wrong or has nothing to do stands in the findings."""
    purpose, findings = purpose_of(config), Findings(config.file, config.lines)
    values: dict[str, Any] = {}
    for key, value in config.values.items():
        if purpose != TRAIN and key in TRAINING_KEYS:
            findings.problem(key, f"is for training only, but this file is for `llamafactory-cli {purpose}`; remove it")
        elif key in MAPPED:
            _read_mapped(key, value, purpose, findings, values)
        elif key in REFUSED:
            _refuse(key, value, findings)
        elif key in NOTED:
            findings.note(key, NOTED[key])
        elif key in DEPENDENT:
            findings.note(key, f"is read only together with {DEPENDENT[key]}")
        else:
            findings.problem(key, f"unknown key{_known_as(key)}")
    if config.values.get("model_name_or_path") is None:
        findings.problem("model_name_or_path", "found nothing, expected the base model; set it")
    return Settings(config, purpose, findings, values)


def _read_mapped(key: str, value: Any, purpose: str, findings: Findings, values: dict[str, Any]) -> None:
    mapped = MAPPED[key]
    if value is None and mapped.default is not None:
        findings.problem(
            key, f"found nothing, expected {mapped.kind.value}; remove the line for the default, {_shown(mapped)}"
        )
        return
    if value is None:
        return
    try:
        taken = read(mapped.kind, value)
    except WrongKind as error:
        findings.problem(key, str(error))
        return
    if mapped.choices and taken not in mapped.choices:
        hint = closest(taken, mapped.choices)
        findings.problem(
            key, f"found {show(value)}, expected one of {', '.join(mapped.choices)}{hint or '; correct it'}"
        )
        return
    if purpose not in mapped.read_by:
        findings.note(key, f"`llamafactory-cli {purpose}` does not use it")
    values[key] = taken


def _shown(mapped: Mapped) -> str:
    return "all" if mapped.default == ["all"] else show(mapped.default)


def _refuse(key: str, value: Any, findings: Findings) -> None:
    refused = REFUSED[key]
    # True equals 1 in Python, and is another answer.
    if value is None or any(value == harmless and type(value) is type(harmless) for harmless in refused.harmless):
        return
    findings.problem(key, f"found {show(value)}, which a FineTuneJob does not have; {refused.instead}")


def _known_as(key: str) -> str:
    if key in RENAMED:
        return f"; it is called {RENAMED[key]} now"
    return closest(key, KNOWN) or ", which LLaMA-Factory does not have; remove it"

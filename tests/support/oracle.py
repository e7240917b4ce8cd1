"""A folder with what LLaMA-Factory really produced, and the same cases through this project's own commands.

The layout, as far as it is read here: ``goldens/TOKENIZER__TEMPLATE.json`` has ``cases["dataset|cutoff_len|mode"]`` with ``rows`` of
``ids`` and ``lab`` (runs [start, end) where the label equals the id), ``data/`` the datasets with ``dataset_info.json``, ``models/`` tiny
models, and ``*.yaml`` configurations whose runs stand in ``goldens/train/NAME``. ``${ORACLE}`` is the folder, ``${OUT}`` where to write.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

IGNORED = -100
MODELS = {"qwen": "tiny-qwen2", "yi": "tiny-yi"}
"""Model of a tokenizer; others are called tiny-TOKENIZER."""
_SWITCHES = ("neat_packing", "packing", "mask_history", "train_on_prompt")
_ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
Lists = tuple[list[int], list[int]]
"""input_ids and labels of a row or a sequence."""


@dataclass(frozen=True, slots=True)
class Case:
    """One configuration and what it gave."""

    name: str
    """Of the job that it becomes."""
    told: str
    """For messages: golden file and case."""
    keys: Mapping[str, Any]
    expected: list[Lists]

    @property
    def is_packed(self) -> bool:
        """Whether the rows are packed sequences."""
        return bool(self.keys.get("packing") or self.keys.get("neat_packing"))


def cases(oracle: Path) -> Iterator[Case]:
    """Every case of every golden file."""
    count = 0
    for file in sorted((oracle / "goldens").glob("*__*.json")):
        golden = json.loads(file.read_text(encoding="utf-8"))
        for told, found in golden["cases"].items():
            keys = _keys(oracle, golden["tokenizer"], golden["template"], told)
            rows = [(row["ids"], _labels(row)) for row in found["rows"]]
            yield Case(f"case-{count:05d}", f"{file.stem} {told}", keys, rows)
            count += 1


def _keys(oracle: Path, tokenizer: str, template: str, told: str) -> dict[str, Any]:
    dataset, cutoff, mode = told.split("|")
    return {
        "model_name_or_path": str(oracle / "models" / MODELS.get(tokenizer, f"tiny-{tokenizer}")),
        "stage": "sft",
        "do_train": True,
        "finetuning_type": "lora",
        "template": template,
        "dataset": dataset,
        "dataset_dir": str(oracle / "data"),
        "cutoff_len": int(cutoff),
        "output_dir": "saves/case",
        "use_cpu": True,
        **_switches(mode),
    }


def _switches(mode: str) -> dict[str, bool]:
    """The keys that a mode such as ``neat_packing+mask_history`` sets. Raises ValueError for a mode that is not understood."""
    found, left = {}, mode
    for switch in _SWITCHES:
        if switch in left:
            found[switch] = True
            left = left.replace(switch, "")
    if left.strip("_+,- ") not in ("", "plain"):
        raise ValueError(f"{mode}: found {left!r}, expected plain or any of {', '.join(_SWITCHES)}")
    return found


def _labels(row: Mapping[str, Any]) -> list[int]:
    labels = [IGNORED] * len(row["ids"])
    for begin, end in row["lab"]:
        labels[begin:end] = row["ids"][begin:end]
    for position, label in row.get("other", []):
        labels[position] = label
    return labels


def differing(found: Sequence[Case], folder: Path) -> list[str]:
    """The cases that this project's token lists differ in, converted in one call and tokenised in two."""
    manifests = folder / "jobs"
    manifests.mkdir()
    for case in found:
        (folder / f"{case.name}.yaml").write_text(
            "".join(f"{key}: {json.dumps(value)}\n" for key, value in case.keys.items())
        )
    stream = finetune("convert", *(str(folder / f"{case.name}.yaml") for case in found), "--quiet", "-o", "json")
    by_name = {manifest["metadata"]["name"]: manifest for manifest in json.loads(stream)["items"]}
    shown: dict[str, list[Lists]] = defaultdict(list)
    for flags in ([], ["--packed"]):
        chosen = [by_name[case.name] for case in found if case.is_packed == bool(flags)]
        if not chosen:
            continue
        file = manifests / f"jobs{len(flags)}.yaml"
        file.write_text("".join(f"---\n{json.dumps(manifest)}\n" for manifest in chosen))
        for line in finetune("tokens", str(file), *flags).splitlines():
            row = json.loads(line)
            shown[row["job"]].append((row["input_ids"], row["labels"]))
    return [case.told for case in found if shown[case.name] != case.expected]


def finetune(*words: str) -> str:
    """Standard output of a command that has to succeed."""
    program = Path(sys.executable).with_name("finetune")
    done = subprocess.run([program, *words], capture_output=True, text=True, env=_ENVIRONMENT, check=False)
    if done.returncode:
        raise AssertionError(f"finetune {words[0]}: exit code {done.returncode}\n{done.stderr[-4000:]}")
    return done.stdout


def training_cases(oracle: Path) -> list[str]:
    """Names of the runs that there is a configuration for."""
    recorded = {path.parent.name for path in (oracle / "goldens" / "train").glob("*/record.json")}
    return sorted(path.stem for path in oracle.glob("*.yaml") if path.stem in recorded)


def configurations(oracle: Path, name: str, folder: Path) -> list[str]:
    """The files of a run, its export too where there is one, with the folders written in."""
    files = []
    for path in (oracle / f"{name}.yaml", oracle / f"{name}.export.yaml"):
        if path.exists():
            text = path.read_text().replace("${ORACLE}", str(oracle)).replace("${OUT}", str(folder / "out"))
            (folder / path.name.replace(".export", "-export")).write_text(text)
            files.append(str(folder / path.name.replace(".export", "-export")))
    return files

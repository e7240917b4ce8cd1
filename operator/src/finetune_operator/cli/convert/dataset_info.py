"""``dataset_info.json``: where it lies, and its entries as datasets of a job."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_operator.api.dataset import Format
from finetune_operator.api.source import SOURCE_PATTERN, Scheme
from finetune_operator.cli.convert.dataset_layout import LAYOUT_KEYS, layout, openai_layout
from finetune_operator.cli.convert.findings import closest, listing
from finetune_operator.cli.convert.options import Options
from finetune_operator.cli.convert.settings import Settings
from finetune_operator.cli.convert.sources import NoSource, file_source, hub_source
from finetune_operator.cli.manifest.problems import show

Entry = Mapping[str, Any]
Say = Callable[[str], None]

INFO = "dataset_info.json"
ONLINE = "ONLINE"
IDENTITY = "identity"
IDENTITY_SOURCE = f"{Scheme.CONFIG_MAP.value}://identity/identity.json"
"""The identity rows that come with this project: examples/data."""
SUFFIXES = (".json", ".jsonl", ".csv", ".parquet", ".arrow")
_FORMATS = {"alpaca": Format.ALPACA, "sharegpt": Format.SHAREGPT, "openai": Format.SHAREGPT}
_SOURCES = ("hf_hub_url", "ms_hub_url", "om_hub_url", "script_url", "cloud_file_name", "file_name")
_KEYS = (*_SOURCES, *LAYOUT_KEYS, "formatting", "ranking", "subset", "split", "folder", "num_samples")
_PLACEHOLDER = re.compile(rb"\{\{(\w+)\}\}")
_SCANNED = 1 << 20
"""Rows with placeholders are few and written by hand: larger files are not searched for them."""


@dataclass(frozen=True, slots=True)
class Info:
    """A dataset_info.json."""

    folder: Path
    entries: Mapping[str, Entry]


def datasets(key: str, settings: Settings, options: Options) -> list[dict[str, Any]]:
    """The datasets that ``dataset`` or ``eval_dataset`` names, as in spec.datasets."""
    names = settings.names(key)
    if not names:
        return []
    if options.dataset_dir is None and settings.text("dataset_dir") == ONLINE:
        return [found for name in names if (found := _online(name, key, settings, options))]
    info = _find(settings, options)
    if info is None:
        return []
    return [found for name in names if (found := _registered(name, key, info, settings, options))]


def _online(name: str, key: str, settings: Settings, options: Options) -> dict[str, Any] | None:
    try:
        source = hub_source(name, options.hub)
    except NoSource as error:
        settings.findings.problem(key, str(error))
        return None
    return {"source": source, **layout({}, Format.ALPACA, lambda text: None), **_max_samples(settings)}


def _find(settings: Settings, options: Options) -> Info | None:
    folders = list(_folders(settings, options))
    folder = next((folder for folder in folders if (folder / INFO).is_file()), None)
    if folder is None:
        looked = ", ".join(str(folder.absolute()) for folder in folders) or settings.text("dataset_dir")
        settings.findings.problem(
            "dataset_dir" if settings.is_set("dataset_dir") else "dataset",
            f"found no {INFO} in {looked}; name its folder with --dataset-dir",
        )
        return None
    try:
        return Info(folder.absolute(), _entries(folder / INFO))
    except ValueError as error:
        settings.findings.problem("dataset", f"{folder / INFO}: {error}")
        return None


def _folders(settings: Settings, options: Options) -> Iterator[Path]:
    """Where LLaMA-Factory looks, which is the working directory; then beside the file, which may be read from anywhere."""
    if options.dataset_dir is not None:
        yield Path(options.dataset_dir).expanduser()
        return
    named = Path(settings.text("dataset_dir")).expanduser()
    yield named
    yield settings.config.folder / named
    if not settings.is_set("dataset_dir"):
        yield settings.config.folder


@functools.cache
def _entries(path: Path) -> Mapping[str, Entry]:
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON at line {error.lineno} ({error.msg})") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot be read: {error}") from None
    if not isinstance(entries, dict) or not all(isinstance(entry, dict) for entry in entries.values()):
        raise ValueError("expected an object with one object a dataset")
    return entries


def _registered(name: str, key: str, info: Info, settings: Settings, options: Options) -> dict[str, Any] | None:
    path = info.folder / INFO
    if name not in info.entries:
        known = listing(info.entries)
        settings.findings.problem(key, f"found {name}, expected one of {path}: {known}{closest(name, info.entries)}")
        return None
    before = len(settings.findings.problems)

    def problem(text: str) -> None:
        settings.findings.problem(key, f"{name} in {path}: {text}")

    def note(text: str) -> None:
        settings.findings.note(key, f"{name}: {text}")

    entry = {field: value for field, value in info.entries[name].items() if value is not None}
    source = _source(name, entry, info.folder, options, problem, note)
    result = {**source, **_layout(entry, problem, note), **_max_samples(settings)}
    result |= _placeholders(name, source, options, note)
    return result if len(settings.findings.problems) == before else None


def _max_samples(settings: Settings) -> dict[str, Any]:
    return {"maxSamples": settings.get("max_samples")} if settings.is_set("max_samples") else {}


def _layout(entry: Entry, problem: Say, note: Say) -> dict[str, Any]:
    for unknown in sorted(entry.keys() - set(_KEYS)):
        note(f"{unknown} is not read, by LLaMA-Factory neither{closest(unknown, _KEYS)}")
    if entry.get("ranking", False) is not False:
        problem("ranking: found true, but preference training is not there yet; name a dataset of conversations")
        return {}
    if "num_samples" in entry:
        problem(
            "num_samples: random samples cannot be drawn; write the rows to a file, or use max_samples for the first rows"
        )
    formatting = entry.get("formatting", "alpaca")
    if formatting not in _FORMATS:
        problem(f"formatting: found {show(formatting)}, expected alpaca, sharegpt or openai")
        return {}
    if formatting != "openai":
        return layout(entry, _FORMATS[formatting], problem, note)
    found = openai_layout(layout(entry, Format.SHAREGPT, problem, note))
    added = (
        "is added to"
        if found["format"] == Format.MESSAGES.value
        else "is not added here, as its tags are not OpenAI's, to"
    )
    note(
        f'"detailed thinking off", which LLaMA-Factory adds to every system prompt of formatting openai, {added} the rows\''
    )
    return found


def _source(name: str, entry: Entry, folder: Path, options: Options, problem: Say, note: Say) -> dict[str, Any]:
    hub = _hub(entry, options)
    if hub is not None:
        return _hub_source(entry, hub, problem)
    if "om_hub_url" in entry:
        problem("om_hub_url: the Modelers hub cannot be read; add hf_hub_url, ms_hub_url or file_name")
    elif "script_url" in entry:
        problem("script_url: a script would run code of the dataset; write its rows to a file and use file_name")
    elif "cloud_file_name" in entry:
        return _cloud_source(entry["cloud_file_name"], problem)
    elif not isinstance(entry.get("file_name"), str):
        problem(f"found none of {', '.join(_SOURCES)}, expected one as text")
    else:
        _refuse_parts_of_files(entry, problem)
        return _file(name, folder / entry["file_name"], folder, problem, note)
    return {}


def _hub(entry: Entry, options: Options) -> Scheme | None:
    has_hf, has_ms = "hf_hub_url" in entry, "ms_hub_url" in entry
    if has_ms and (options.hub is Scheme.MODELSCOPE or not has_hf):
        return Scheme.MODELSCOPE
    return Scheme.HUGGING_FACE if has_hf else None


def _hub_source(entry: Entry, hub: Scheme, problem: Say) -> dict[str, Any]:
    key = f"{hub.value}_hub_url"
    try:
        source = hub_source(str(entry[key]), hub)
    except NoSource as error:
        problem(f"{key}: {error}")
        return {}
    folder = f"/{str(entry['folder']).strip('/')}" if entry.get("folder") else ""
    parts = {field: entry[field] for field in ("subset", "split") if entry.get(field, "train") != "train"}
    return {"source": source + folder, **parts}


def _cloud_source(uri: Any, problem: Say) -> dict[str, Any]:
    if str(uri).startswith("s3://") and re.fullmatch(SOURCE_PATTERN, str(uri)):
        return {"source": str(uri)}
    problem(
        f"cloud_file_name: found {show(uri)}, expected s3://bucket/key; copy the file to such a bucket or into the folder"
    )
    return {}


def _refuse_parts_of_files(entry: Entry, problem: Say) -> None:
    for key in ("subset", "folder"):
        if key in entry:
            problem(f"{key}: is for hub datasets, but the entry has file_name; remove it")
    if entry.get("split", "train") != "train":
        problem(
            f"split: found {show(entry['split'])}, but a file has the split train only; use max_samples for the first rows"
        )


def _file(name: str, path: Path, folder: Path, problem: Say, note: Say) -> dict[str, Any]:
    if path.is_dir() or (path.is_file() and path.suffix in SUFFIXES):
        return {"source": file_source(str(path))}
    if path.is_file():
        problem(f"file_name: found {path.name}, expected a file of {', '.join(SUFFIXES)}")
    elif name == IDENTITY:
        note(
            f"{path} does not exist; the identity rows of this project are taken: `kubectl apply -k examples/data`, or "
            "`finetune run --config-map identity=examples/data`"
        )
        return {"source": IDENTITY_SOURCE}
    else:
        there = listing(file.name for file in folder.iterdir() if file.suffix in SUFFIXES and file.name != INFO)
        problem(f"file_name: found {path}, which does not exist; in {folder} are: {there}")
    return {}


def _placeholders(name: str, source: Mapping[str, Any], options: Options, note: Say) -> dict[str, Any]:
    uri = str(source.get("source", ""))
    found = {"name", "author"} if uri == IDENTITY_SOURCE else _placeholders_of(uri)
    given = {key: text for key, text in options.placeholders.items() if key in found}
    missing = sorted(found & {"name", "author"} - given.keys())
    if missing:
        flags = " ".join(f"--placeholder {key}=…" for key in missing)
        note(
            f"its rows hold {', '.join('{{' + key + '}}' for key in missing)}, which would be learnt as it stands; set it with {flags}"
        )
    return {"placeholders": given} if given else {}


@functools.cache
def _placeholders_of(uri: str) -> set[str]:
    path = Path(uri.removeprefix(f"{Scheme.FILE.value}://"))
    if not uri.startswith(f"{Scheme.FILE.value}://") or not path.is_file() or path.stat().st_size > _SCANNED:
        return set()
    return {key.decode() for key in _PLACEHOLDER.findall(path.read_bytes())}

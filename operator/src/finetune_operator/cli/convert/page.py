"""The key by key part of docs/from-llama-factory.md: `python -m finetune_operator.cli.convert.page FILE` writes it anew."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from finetune_operator.cli.convert.keys import DEPENDENT, MAPPED, NOTED, REFUSED, RENAMED, Mapped

BEGIN = (
    "<!-- the tables below are made by `python -m finetune_operator.cli.convert.page docs/from-llama-factory.md` -->\n"
)


def tables() -> str:
    """What becomes of every key, as Markdown."""
    return "".join(f"{line}\n" for line in (*_mapped(), *_noted(), *_refused(), *_renamed()))


def with_tables(page: str) -> str:
    """The page with the part after the mark written anew."""
    return page.partition(BEGIN)[0] + BEGIN + tables()


def _mapped() -> Iterator[str]:
    yield from ("", "### Keys that become fields", "", "| key | LLaMA-Factory's default | here |", "|---|---|---|")
    for key, mapped in MAPPED.items():
        field = f"`{mapped.field}`" if mapped.field.startswith("spec.") and " " not in mapped.field else mapped.field
        yield f"| `{key}` | {_default(mapped)} | {field} |"


def _default(mapped: Mapped) -> str:
    if mapped.default is None:
        return ""
    words = {True: "true", False: "false"}
    default = mapped.default
    text = default[0] if isinstance(default, list) else words[default] if isinstance(default, bool) else f"{default}"
    return f"`{text}`"


def _noted() -> Iterator[str]:
    yield from ("", "### Keys that have nothing to do here", "", "| keys | why |", "|---|---|")
    for reason in dict.fromkeys(NOTED.values()):
        yield f"| {_list(key for key, why in NOTED.items() if why == reason)} | {reason} |"
    for parent in dict.fromkeys(DEPENDENT.values()):
        keys = _list(key for key, needed in DEPENDENT.items() if needed == parent)
        yield f"| {keys} | read only together with `{parent}`, by LLaMA-Factory too |"


def _refused() -> Iterator[str]:
    yield from ("", "### Keys that a job cannot follow", "", "| key | accepted with | instead |", "|---|---|---|")
    for key, refused in REFUSED.items():
        harmless = ", ".join(f"`{str(value).lower()}`" for value in refused.harmless if value not in ("", []))
        yield f"| `{key}` | {harmless} | {refused.instead} |"


def _renamed() -> Iterator[str]:
    yield from ("", "### Keys of earlier versions", "", "| key | is called |", "|---|---|")
    yield from (f"| `{old}` | `{new}` |" for old, new in RENAMED.items())


def _list(keys: Iterator[str]) -> str:
    return " ".join(f"`{key}`" for key in keys)


def main() -> None:
    """Write the tables into the page named on the command line."""
    path = Path(sys.argv[1])
    path.write_text(with_tables(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()

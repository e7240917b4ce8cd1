"""Writes the tables of docs/performance.md and its pictures from bench/results: `make performance`.

What stands outside the markers is written by hand and kept.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))

import report_lines
import report_pictures
import report_tables

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "performance.md"


def main() -> None:
    """Write what has changed."""
    for path, text in generated().items():
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
            print(f"wrote {path.relative_to(ROOT)}")


def generated() -> dict[Path, str]:
    """Every generated file and what it has to say."""
    page = PAGE.read_text()
    files: dict[Path, str] = {}
    for bench in report_tables.BENCHES:
        tables = report_lines.newest_tables(ROOT / "bench" / "results", bench)
        pictures = {PAGE.parent / f"performance-{name}.svg": text for name, text in _pictures(bench, tables).items()}
        text = report_tables.section(bench, tables, [path.name for path in pictures])
        page = with_section(page, bench, text)
        files |= pictures
    return {PAGE: page, **files}


def _pictures(bench: str, tables: list[report_lines.Table]) -> dict[str, str]:
    return {f"{bench}-{table.key}": report_pictures.drawn(bench, table) for table in tables}


def with_section(page: str, bench: str, text: str) -> str:
    """The page with the text between a bench's markers. Raises ValueError where a marker is missing."""
    begin, end = f"<!-- {bench}: begin (make performance) -->", f"<!-- {bench}: end -->"
    for marker in (begin, end):
        if marker not in page:
            raise ValueError(f"docs/performance.md: the line {marker} is missing; put both markers of {bench} back")
    before, _, rest = page.partition(begin)
    return f"{before}{begin}\n{text}{end}{rest.partition(end)[2]}"


if __name__ == "__main__":
    main()

"""The report of a comparison: JSON, Markdown, one HTML page, and plots."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from ..models.files_rrra import write_aside
from .page import page
from .plots import plots_of
from .texts import glossary, grid_of, machine_of, note_of, title_of


def write_report(folder: Path, report: dict[str, Any]) -> None:
    """Write `results.json`, `results.md`, `report.html` and `plots/*.svg`.

    Args:
        folder: Folder to write to.
        report: JSON object with `command`, `machine`, `settings`, `tables` and `other_code`.

    Raises:
        ImportError: If matplotlib isn't installed. Nothing is written then.
    """
    plots = [plots_of(table) for table in report["tables"]]
    contents = {
        "results.json": json.dumps(report, indent=2, ensure_ascii=False) + "\n",
        "results.md": markdown(report),
        "report.html": page(report, plots),
    }
    for table, drawn in zip(report["tables"], plots, strict=True):
        for name, svg in drawn.items():
            file_name = re.sub(r"[^\w.-]", "_", f"{table['collection']}-{table['table']}-{name}.svg")
            contents[f"plots/{file_name}"] = svg
    for name, text in contents.items():
        write_text(folder / name, text)


def write_text(path: Path, text: str) -> None:
    """Write a text file, complete or not at all."""
    with write_aside(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def markdown(report: dict[str, Any]) -> str:
    """Return a report in Markdown.

    Args:
        report: As in `write_report`.
    """
    parts = ["# Results", "Written by `rrra compare`; do not edit.", machine_of(report)]
    explained: set[str] = set()
    for table in report["tables"]:
        header, rows = grid_of(table)
        parts.append(f"## {title_of(table)}")
        if note_of(table) not in explained:
            explained.add(note_of(table))
            parts.append(note_of(table))
        parts.append(
            "\n".join([_line(header), _line(["---", *["---:"] * (len(header) - 1)]), *map(_line, rows)])
        )
    parts.append("## Methods")
    parts.append("\n".join(f"* `{name}`: {text}" for name, text in glossary(report["tables"]).items()))
    return "\n\n".join(parts) + "\n"


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

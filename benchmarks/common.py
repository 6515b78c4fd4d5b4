"""Printing and writing the results of a benchmark."""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

WIDTH = 160


def markdown(rows: list[dict[str, Any]]) -> str:
    """Return rows as a table in Markdown. Texts are aligned left, numbers right."""
    rules = [":---" if isinstance(value, str) else "---:" for value in rows[0].values()]
    lines = [list(rows[0]), rules, *([_text(value) for value in row.values()] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _text(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def report(title: str, rows: list[dict[str, Any]], out: Path | None) -> None:
    """Print rows as a table, and write them as JSON together with a description of the machine.

    Args:
        title: Title of the table.
        rows: The rows; all have the same columns.
        out: File to write to; None to print only.
    """
    table = Table(title=title, title_justify="left")
    for name in rows[0]:
        table.add_column(name, justify="left" if isinstance(rows[0][name], str) else "right")
    for row in rows:
        table.add_row(*map(_text, row.values()))
    # Where there is no terminal, rich assumes 80 columns and cuts headers.
    Console(width=max(WIDTH, Console().width)).print(table)
    if out is not None:
        machine = {"python": platform.python_version(), "torch": torch.__version__, "cpu": platform.machine()}
        out.parent.mkdir(parents=True, exist_ok=True)
        content = {"title": title, "machine": machine, "rows": rows}
        out.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

"""Tables for people: Markdown, one self-contained page of HTML, and plain rows for a terminal."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..embeddings.storage import atomic_path
from .methods import TABLES
from .plots import plots_of
from .ranking import EXPONENTIAL
from .tables import DETECTION, MAIN, about

Grid = tuple[list[str], list[list[str]]]
"""Header, and rows of as many strings; the first column holds names, the others numbers."""

NOTES = {
    "ranking": (
        "Means over queries and seeds. A query is seen if one of its relevant documents was labelled for a "
        "training query. Differences of nDCG@10 are paired by query, after averaging over seeds, with 95 % "
        "bootstrap intervals; p-values are of the paired randomisation test, corrected by Holm's method for "
        "the number of methods. They speak of other queries, not of other seeds. fit s: seconds of fitting, "
        "what it builds on included; ms: milliseconds a query on one thread, without encoding the query."
    ),
    "detection": (
        "Candidates of the training queries, judged by their known false negatives; whatever else is "
        "relevant counts as irrelevant, so precisions are lower bounds. Interval: 95 % over queries, the "
        "mean of the seeds' intervals. ECE: expected calibration error, for probabilities only."
    ),
    "gradients": "Share of the gradients' total length that falls on known false negatives.",
}
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; }
body { max-width: 75rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
.wide { overflow-x: auto; }
th, td { padding: .2rem .7rem; border-bottom: 1px solid #ddd; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
tr.reference td { background: #f3f3f3; }
pre { background: #f6f6f6; padding: .8rem; overflow-x: auto; }
svg { max-width: 100%; height: auto; }
.note { color: #555; max-width: 60rem; }
dt { font-family: monospace; margin-top: .3rem; }
"""


# Columns that a terminal has no room for.
WIDE = ("to it, unseen", "p, unseen", "R@10", EXPONENTIAL, "± seeds")


def grid_of(table: dict[str, Any], *, narrow: bool = False) -> Grid:
    """Return a table as strings.

    Args:
        table: A table of `make_tables`.
        narrow: Leave out what a terminal has no room for.
    """
    if table["table"] == "detection":
        return _detection_grid(table)
    if table["table"] == "gradients":
        rows = [[row["method"], _number(row["share on false negatives"])] for row in table["rows"]]
        return ["method", "share on false negatives"], rows
    return _ranking_grid(table, narrow)


def title_of(table: dict[str, Any]) -> str:
    """Return what a table is called, with the number of queries it speaks of."""
    title = f"{table['collection']}: {TABLES[table['table']].lower()}"
    if "queries" in table:
        counts = table["queries"]
        title += f" ({counts['all']} test queries, {counts['seen']} seen, {counts['unseen']} unseen)"
    if table["table"] == "detection":
        title += (
            f" ({table['protocol']} positives, {100 * table['base rate']:.2f} % of {table['pairs']:,} pairs)"
        )
    return title


def _ranking_grid(table: dict[str, Any], narrow: bool) -> Grid:
    graded = any(row[EXPONENTIAL] != row[MAIN] for row in table["rows"])
    columns: dict[str, Callable[[dict[str, Any]], str]] = {
        "method": lambda row: row["method"],
        MAIN: lambda row: _number(row[MAIN]["all"]),
        "seen": lambda row: _number(row[MAIN]["seen"]),
        "unseen": lambda row: _number(row[MAIN]["unseen"]),
        f"to {table['reference']}": lambda row: _difference(row["difference"]["all"]),
        "p": lambda row: _p_value(row["difference"]["all"]),
        "to it, unseen": lambda row: _difference(row["difference"]["unseen"]),
        "p, unseen": lambda row: _p_value(row["difference"]["unseen"]),
        "R@1": lambda row: _number(row["R@1"]["all"]),
        "R@10": lambda row: _number(row["R@10"]["all"]),
        "R@100": lambda row: _number(row["R@100"]["all"]),
        **({EXPONENTIAL: lambda row: _number(row[EXPONENTIAL]["all"])} if graded else {}),
        "± seeds": lambda row: _number(row["standard deviation over seeds"]),
        "fit s": lambda row: f"{row['seconds']:.1f}",
        "ms": lambda row: f"{row['milliseconds']:.2f}",
    }
    if narrow:
        columns = {name: column for name, column in columns.items() if name not in WIDE}
    return list(columns), [[column(row) for column in columns.values()] for row in table["rows"]]


def _detection_grid(table: dict[str, Any]) -> Grid:
    header = ["method", DETECTION[0], "interval", *DETECTION[1:], "s"]
    rows = [
        [
            row["method"],
            _number(row[DETECTION[0]]),
            "{:.3f} to {:.3f}".format(*row["interval"]),
            *(_number(row[name]) for name in DETECTION[1:]),
            f"{row['seconds']:.1f}",
        ]
        for row in table["rows"]
    ]
    return header, rows


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _difference(difference: dict[str, Any] | None) -> str:
    if difference is None:
        return "–"
    low, high = difference["interval"]
    return f"{difference['mean']:+.3f} [{low:+.3f}, {high:+.3f}]"


def _p_value(difference: dict[str, Any] | None) -> str:
    if difference is None:
        return "–"
    p = difference["p (Holm)"]
    return "<.001" if p < 0.001 else f"{p:.3f}"


def _note_of(table: dict[str, Any]) -> str:
    return NOTES.get(table["table"], NOTES["ranking"])


# -------------------------------------------------------------------- Markdown


def markdown(report: dict[str, Any]) -> str:
    """Return a report in Markdown.

    Args:
        report: `command`, `machine`, `settings`, `tables` and `other_code`.
    """
    parts = ["# Results", "Written by `rrra compare`; do not edit.", _machine(report)]
    noted: set[str] = set()
    for table in report["tables"]:
        header, rows = grid_of(table)
        parts.append(f"## {title_of(table)}")
        if _note_of(table) not in noted:
            noted.add(_note_of(table))
            parts.append(_note_of(table))
        parts.append(
            "\n".join([_line(header), _line(["---", *["---:"] * (len(header) - 1)]), *map(_line, rows)])
        )
    parts.append("## Methods")
    parts.append("\n".join(f"* `{name}`: {text}" for name, text in _glossary(report["tables"]).items()))
    return "\n\n".join(parts) + "\n"


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _machine(report: dict[str, Any]) -> str:
    settings = report["settings"]
    machine = ", ".join(f"{name} {value}" for name, value in report["machine"].items())
    texts = f"{settings['encoder']}, texts cut to {settings['max_length']} tokens, seeds: {settings['seeds']}"
    other = len(report["other_code"])
    note = f" {other} cells were made by another state of the package's code." if other else ""
    return f"Measured with {texts}; {machine}.{note}"


def _glossary(tables: list[dict[str, Any]]) -> dict[str, str]:
    return {
        row["method"]: about(table["table"], row["method"])
        for table in tables
        if table["table"] != "gradients"
        for row in table["rows"]
    }


# -------------------------------------------------------------------- HTML


def page(report: dict[str, Any], plots: list[dict[str, str]]) -> str:
    """Return a report as one page of HTML that needs nothing else: no script, no network.

    Args:
        report: As for `markdown`.
        plots: For each table its plots, SVG documents by name.
    """
    sections = "\n".join(
        _section(table, drawn, str(i))
        for i, (table, drawn) in enumerate(zip(report["tables"], plots, strict=True))
    )
    methods = "\n".join(
        f"<dt>{html.escape(name)}</dt><dd>{html.escape(text)}</dd>"
        for name, text in _glossary(report["tables"]).items()
    )
    settings = html.escape(json.dumps(report["settings"], indent=2, ensure_ascii=False))
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8"/>
<meta name="viewport" content="width=device-width, initial-scale=1"/>
<title>rrra compare</title>
<style>{STYLE}</style>
</head>
<body>
<h1>rrra compare</h1>
<p>{html.escape(_machine(report))}</p>
{sections}
<h2>Methods</h2>
<dl>
{methods}
</dl>
<h2>Again</h2>
<p>The figures of each query, or of each pair, are in the Parquet files under <code>cells/</code>; the tables
are in <code>results.json</code>. The command that made this page runs nothing again that is finished:</p>
<pre>{html.escape(report["command"])}</pre>
<pre>{settings}</pre>
</body>
</html>
"""


def _section(table: dict[str, Any], plots: dict[str, str], key: str) -> str:
    header, rows = grid_of(table)
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    body = "\n".join(_row(row, "reference" if row[0] == table["reference"] else "other") for row in rows)
    drawn = "\n".join(_inline(svg, f"{name}-{key}-") for name, svg in plots.items())
    return f"""<h2>{html.escape(title_of(table))}</h2>
<p class="note">{html.escape(_note_of(table))}</p>
<div class="wide"><table>
<thead><tr>{head}</tr></thead>
<tbody>
{body}
</tbody>
</table></div>
{drawn}"""


def _row(cells: list[str], kind: str) -> str:
    return f'<tr class="{kind}">' + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>"


def _inline(svg: str, prefix: str) -> str:
    """Return an SVG document as an element of a page, its ids its own."""
    element = svg[svg.index("<svg") :]
    element = re.sub(r'\bid="', f'id="{prefix}', element)
    element = re.sub(r'(href="#|url\(#)', rf"\g<1>{prefix}", element)
    return f"<figure>{element}</figure>"


# -------------------------------------------------------------------- files


def write_report(folder: Path, report: dict[str, Any]) -> None:
    """Write `results.json`, `results.md`, `report.html` and `plots/*.svg`.

    Args:
        folder: Where to.
        report: As for `markdown`.

    Raises:
        ImportError: If matplotlib is not installed; nothing is written then.
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
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")

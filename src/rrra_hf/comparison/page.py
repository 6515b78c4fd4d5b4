"""A report as one self-contained HTML page."""

from __future__ import annotations

import html
import json
from typing import Any

from ..evaluation.svg import inline_svg
from .texts import glossary, grid_of, machine_of, note_of, title_of

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


def page(report: dict[str, Any], plots: list[dict[str, str]]) -> str:
    """Return a report as one HTML page without scripts, which needs no network.

    Args:
        report: The report, see `write_report`.
        plots: For each table its plots by name, as SVG documents.
    """
    sections = "\n".join(
        _section(table, drawn, str(i))
        for i, (table, drawn) in enumerate(zip(report["tables"], plots, strict=True))
    )
    methods = "\n".join(
        f"<dt>{html.escape(name)}</dt><dd>{html.escape(text)}</dd>"
        for name, text in glossary(report["tables"]).items()
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
<p>{html.escape(machine_of(report))}</p>
{sections}
<h2>Methods</h2>
<dl>
{methods}
</dl>
<h2>Reproduce</h2>
<p>The figures of each query or pair are in the Parquet files under <code>cells/</code>, and the tables in
<code>results.json</code>. This page was made by the command below. If you repeat it, only what is missing
is run:</p>
<pre>{html.escape(report["command"])}</pre>
<pre>{settings}</pre>
</body>
</html>
"""


def _section(table: dict[str, Any], plots: dict[str, str], key: str) -> str:
    header, rows = grid_of(table)
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    body = "\n".join(_row(row, "reference" if row[0] == table["reference"] else "other") for row in rows)
    drawn = "\n".join(inline_svg(svg, f"{name}-{key}-") for name, svg in plots.items())
    return f"""<h2>{html.escape(title_of(table))}</h2>
<p class="note">{html.escape(note_of(table))}</p>
<div class="wide"><table>
<thead><tr>{head}</tr></thead>
<tbody>
{body}
</tbody>
</table></div>
{drawn}"""


def _row(cells: list[str], kind: str) -> str:
    return f'<tr class="{kind}">' + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>"

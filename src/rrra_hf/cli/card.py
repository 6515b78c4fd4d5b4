"""`rrra card`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .common import (
    BatchSize,
    CacheDir,
    Json,
    Reading,
    print_json,
    print_quality,
    reads_collections,
)
from .evaluate import TITLES
from .opening import Device, checked_device
from .output import ENCODED, writes


@writes("model", resumes=ENCODED)
@reads_collections
def card(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Folder of a saved model or adapter.")],
    collection: Annotated[
        str | None,
        typer.Argument(metavar="COLLECTION", help="Collection to measure the model on first."),
    ] = None,
    split: Annotated[str, typer.Option(help="Split whose queries are used.")] = "test",
    repo_id: Annotated[
        str | None, typer.Option(help="Repository that the card's examples name; the folder by default.")
    ] = None,
    reading: Reading = Reading(),
    device: Device = None,
    batch_size: BatchSize = 64,
    cache_dir: CacheDir = None,
    json: Json = False,
) -> None:
    """Write the model card of a saved model: README.md and its reliability plot.

    With a collection, ranking, false-negative detection and calibration are measured on a split of it first.
    The figures are added to evaluation.json in the model's folder.

    Example: `rrra card models/scifact data/scifact`
    """
    from ..hub import model_card
    from ..hub.layout import CARD_NAME, PLOT_NAME
    from ..models.files_rrra import write_aside
    from ..retrieval import evaluate_saved

    figures = None
    if collection is not None:
        loaded = reading.load(collection)
        figures = evaluate_saved(
            model,
            loaded,
            split,
            cache_dir=cache_dir,
            batch_size=batch_size,
            device=checked_device(device),
        )
    made, path = model_card(model, repo_id), model / CARD_NAME
    if made.plot is not None:
        with write_aside(model / PLOT_NAME) as temporary:
            temporary.write_bytes(made.plot)
    with write_aside(path) as temporary:
        temporary.write_text(made.text, encoding="utf-8")
    if json:
        print_json({"card": str(path), "evaluation": figures})
        return
    if figures is not None:
        for group, rows in figures["quality"].items():
            count = figures["queries"][group]
            print_quality(f"{figures['collection']}, {split}: {count} {TITLES[group]}", rows)
    typer.echo(f"card: {path}")

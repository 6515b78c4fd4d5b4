"""`rrra fit`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from .common import (
    DEFAULT_MODEL,
    BatchSize,
    CacheDir,
    CollectionName,
    Columns,
    Json,
    MaxLength,
    ModelName,
    Pairs,
    Seed,
    SkipBad,
    bad_arguments,
    check_out,
    load_collection,
    load_model,
    print_json,
)


def fit(
    collection: CollectionName,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the model.")],
    model: ModelName = DEFAULT_MODEL,
    stage1: Annotated[
        str | None,
        typer.Option(
            help="Linear maps before the adapter: none, query, or both sides; the preset's if not given."
        ),
    ] = None,
    preset: Annotated[
        str,
        typer.Option(
            help="features: two-sided maps and all features; default: a residual head; paper: as published."
        ),
    ] = "features",
    objective: Annotated[str | None, typer.Option(help="listwise, bce or four_class.")] = None,
    max_steps: Annotated[int | None, typer.Option(help="Budget of training steps.")] = None,
    pool: Annotated[Path | None, typer.Option(help="Candidate pool mined before with this model.")] = None,
    pairs: Pairs = None,
    column: Columns = None,
    skip_bad: SkipBad = False,
    max_length: MaxLength = None,
    batch_size: BatchSize = 64,
    cache_dir: CacheDir = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Fit an adapter on a frozen encoder; a minute or two on one core.

    The preset `features` ranks best. `default` makes a residual head, which training can go on with, and to
    which --objective and --max-steps belong.

    Example: `rrra fit data/scifact --out models/scifact --stage1 query`
    """
    from ..candidates import CandidatePool
    from ..fitting import FitArguments, fit_model

    changes = {"stage1": stage1, "objective": objective, "max_steps": max_steps}
    with bad_arguments():
        arguments = FitArguments.preset(
            preset,
            seed=seed,
            **{name: value for name, value in changes.items() if value is not None},
        )
        if arguments.features and max_steps is not None:
            raise ValueError("max_steps belongs to a residual head; add --preset default.")
    check_out(out, "modules.json", "a model's")
    loaded = load_collection(collection, pairs, column, skip_bad)
    fitted = load_model(model, max_length)
    start = time.perf_counter()
    fit_model(
        fitted,
        loaded,
        arguments,
        pool=None if pool is None else CandidatePool.load(pool),
        cache_dir=cache_dir,
        batch_size=batch_size,
    )
    fitted.save_pretrained(out)
    summary = {
        "model": str(out),
        "seconds": round(time.perf_counter() - start, 1),
        "development": fitted.adapter.config.fit["development"],
    }
    if json:
        print_json(summary)
        return
    quality = summary["development"]["nDCG@10"]
    typer.echo(f"model: {out}\nseconds: {summary['seconds']}")
    typer.echo(
        f"nDCG@10 on {summary['development']['queries']} development queries: "
        f"{quality['encoder']:.3f}, with the adapter {quality['adapter']:.3f}"
    )

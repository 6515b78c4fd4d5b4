"""`rrra fit`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from .common import (
    BatchSize,
    CacheDir,
    CollectionName,
    Json,
    Reading,
    Seed,
    adapter_notes,
    bad_arguments,
    print_json,
    reads_collections,
)
from .opening import DEFAULT_MODEL, MaxLength, ModelName, Opening, load_model, opens_models
from .output import ENCODED, writes


@writes(marker="modules.json", what="a model's", resumes=ENCODED)
@opens_models
@reads_collections
def fit(
    collection: CollectionName,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the model.")],
    model: ModelName = DEFAULT_MODEL,
    preset: Annotated[
        str,
        typer.Option(
            help="default: starts from the adapter that comes trained; residual: a network over the two "
            "embeddings; paper: that network as published."
        ),
    ] = "default",
    maps: Annotated[
        str | None,
        typer.Option(help="Linear maps before it: none, query or both sides; by default the preset's."),
    ] = None,
    objective: Annotated[
        str | None, typer.Option(help="listwise, bce or four_class; with --preset residual or paper.")
    ] = None,
    max_steps: Annotated[
        int | None, typer.Option(help="Maximum number of steps; with --preset residual or paper.")
    ] = None,
    pool: Annotated[Path | None, typer.Option(help="Candidate pool mined before with this model.")] = None,
    reading: Reading = Reading(),
    max_length: MaxLength = None,
    opening: Opening = Opening(),
    batch_size: BatchSize = 64,
    cache_dir: CacheDir = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Fit an adapter on a frozen encoder. Takes a minute or two on one core.

    Example: `rrra fit data/scifact --out models/scifact`
    """
    from ..candidates import CandidatePool
    from ..fitting import fit_arguments, fit_model
    from ..models.backbone_rrra import is_own_code

    changes = {"maps": maps, "objective": objective, "max_steps": max_steps}
    with bad_arguments():
        arguments = fit_arguments(
            preset, seed=seed, **{name: value for name, value in changes.items() if value is not None}
        )
    loaded = reading.load(collection)
    fitted = load_model(model, max_length, opening)
    start = time.perf_counter()
    fit_model(
        fitted,
        loaded,
        arguments,
        pool=None if pool is None else CandidatePool.load(pool),
        cache_dir=cache_dir,
        batch_size=batch_size,
    )
    # Code of an encoder's own has no place in the form with everything in one model.
    fitted.save_pretrained(out, form="plain" if is_own_code(fitted.encoder) else "full")
    fit = fitted.adapter.config.fit
    measured = {name: fit[name] for name in ("unseen", "development", "calibration") if name in fit}
    seconds = round(time.perf_counter() - start, 1)
    notes = adapter_notes(fitted.adapter)
    if json:
        print_json({"model": str(out), "seconds": seconds, **measured, "notes": notes})
        return
    typer.echo(f"model: {out}\nseconds: {seconds}")
    kind = "unseen" if "unseen" in fit else "development"
    found = fit[kind]
    quality = ", ".join(f"{system} {value:.3f}" for system, value in found["nDCG@10"].items())
    typer.echo(f"nDCG@10 on {found['queries']} {kind} queries: {quality}")
    for note in notes:
        typer.echo(note)

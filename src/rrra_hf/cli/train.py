"""`rrra train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .common import (
    DEFAULT_MODEL,
    CollectionName,
    Columns,
    EncoderName,
    FitSteps,
    Json,
    MaxLength,
    Pairs,
    Seed,
    SkipBad,
    bad_arguments,
    load_collection,
    packaged,
    print_json,
    print_quality,
)

OPTIONS = {
    "stage1_max_steps": "--stage1-steps",
    "stage3_max_steps": "--stage3-steps",
    "batch_size": "--train-batch-size",
    "stage1": "--maps",
    "max_steps": "--fit-steps",
}


def train(
    collection: CollectionName,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder of the run; a run that was interrupted continues.")
    ],
    model: EncoderName = DEFAULT_MODEL,
    mode: Annotated[str, typer.Option(help="lora or full.")] = "lora",
    stage1_epochs: Annotated[int, typer.Option(help="Passes over the pairs in stage 1.")] = 1,
    stage1_steps: Annotated[int | None, typer.Option(help="Steps of stage 1 instead.")] = None,
    stage3_epochs: Annotated[int, typer.Option(help="Passes in stage 3, each with new negatives.")] = 1,
    stage3_steps: Annotated[int | None, typer.Option(help="Steps of stage 3 instead.")] = None,
    train_batch_size: Annotated[int, typer.Option(help="Pairs a training step.")] = 32,
    learning_rate: Annotated[float | None, typer.Option(help="2e-4 with LoRA, 2e-5 without.")] = None,
    num_negatives: Annotated[int, typer.Option(help="Mined negatives a pair in stage 3.")] = 4,
    gamma: Annotated[float, typer.Option(help="How much a probable false negative loses.")] = 1.0,
    drop_above_positive: Annotated[
        bool,
        typer.Option(
            "--drop-above-positive",
            help="Set aside, too, what the encoder scores above the query's positives.",
        ),
    ] = False,
    maps: Annotated[
        str, typer.Option(help="Linear maps on the encoder: none, query, or both sides.")
    ] = "none",
    fit_steps: FitSteps = None,
    folds: Annotated[int, typer.Option(help="Folds of the false-negative probabilities.")] = 5,
    refresh_steps: Annotated[
        int | None, typer.Option(help="Mine and weigh the negatives anew after so many steps of stage 3.")
    ] = None,
    refresh_epochs: Annotated[int | None, typer.Option(help="The same, counted in epochs.")] = None,
    fall_back: Annotated[
        bool, typer.Option(help="Keep the encoder of stage 1 where stage 3 makes it worse.")
    ] = True,
    save_steps: Annotated[int, typer.Option(help="Steps between checkpoints.")] = 500,
    bf16: Annotated[bool, typer.Option("--bf16", help="Train in bfloat16.")] = False,
    pairs: Pairs = None,
    column: Columns = None,
    skip_bad: SkipBad = False,
    max_length: MaxLength = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Train an encoder in three stages and fit its adapter.

    Example: `rrra train data/scifact --out runs/scifact --stage1-epochs 2`
    """
    from accelerate import PartialState

    from ..fitting import FitArguments
    from ..training import TrainArguments
    from ..training import train as run
    from ..models.files_rrra import read_json

    fit_changes: dict[str, Any] = {} if fit_steps is None else {"max_steps": fit_steps}
    with bad_arguments(**OPTIONS):
        arguments = TrainArguments(
            mode=mode,
            stage1_epochs=stage1_epochs,
            stage1_max_steps=stage1_steps,
            stage3_epochs=stage3_epochs,
            stage3_max_steps=stage3_steps,
            batch_size=train_batch_size,
            learning_rate=learning_rate,
            num_negatives=num_negatives,
            gamma=gamma,
            drop_above_positive=drop_above_positive,
            folds=folds,
            refresh_steps=refresh_steps,
            refresh_epochs=refresh_epochs,
            fall_back=fall_back,
            save_steps=save_steps,
            max_seq_length=max_length,
            bf16=bf16,
            seed=seed,
            fit=FitArguments(stage1=maps, seed=seed, **fit_changes),
        )
    run(load_collection(collection, pairs, column, skip_bad), packaged(model), out, arguments)
    if not PartialState().is_main_process:
        return
    results = read_json(out / "results.json")
    if json:
        print_json(results)
        return
    rows = {
        f"{stage}: {'encoder' if system == 'encoder' else '+ adapter'}": figures
        for stage, result in results.items()
        for system, figures in result["development"].items()
        if system != "queries"
    }
    print_quality("Development queries", rows)
    typer.echo(f"model: {out / 'model'}")

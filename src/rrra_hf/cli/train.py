"""`rrra train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .common import (
    CollectionName,
    Json,
    Reading,
    Seed,
    bad_arguments,
    print_json,
    print_quality,
    reads_collections,
)
from .opening import DEFAULT_MODEL, EncoderName, MaxLength, Source, finds_models, packaged
from .output import faults_named

OPTIONS = {
    "stage1_max_steps": "--stage1-steps",
    "stage3_max_steps": "--stage3-steps",
    "batch_size": "--train-batch-size",
    "max_steps": "--fit-steps",
}


@finds_models
@reads_collections
def train(
    collection: CollectionName,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder of the run. An interrupted run is continued.")
    ],
    model: EncoderName = DEFAULT_MODEL,
    mode: Annotated[str, typer.Option(help="lora: train LoRA weights; full: train all weights.")] = "lora",
    stage1_epochs: Annotated[int, typer.Option(help="Epochs of stage 1.")] = 1,
    stage1_steps: Annotated[
        int | None, typer.Option(help="Steps of stage 1; overrides --stage1-epochs.")
    ] = None,
    stage3_epochs: Annotated[
        int, typer.Option(help="Epochs of stage 3, each with newly drawn negatives.")
    ] = 1,
    stage3_steps: Annotated[
        int | None, typer.Option(help="Steps of stage 3; overrides --stage3-epochs.")
    ] = None,
    train_batch_size: Annotated[int, typer.Option(help="Training batch size, of all processes.")] = 32,
    learning_rate: Annotated[
        float | None, typer.Option(help="Peak learning rate; by default 2e-4 with LoRA, 2e-5 without.")
    ] = None,
    num_negatives: Annotated[int, typer.Option(help="Mined negatives per pair in stage 3.")] = 4,
    targets: Annotated[
        str,
        typer.Option(
            help="What is done with mined negatives that are probably relevant: drop (they are left out), "
            "weights, soft, relabel or distill."
        ),
    ] = "drop",
    gamma: Annotated[
        float, typer.Option(help="With --targets weights: exponent of the weights (1 - p) ** gamma.")
    ] = 1.0,
    drop_above_positive: Annotated[
        bool,
        typer.Option(
            "--drop-above-positive",
            help="Give no weight to candidates that the encoder scores above the query's positives.",
        ),
    ] = False,
    preset: Annotated[
        str,
        typer.Option(
            help="Adapter. default: starts from the one that comes trained; residual: a network over the two "
            "embeddings; paper: that network as published."
        ),
    ] = "default",
    maps: Annotated[
        str | None,
        typer.Option(help="Linear maps of the adapter: none, query or both; by default the preset's."),
    ] = None,
    fit_steps: Annotated[
        int | None,
        typer.Option(help="Maximum number of steps per adapter fit; with --preset residual or paper."),
    ] = None,
    folds: Annotated[int, typer.Option(help="Folds to cross-fit the probabilities.")] = 5,
    refresh_steps: Annotated[
        int | None, typer.Option(help="Mine again every so many steps of stage 3.")
    ] = None,
    refresh_epochs: Annotated[
        int | None, typer.Option(help="Mine again every so many epochs of stage 3.")
    ] = None,
    save_steps: Annotated[int, typer.Option(help="Steps between checkpoints.")] = 500,
    save_total_limit: Annotated[
        int, typer.Option(help="Checkpoints to keep of a stage that isn't finished.")
    ] = 2,
    eval_steps: Annotated[
        int | None, typer.Option(help="Evaluate on development queries every so many steps.")
    ] = None,
    report_to: Annotated[
        list[str] | None, typer.Option(help="Send logs there: tensorboard, wandb, ... Repeatable.")
    ] = None,
    bf16: Annotated[bool, typer.Option("--bf16", help="Train in bfloat16.")] = False,
    gradient_checkpointing: Annotated[
        bool, typer.Option("--gradient-checkpointing", help="Save memory by computing activations twice.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Only continue a run: an error if there is none in --out.")
    ] = False,
    reading: Reading = Reading(),
    max_length: MaxLength = None,
    source: Source = Source(),
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Train an encoder in three stages, and fit an adapter to it.

    If the encoder as it came is better on development queries, the adapter is fitted to that one.

    Example: `rrra train data/scifact --out runs/scifact --stage1-epochs 2`
    """
    from accelerate import PartialState

    from ..fitting import fit_arguments
    from ..models.files_rrra import read_json
    from ..training import TrainArguments
    from ..training import train as run

    given = {"maps": maps, "max_steps": fit_steps}
    changes = {name: value for name, value in given.items() if value is not None}
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
            targets=targets,
            gamma=gamma,
            drop_above_positive=drop_above_positive,
            folds=folds,
            refresh_steps=refresh_steps,
            refresh_epochs=refresh_epochs,
            save_steps=save_steps,
            save_total_limit=save_total_limit,
            eval_steps=eval_steps,
            report_to=report_to or "none",
            max_seq_length=max_length,
            bf16=bf16,
            gradient_checkpointing=gradient_checkpointing,
            seed=seed,
            fit=fit_arguments(preset, seed=seed, **changes),
        )
    loaded = reading.load(collection)
    with faults_named(out, "it continues from what is finished"):
        run(loaded, packaged(model), out, arguments, resume=resume, **source.of_transformers())
    if not PartialState().is_main_process:
        return
    results = read_json(out / "results.json")
    if json:
        print_json(results)
        return
    compared = results["comparison"]
    rows = {
        f"{stage}: {'encoder' if system == 'encoder' else f'+ {system}'}": figures
        for stage, systems in compared["development"].items()
        if stage != "queries"
        for system, figures in systems.items()
    }
    print_quality("Development queries", rows)
    typer.echo(compared["sentence"])
    typer.echo(f"model: {out / 'model'}")

"""Training in three stages, from a collection and an encoder to a saved retriever with its adapter."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from functools import partial
from typing import Any

from transformers import TrainerCallback, set_seed

from ..data import Collection
from ..embeddings import collection_fingerprint, encoder_fingerprint
from ..models.backbone_rrra import is_own_code
from ..models.modeling_rrra import RRRAModel
from .contrastive import progress_bars_on_terminals_only
from .launch import check_launch
from .processes import Processes, joined_processes
from .run_folder import RunFolder, only_run
from .stages import MODEL_NAME, Stages
from .train_arguments import TrainArguments
from .train_data import with_development

logger = logging.getLogger(__name__)

# Settings that don't decide the result, and that a run may continue without.
FREE = ("report_to", "save_total_limit")


def train(
    collection: Collection,
    encoder: str | os.PathLike[str],
    output_dir: str | os.PathLike[str],
    arguments: TrainArguments | None = None,
    *,
    callbacks: Sequence[TrainerCallback] = (),
    resume: bool = False,
    **options: Any,
) -> RRRAModel:
    """Train a retriever in three stages, fit its adapter, and save it.

    1. The encoder is trained on (query, positive) pairs with in-batch negatives.
    2. The encoder is frozen. Its candidates are mined, and their false-negative probabilities are
       cross-fitted.
    3. The encoder of stage 1 is trained further, with candidates as hard negatives. Those that are
       probably relevant are left out, or have another part in the loss, see `TrainArguments.targets`.

    Then the encoder as it came and those of stages 1 and 3 are compared, each with an adapter fitted to it,
    on the development queries. The best is kept, see `choose_encoder`. At the end, an adapter is fitted to it
    on the whole collection. If the encoder as it came is kept, the result is that of `fit_model`.

    To continue an interrupted run, call `train` again with the same arguments. The result is the same as that
    of a run that wasn't interrupted.

    If you call it in every process of an `accelerate launch` or `torchrun`, all processes train the encoder,
    each with its share of the batch. The main process does the rest while the others wait.

    The encoder is trained in float32, whatever data type its weights have: in half precision, most updates
    would be too small to change a weight. The result has the encoder's data type, or `dtype` if given.

    Args:
        collection: A collection with the split `train`. In every stage, the split `dev` gives the development
            queries; without it, a part of `train` is held out.
        encoder: Folder or Hub repository of the encoder.
        output_dir: Folder of the run: `model/` is the result, `stage1/`, `stage2/` and `stage3/` hold what
            the stages made, `results.json` their figures, `training.svg` a plot of the run, and `embeddings/`
            the cache. All processes must see it under this name.
        arguments: Settings; `TrainArguments()` if not given.
        callbacks: Callbacks of transformers for the trainers of stages 1 and 3, such as
            `EarlyStoppingCallback`, which needs `arguments.eval_steps`. A run that continues needs the same.
        resume: Only continue a run. Without it, a run is continued if there is one, and begun otherwise.
        options: Passed to `RRRAModel.from_encoder`: `revision`, `trust_remote_code`, `dtype`, ...

    Returns:
        The model in `output_dir/model`, in evaluation mode.

    Raises:
        ValueError: If `output_dir` belongs to a run with other settings, the message naming what differs; if
            the collection has no split `train` or too few queries; if the encoder has linear maps, or
            code of its own; or if `batch_size` isn't a multiple of the number of processes.
        FileNotFoundError: If `resume` is set and there is no run in `output_dir`.
        OSError: If the encoder doesn't exist, or another process trains in `output_dir`.
        FloatingPointError: If a loss is not finite, see `StopOnNonFiniteLoss`.
        RuntimeError: If `accelerate launch` was asked for several processes and started one; or, in a process
            other than the main one, if the main one failed.

    Source:
        RRRA, arXiv 2508.11670.

    Example:
        ::

            collection = load_collection("my-collection")
            arguments = TrainArguments(stage1_max_steps=500, stage3_max_steps=500, batch_size=32)
            model = train(collection, "sentence-transformers/all-MiniLM-L6-v2", "runs/first", arguments)
    """
    check_launch()
    arguments = arguments or TrainArguments()
    with (
        joined_processes() as processes,
        progress_bars_on_terminals_only(processes),
        only_run(output_dir, processes),
    ):
        return _run(collection, encoder, output_dir, arguments, callbacks, resume, processes, options)


def _run(
    collection: Collection,
    encoder: str | os.PathLike[str],
    output_dir: str | os.PathLike[str],
    arguments: TrainArguments,
    callbacks: Sequence[TrainerCallback],
    resume: bool,
    processes: Processes,
    options: dict[str, Any],
) -> RRRAModel:
    if arguments.batch_size % processes.count:
        raise ValueError(
            f"batch_size must be a multiple of the {processes.count} processes, got {arguments.batch_size}."
        )
    parts = with_development(collection, arguments.development_fraction, arguments.seed)
    # LoRA starts from random weights.
    set_seed(arguments.seed)
    start = _open(
        encoder, arguments, options, lora=(arguments.lora or True) if arguments.mode == "lora" else None
    )
    settings = {
        "arguments": {name: value for name, value in arguments.to_dict().items() if name not in FREE},
        "collection": collection_fingerprint(parts),
        "encoder": encoder_fingerprint(start.to_sentence_transformer()),
        "processes": processes.count,
    }
    folder = RunFolder(output_dir, settings, processes, resume=resume)
    dtype = start.encoder.dtype
    logger.info("The encoder's weights are %s. They are trained in float32, and saved as they were.", dtype)
    stages = Stages(
        folder,
        collection,
        parts,
        arguments,
        frozen=partial(_open, encoder, arguments, options),
        dtype=dtype,
        callbacks=callbacks,
    )
    folder.run_stage("stage1", lambda: stages.stage1(start.float()), together=True)
    folder.run_stage("stage2", stages.stage2)
    folder.run_stage("stage3", stages.stage3, together=True)
    folder.run_stage("comparison", stages.comparison)
    folder.run_stage("final", stages.final)
    processes.on_main(stages.summarize)
    return RRRAModel.from_pretrained(folder.path / MODEL_NAME).eval()


def _open(
    encoder: str | os.PathLike[str],
    arguments: TrainArguments,
    options: dict[str, Any],
    lora: bool | dict[str, Any] | None = None,
) -> RRRAModel:
    """Return the model of an encoder as it comes, and new LoRA weights if asked for."""
    model = RRRAModel.from_encoder(
        encoder,
        lora=lora,
        adapter={"reader": {"kind": arguments.fit.kind}},
        max_seq_length=arguments.max_seq_length,
        **options,
    )
    if model.adapter.has_maps:
        # They were fitted to the encoder as it was, and the adapter of a run has its own.
        raise ValueError(f"encoder must have no linear maps, {encoder} has some.")
    if is_own_code(model.encoder):
        # Not after hours, when the first stage is saved.
        raise ValueError(
            "encoder must be of a class of transformers, because stages are saved and opened again; "
            f"{type(model.encoder).__name__} of {encoder} is code of its own."
        )
    return model

"""Training the encoder itself with a strategy's negatives, by sentence-transformers' trainer."""

from __future__ import annotations

import gc
import tempfile
from pathlib import Path

import numpy as np
from datasets import Dataset
from transformers import TrainerCallback, set_seed

from ...embeddings import encode
from ...models.modeling_rrra import RRRAModel
from ...training import Resampler, TrainArguments
from ...training.contrastive import train_contrastive
from ...training.train_data import pair_dataset
from ..ranking import Rank, searcher
from ..task import Queries
from ..trial import Trial
from ..truth import ground_truth
from .chances import Strategy


def train_encoder(trial: Trial, strategy: Strategy) -> Rank:
    """Train the encoder, and return the search with it. The test queries are encoded beforehand.

    Args:
        trial: The trial. Its task names the encoder to start from.
        strategy: Chooses the negatives, and the loss.

    Raises:
        ValueError: If the task names no encoder.
    """
    task, arguments = trial.task, trial.arguments
    if task.encoder_name is None or task.encoder is None:
        raise ValueError(f"encoder must be given for {task.name} to be trained.")
    set_seed(trial.seed)
    model = RRRAModel.from_encoder(
        task.encoder_name,
        lora=True if arguments.train == "lora" else None,
        max_seq_length=task.encoder.max_seq_length,
    )
    # Most updates are too small for weights in half precision.
    encoder = model.float().to_sentence_transformer().to(task.encoder.device)
    dataset, callbacks = _training_set(trial, strategy)
    with tempfile.TemporaryDirectory() as checkpoints:
        train_contrastive(
            model,
            encoder,
            strategy.loss(encoder, 1 / arguments.fit.tau),
            dataset,
            Path(checkpoints),
            TrainArguments(
                mode=arguments.train,
                batch_size=arguments.batch_size,
                learning_rate=arguments.peak_learning_rate,
                save_steps=arguments.steps,
                seed=trial.seed,
            ),
            stage=3,
            epochs=1,
            max_steps=arguments.steps,
            callbacks=callbacks,
        )
    gc.collect()
    documents = encode(encoder, task.collection.document_texts, task="document")
    embeddings = encode(encoder, task.test.texts, task="query")
    row_of = {query: row for row, query in enumerate(task.test.ids)}
    search = searcher(documents, arguments.fit.depth)

    def rank(queries: Queries) -> np.ndarray:
        rows = [row_of[query] for query in queries.ids]
        return search(queries._replace(embeddings=embeddings[rows]))

    return rank


def _training_set(trial: Trial, strategy: Strategy) -> tuple[Dataset, list[TrainerCallback]]:
    """Return the dataset of a strategy, and the callbacks that draw its negatives anew in each epoch."""
    truth, arguments = ground_truth(trial), trial.arguments
    if strategy.chances is None:
        return pair_dataset(truth.collection), []
    chances, weights = strategy.chances(trial)
    resampler = Resampler(
        truth.collection,
        truth.pool,
        num_negatives=arguments.num_negatives,
        strategy=lambda pool: (chances, weights),
        labels="weights" if strategy.weighted else None,
        seed=trial.seed,
    )
    return resampler.dataset, [resampler]

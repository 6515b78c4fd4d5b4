"""Training the encoder itself with a strategy's negatives, by sentence-transformers' trainer."""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from datasets import Dataset
from sentence_transformers import SentenceTransformer
from transformers import TrainerCallback, set_seed

from ...candidates import mine_embeddings
from ...embeddings import encode
from ...evaluation import membership, ndcg_per_query, reorder
from ...models.modeling_rrra import RRRAModel
from ...training import Resampler, TrainArguments
from ...training.contrastive import train_contrastive
from ...training.train_data import pair_dataset
from ...training.undisturbed import undisturbed
from ..ranking import Rank, searcher
from ..task import Queries
from ..trial import Trial
from ..truth import ground_truth
from .chances import Strategy
from .early_stopping import EarlyStopping

# Candidates of each development query among which its relevant documents are to be ranked.
DEVELOPMENT_DEPTH = 50


def train_encoder(trial: Trial, strategy: Strategy) -> Rank:
    """Train the encoder, and return the search with it. The test queries are encoded beforehand.

    The weights are those with which the encoder ranked the development queries best, see `EarlyStopping`.

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
    if arguments.bf16 and task.encoder.device.type == "cpu":
        # PyTorch's fused attention takes twice as long backwards in bfloat16 on CPUs.
        model.set_attn_implementation("eager")
    dataset, callbacks = _training_set(trial, strategy)
    measure, before = development_measure(trial, encoder)
    stopping = EarlyStopping(model, measure, before)
    with tempfile.TemporaryDirectory() as checkpoints:
        train_contrastive(
            model,
            encoder,
            strategy.make_loss(encoder, trial),
            dataset,
            Path(checkpoints),
            TrainArguments(
                mode=arguments.train,
                batch_size=arguments.batch_size,
                learning_rate=arguments.peak_learning_rate,
                save_steps=arguments.steps,
                bf16=arguments.bf16,
                seed=trial.seed,
            ),
            stage=3,
            epochs=1,
            max_steps=arguments.steps,
            callbacks=[*callbacks, stopping],
        )
    gc.collect()
    stopping.restore()
    documents = encode(encoder, task.collection.document_texts, task="document")
    embeddings = encode(encoder, task.test.texts, task="query")
    row_of = {query: row for row, query in enumerate(task.test.ids)}
    search = searcher(documents, arguments.fit.depth)

    def rank(queries: Queries) -> np.ndarray:
        rows = [row_of[query] for query in queries.ids]
        return search(queries._replace(embeddings=embeddings[rows]))

    return rank


def development_measure(trial: Trial, encoder: SentenceTransformer) -> tuple[Callable[[], float], float]:
    """Return a function that measures nDCG@10 of the development queries with the encoder as it is.

    And return its value before the training, from the embeddings that there are.

    The documents to rank are the relevant ones and the candidates of all these queries, which the encoder
    found before it was trained.

    Args:
        trial: The trial.
        encoder: The encoder that is trained.
    """
    task, queries = trial.task, trial.development
    mined = mine_embeddings(
        queries.embeddings,
        task.documents,
        queries.positives,
        depth=DEVELOPMENT_DEPTH,
        query_words=task.words.count(queries.texts),
        document_words=task.words,
        show_progress_bar=False,
    )
    rows = np.unique(np.concatenate([mined.candidates.ravel(), *queries.positives]))
    rows = rows[rows >= 0]
    texts = [task.collection.document_texts[row] for row in rows]
    relevant = membership(np.tile(rows, (len(queries.ids), 1)), queries.positives)
    num_relevant = np.array([len(np.unique(positives)) for positives in queries.positives])

    def quality(asked: np.ndarray, documents: np.ndarray) -> float:
        return float(ndcg_per_query(reorder(relevant, asked @ documents.T), num_relevant).mean())

    def measure() -> float:
        with undisturbed(encoder):
            asked = encode(encoder, queries.texts, task="query")
            return quality(asked, encode(encoder, texts, task="document"))

    return measure, quality(queries.embeddings, task.documents[rows])


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
        labels=strategy.labels,
        seed=trial.seed,
    )
    return resampler.dataset, [resampler]

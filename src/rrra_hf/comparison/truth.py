"""A training set with known false negatives: positives with hidden labels, or injected near-duplicates."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from datasets import Dataset, concatenate_datasets

from ..candidates import CandidatePool, LabelledQueries, mine_collection
from ..data import Collection
from ..embeddings import CollectionEmbeddings, encode
from ..evaluation import membership
from ..indexes import WordIndex
from ..labels import best_positive_scores
from .hidden_positives import hide_positives, inject_positives, near_duplicate_texts
from .task import Task, labelled_collection
from .trial import Trial

# With at least this many positives per query on average, all but one are hidden.
SEVERAL = 2.0


@dataclass(frozen=True, eq=False)
class GroundTruth:
    """One candidate pool that strategies train on and detectors are measured on, with its false negatives.

    Args:
        protocol: `"hidden"` if each query keeps one of its positives; `"injected"` if the corpus holds
            near-duplicates of labelled documents; `"labelled"` if no false negatives are known.
        collection: The training queries with the remaining labels, and the corpus.
        documents: Embeddings of the corpus, `(m, dim)`.
        training: The training queries with the remaining labels.
        words: The words of the corpus.
        pool: The candidates of each query, mined by the frozen encoder and by words.
        false_negative: Which candidates are known to be relevant without a label, `(n, depth)` bool.
    """

    protocol: str
    collection: Collection
    documents: np.ndarray
    training: LabelledQueries
    words: WordIndex
    pool: CandidatePool
    false_negative: np.ndarray

    @property
    def positive_scores(self) -> np.ndarray:
        """Cosine of each query's best labelled positive, `(n,)`."""
        return best_positive_scores(
            self.training.embeddings, self.documents, [np.asarray(rows) for rows in self.training.positives]
        )


def ground_truth(trial: Trial) -> GroundTruth:
    """Return the ground truth of a trial, made once.

    If queries have several positives, all but one are hidden. Otherwise, near-duplicates of some labelled
    documents are encoded and added to the corpus, unless `injected_rate` is 0.

    Args:
        trial: The trial.

    Raises:
        ValueError: If near-duplicates are needed and the task has no encoder.
    """
    return trial.once("ground truth", lambda: _make(trial))


def _make(trial: Trial) -> GroundTruth:
    task, rng = trial.task, np.random.default_rng(trial.seed)
    positives = task.training.positives
    if np.mean([len(rows) for rows in positives]) >= SEVERAL:
        protocol, (kept, hidden) = "hidden", hide_positives(positives, rng)
        collection, documents = labelled_collection(task, kept), task.documents
        words = task.words
    elif not trial.arguments.injected_rate:
        protocol, kept, documents = "labelled", positives, task.documents
        hidden = [np.empty(0, dtype=np.int64)] * len(positives)
        collection, words = labelled_collection(task, kept), task.words
    else:
        protocol, kept = "injected", positives
        sources, hidden = inject_positives(positives, len(task.documents), trial.arguments.injected_rate, rng)
        collection, documents = _with_duplicates(task, sources, rng)
        words = WordIndex.of(collection.document_texts)
    training = task.training.labelled(words)._replace(positives=kept)
    embeddings = CollectionEmbeddings(training.embeddings, documents, {})
    pool = mine_collection(collection, embeddings, trial.arguments.fit.depth, words=words)
    hidden_candidates = membership(pool.candidates, hidden)
    return GroundTruth(protocol, collection, documents, training, words, pool, hidden_candidates)


def _with_duplicates(
    task: Task, sources: np.ndarray, rng: np.random.Generator
) -> tuple[Collection, np.ndarray]:
    """Return the collection with near-duplicates of the source documents, and its document embeddings."""
    if task.encoder is None:
        raise ValueError(
            f"encoder must be given for {task.name}: its queries have too few positives to hide some, and "
            "near-duplicates must be encoded."
        )
    collection = labelled_collection(task, task.training.positives)
    texts = near_duplicate_texts([collection.document_texts[row] for row in sources], rng)
    copies = {
        "id": [f"near-duplicate of {collection.document_ids[row]}" for row in sources],
        "title": [""] * len(sources),
        "text": texts,
    }
    corpus = concatenate_datasets(
        [
            collection.corpus.select_columns(list(copies)),
            Dataset.from_dict(copies, features=collection.corpus.select_columns(list(copies)).features),
        ]
    )
    embeddings = encode(task.encoder, texts, task="document", cache_dir=task.cache_dir)
    return replace(collection, corpus=corpus), np.concatenate([task.documents, embeddings])

"""A training set in which some false negatives are known: labels that are hidden, or copies put in."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from datasets import Dataset, concatenate_datasets
from scipy.sparse import csr_array
from scipy.special import expit

from ..candidates import CandidatePool, LabelledQueries, count_words, mine_collection
from ..candidates.reading import candidate_probabilities
from ..data import Collection
from ..embeddings import CollectionEmbeddings, encode
from ..evaluation import membership
from ..fitting import FitArguments, cross_fit, fit_adapter
from ..labels import best_positive_scores
from .hidden_positives import hide_positives, inject_positives, near_duplicate_texts
from .systems import cross_encoder_scores
from .task import Task, labelled_collection
from .trial import Trial

# Mean positives a query from which hiding all but one leaves something to find.
SEVERAL = 2.0


@dataclass(frozen=True, eq=False)
class GroundTruth:
    """What strategies train on and detectors judge: one pool, and which of its candidates are relevant.

    Args:
        protocol: `"hidden"`: each query keeps one of its positives; `"injected"`: the corpus holds
            near-duplicates of labelled documents.
        collection: The training queries with the labels that are left, and the corpus.
        documents: Embeddings of the corpus, `(m, dim)`.
        training: The training queries with the labels that are left.
        document_words: Counts of the words of the corpus; None without an encoder that has a tokenizer.
        pool: Candidates of each, mined with the frozen encoder.
        false_negative: Which candidates are known to be relevant though not labelled, `(n, depth)`.
    """

    protocol: str
    collection: Collection
    documents: np.ndarray
    training: LabelledQueries
    document_words: csr_array | None
    pool: CandidatePool
    false_negative: np.ndarray

    @property
    def positive_scores(self) -> np.ndarray:
        """Cosine of each query's (best) labelled positive, `(n,)`."""
        return best_positive_scores(
            self.training.embeddings, self.documents, [np.asarray(rows) for rows in self.training.positives]
        )


def ground_truth(trial: Trial) -> GroundTruth:
    """Return the ground truth of a trial, made once.

    Positives are hidden where queries have several; else near-duplicates of some labelled documents,
    with words dropped and swapped, are encoded and added to the corpus.

    Args:
        trial: The trial.

    Raises:
        ValueError: If near-duplicates are needed and the task has no encoder.
    """
    return trial.once("ground truth", lambda: _make(trial))


def probabilities(trial: Trial) -> np.ndarray:
    """Return the cross-fitted false-negative probabilities of the trial's candidates, made once."""
    return _cross_fitted(trial, trial.arguments.fit)


def feature_probabilities(trial: Trial) -> np.ndarray:
    """Return the same probabilities by a head that reads features, made once."""
    fit = trial.arguments.fit
    return _cross_fitted(trial, FitArguments.preset("features", tau=fit.tau, depth=fit.depth))


def _cross_fitted(trial: Trial, arguments: FitArguments) -> np.ndarray:
    truth = ground_truth(trial)

    def make() -> np.ndarray:
        fitted = cross_fit(
            truth.pool,
            truth.training.embeddings,
            truth.documents,
            arguments=replace(arguments, seed=trial.seed),
            folds=trial.arguments.folds,
            query_words=truth.training.words,
            document_words=truth.document_words,
        ).probability
        assert fitted is not None
        return fitted

    return trial.once(("probabilities", arguments), make)


def in_sample_probabilities(trial: Trial) -> np.ndarray:
    """Return the same probabilities by one adapter that saw all the labels, made once."""
    truth = ground_truth(trial)

    def make() -> np.ndarray:
        queries = truth.training.embeddings
        adapter = fit_adapter(
            queries, truth.documents, pool=truth.pool, arguments=replace(trial.arguments.fit, seed=trial.seed)
        )
        return candidate_probabilities(adapter, queries, truth.pool.candidates, truth.documents)

    return trial.once("in-sample probabilities", make)


def cross_encoder_probabilities(trial: Trial) -> np.ndarray:
    """Return the probability of relevance that the cross-encoder gives each candidate, made once."""
    truth = ground_truth(trial)
    queries, documents = trial.task.training.texts, truth.collection.document_texts
    return trial.once(
        "cross-encoder probabilities",
        lambda: expit(cross_encoder_scores(trial, queries, documents, truth.pool.candidates)),
    )


def _make(trial: Trial) -> GroundTruth:
    task, rng = trial.task, np.random.default_rng(trial.seed)
    positives = task.training.positives
    if np.mean([len(rows) for rows in positives]) >= SEVERAL:
        protocol, (kept, hidden) = "hidden", hide_positives(positives, rng)
        collection, documents = labelled_collection(task, kept), task.documents
        words = task.document_words
    else:
        protocol, kept = "injected", positives
        sources, hidden = inject_positives(positives, len(task.documents), trial.arguments.injected_rate, rng)
        collection, documents = _with_duplicates(task, sources, rng)
        assert task.encoder is not None
        words = count_words(task.encoder, collection.document_texts)
    training = LabelledQueries(task.training.embeddings, kept, task.training.words)
    embeddings = CollectionEmbeddings(training.embeddings, documents, {})
    pool = mine_collection(collection, embeddings, trial.arguments.fit.depth)
    hidden_candidates = membership(pool.candidates, hidden)
    return GroundTruth(protocol, collection, documents, training, words, pool, hidden_candidates)


def _with_duplicates(
    task: Task, sources: np.ndarray, rng: np.random.Generator
) -> tuple[Collection, np.ndarray]:
    """Return the collection with near-duplicates of the source documents, and its embeddings."""
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

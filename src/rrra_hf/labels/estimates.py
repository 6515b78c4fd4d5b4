"""Candidates of training rows, with the probability that each is relevant."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from sentence_transformers import SentenceTransformer

from ..candidates import DEPTH, CandidatePool, mine_collection
from ..candidates.hybrid import cosines_of, merge_ranks, take_from
from ..candidates.labelled import KnownPositives
from ..candidates.reading import with_probability
from ..embeddings import CollectionEmbeddings, encode
from ..evaluation import reorder
from ..indexes import index_words
from ..models.adapter_rrra import RetrieverAdapter
from ..models.modeling_rrra import RRRAModel
from ..retrieval.opening import open_encoder
from .training_rows import TrainingRows

Model = SentenceTransformer | RRRAModel | str | os.PathLike[str]
# Least probability to take a document for a positive: it is rather relevant than not.
ADD = 0.5
# Least probability to take no document for a negative. It is less, because there are others: one that is
# relevant harms more than one that is passed over.
DROP = 0.2


@dataclass(frozen=True)
class Estimating:
    """How candidates are found and their probabilities estimated; what both functions of datasets take.

    Args:
        query_prompt_name: Prompt of anchors, by its name in the model.
        query_prompt: Prompt of anchors.
        corpus_prompt_name: Prompt of documents, by its name in the model.
        corpus_prompt: Prompt of documents.
        batch_size: Encoder batch size.
        cache_folder: Folder of the cache of embeddings and words.
        show_progress_bar: Show progress bars.
    """

    query_prompt_name: str | None = None
    query_prompt: str | None = None
    corpus_prompt_name: str | None = None
    corpus_prompt: str | None = None
    batch_size: int = 32
    cache_folder: str | os.PathLike[str] | None = None
    show_progress_bar: bool | None = None


@dataclass(frozen=True)
class Estimates:
    """Training rows with the candidates of their queries.

    Args:
        rows: The rows.
        pool: Candidates by descending cosine, with probabilities.
        embeddings: Embeddings of the queries and documents.
    """

    rows: TrainingRows
    pool: CandidatePool
    embeddings: CollectionEmbeddings

    @property
    def probability(self) -> np.ndarray:
        """Probability that each candidate is relevant, `(n, k)`; NaN where there is none."""
        assert self.pool.probability is not None
        return self.pool.probability

    @property
    def positive_cosines(self) -> np.ndarray:
        """The least cosine of each query with its positives, `(n,)`."""
        positives = self.rows.positives
        counts = [len(documents) for documents in positives]
        queries = np.repeat(np.arange(len(positives)), counts)
        documents = np.concatenate(positives)[:, None]
        take = take_from(self.embeddings.documents)
        cosines = cosines_of(self.embeddings.queries[queries], documents, take)[:, 0]
        return np.minimum.reduceat(cosines, np.cumsum([0, *counts[:-1]]))

    def probability_of(self, queries: np.ndarray, documents: np.ndarray) -> np.ndarray:
        """Return the probability that documents are relevant: 1 for positives, others must be candidates.

        Args:
            queries: Numbers of queries, `(n,)`.
            documents: Numbers of documents, `(n, k)`.
        """
        pool, count = self.pool, len(self.rows.documents)
        query, place = np.nonzero(pool.candidates >= 0)
        # The last belongs to no pair, for positives, which are no candidates.
        keys = np.append(query * count + pool.candidates[query, place], len(pool) * count)
        values = np.append(self.probability[query, place], np.float32(1))
        order = np.argsort(keys)
        found = np.searchsorted(keys, queries[:, None] * count + documents, sorter=order)
        positive = KnownPositives(self.rows.positives, count).contains(queries[:, None], documents)
        return np.where(positive, np.float32(1), values[order[found]])


def estimate(
    rows: TrainingRows,
    model: Model,
    settings: Estimating,
    negatives: Sequence[np.ndarray],
    *,
    depth: int = DEPTH,
    given: Sequence[np.ndarray] | None = None,
) -> Estimates:
    """Find candidates of each query, and estimate how probably each is relevant.

    Args:
        rows: The rows.
        model: The encoder.
        settings: How to estimate.
        negatives: Documents that are known not to be relevant to each query.
        depth: Number of candidates to find per query.
        given: Documents that are to be among the candidates of each query, beside those that are found.
    """
    embeddings = _embed(rows, _with_prompts(_opened(model), settings), settings)
    words = index_words(rows.documents, settings.cache_folder, show_progress_bar=settings.show_progress_bar)
    counts = words.count(rows.queries)
    pool = mine_collection(
        rows.collection(negatives),
        embeddings,
        depth,
        query_words=counts,
        document_words=words,
        show_progress_bar=settings.show_progress_bar,
    )
    if given is not None:
        pool = _with_candidates(pool, given, embeddings)
    pool = with_probability(pool, RetrieverAdapter.pretrained(), embeddings, counts, words)
    return Estimates(rows, pool, embeddings)


def check_threshold(threshold: float) -> None:
    """Raise a ValueError unless a threshold of probability is legal."""
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold must be in (0, 1], got {threshold}.")


def _opened(model: Model) -> SentenceTransformer:
    if isinstance(model, RRRAModel):
        return model.to_sentence_transformer()
    if isinstance(model, (str, os.PathLike)):
        return open_encoder(os.fspath(model), {})
    if not isinstance(model, SentenceTransformer):
        raise TypeError(
            f"model must be a SentenceTransformer, an RRRAModel or a name, got {type(model).__name__}."
        )
    return model


def _with_prompts(encoder: SentenceTransformer, settings: Estimating) -> SentenceTransformer:
    """Return the encoder with other prompts; it shares its weights with the one that is given."""
    prompts = dict(encoder.prompts)
    for task, argument in (("query", "query_prompt"), ("document", "corpus_prompt")):
        name, prompt = getattr(settings, f"{argument}_name"), getattr(settings, argument)
        if prompt is None and name is not None:
            if name not in encoder.prompts:
                raise ValueError(f"{argument}_name must be one of {list(encoder.prompts)}, got {name!r}.")
            prompt = encoder.prompts[name]
        if prompt is not None:
            prompts[task] = prompt
    other = copy.copy(encoder)
    other.prompts = prompts
    return other


def _embed(rows: TrainingRows, encoder: SentenceTransformer, settings: Estimating) -> CollectionEmbeddings:
    encode_all = partial(
        encode,
        encoder,
        cache_dir=settings.cache_folder,
        batch_size=settings.batch_size,
        show_progress_bar=settings.show_progress_bar,
    )
    # Fingerprints are for pools that are saved.
    return CollectionEmbeddings(
        encode_all(rows.queries, task="query"), encode_all(rows.documents, task="document"), {}
    )


def _with_candidates(
    pool: CandidatePool, given: Sequence[np.ndarray], embeddings: CollectionEmbeddings
) -> CandidatePool:
    width = max(map(len, given), default=0)
    wanted = np.full((len(given), width), -1, dtype=np.int64)
    for row, documents in zip(wanted, given, strict=True):
        row[: len(documents)] = documents
    candidates = merge_ranks(wanted, pool.candidates, pool.depth + width)
    scores = cosines_of(embeddings.queries, candidates, take_from(embeddings.documents))
    return replace(pool, candidates=reorder(candidates, scores), scores=reorder(scores, scores))

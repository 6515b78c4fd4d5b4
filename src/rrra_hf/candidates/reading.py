"""Reading candidates with an adapter, block by block: the one way from candidates to features and scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from scipy.sparse import csr_array
from scipy.special import expit
from torch import Tensor
from torch.nn import functional as F

from ..embeddings import CollectionEmbeddings
from ..evaluation import membership
from ..models.adapter_rrra import Reader, Reading, RetrieverAdapter
from ..models.features_rrra import CandidateFeatures
from ..models.reader_rrra import FeatureReader
from .document_features import DocumentFeatures, Words
from .hybrid import Take
from .labelled import pair_rows
from .level import level_of, nearness, sampled
from .pool import CandidatePool

# Pairs of query and document that are read at a time: about 100 MB at dimension 384.
PAIRS_PER_BLOCK = 16_384
# Labels of a query to learn the level from at most.
LABELS = 8


@torch.inference_mode()
def read_candidates(
    adapter: RetrieverAdapter,
    queries: np.ndarray,
    rows: np.ndarray,
    take: Take,
    features: DocumentFeatures,
    words: csr_array | None = None,
    cosines: np.ndarray | None = None,
    labelled: np.ndarray | None = None,
) -> Reading:
    """Read each query's candidates with an adapter.

    Args:
        adapter: The adapter.
        queries: Embeddings as searched with, `(n, dim)`.
        rows: Rows of the candidates among the documents, `(n, k)`; -1 where there is none.
        take: Returns the embeddings of documents, of length 1, such as `index.reconstruct` or
            `take_from(documents)`.
        features: Features of the documents.
        words: Counts of the queries' words, `(n, vocabulary)`; without them, no words are read.
        cosines: Cosines of the candidates, `(n, k)`; computed if not given.
        labelled: Place of a document labelled relevant among each query's candidates, `(n,)`; None if none is
            known.

    Returns:
        Cosines, what the ranking adds, and log-odds of relevance, each `(n, k)` float32 on the CPU.
        Cosines are -inf where there is no candidate.
    """
    if adapter.training:
        adapter.eval()
    readings = []
    for block, q, c, known in _blocks(adapter.reader, queries, rows, take, features, words, labelled):
        given = None if cosines is None else _tensor(cosines[block]).to(q.device)
        reading = adapter.read(q, c, given, known, normalized=True)
        readings.append(Reading(*(values.float().cpu() for values in reading)))
    return Reading(*(torch.cat(values) for values in zip(*readings, strict=True)))


@torch.no_grad()
def candidate_features(
    reader: FeatureReader,
    queries: np.ndarray,
    rows: np.ndarray,
    take: Take,
    features: DocumentFeatures,
    words: csr_array | None = None,
    labelled: np.ndarray | None = None,
) -> Tensor:
    """Return the features of each query's candidates, to fit heads on, `(n, k, features)`.

    Args:
        reader: The reader.
        queries: As in `read_candidates`, as the others.
        rows: Rows of the candidates.
        take: Returns the embeddings of documents, normalised.
        features: Features of the documents.
        words: Counts of the queries' words.
        labelled: Places of documents labelled relevant.
    """
    found = []
    for _, q, c, known in _blocks(reader, queries, rows, take, features, words, labelled):
        found.append(reader.features(q, c, torch.einsum("nd,nkd->nk", q, c), known))
    return torch.cat(found)


def _blocks(
    reader: Reader,
    queries: np.ndarray,
    rows: np.ndarray,
    take: Take,
    features: DocumentFeatures,
    words: csr_array | None,
    labelled: np.ndarray | None,
) -> Iterator[tuple[slice, Tensor, Tensor, CandidateFeatures]]:
    """Yield blocks of queries: normalised embeddings of both, and what is known about the candidates."""
    device = next(reader.parameters()).device
    size = max(1, PAIRS_PER_BLOCK // max(1, rows.shape[1]))
    # One block at least, so that no queries give no rows.
    for start in range(0, max(1, len(rows)), size):
        block = slice(start, start + size)
        q = F.normalize(_tensor(queries[block]).to(device), dim=-1)
        # Slices of sparse matrices are slow.
        asked = words if words is None or len(rows) <= size else words[block]
        known = features.of_candidates(reader, q, asked, rows[block])
        if labelled is not None:
            known = known._replace(labelled=torch.from_numpy(labelled[block]))
        yield block, q, _tensor(take(rows[block])).to(device), known


ReadRows = Callable[[np.ndarray, np.ndarray, np.ndarray | None], Reading]
"""From rows of queries `(n,)`, rows of documents `(n, k)`, and the place of a labelled one among them `(n,)`
or None, to what an adapter reads."""


class Judged(NamedTuple):
    """What an adapter says of candidates beside a labelled document of their query.

    Args:
        probability: Probability that each is relevant, `(n, k)` float32; NaN where there is no candidate.
        ranking_scores: By how much it is ranked above the labelled document, `(n, k)` float32; -inf where
            there is no candidate. None if no document is labelled.
    """

    probability: np.ndarray
    ranking_scores: np.ndarray | None


def judge_candidates(
    adapter: RetrieverAdapter,
    queries: np.ndarray,
    candidates: np.ndarray,
    documents: np.ndarray,
    words: csr_array | None = None,
    document_words: Words | None = None,
    positives: Sequence[np.ndarray] | None = None,
    negatives: Sequence[np.ndarray] | None = None,
    folds: Sequence[np.ndarray] | None = None,
) -> Judged:
    """Return how an adapter judges candidates, from embeddings before the adapter's maps.

    Args:
        adapter: The adapter.
        queries: Query embeddings from the encoder, `(n, dim)`.
        candidates: Rows of the candidates among the documents, `(n, k)`; -1 where there is none.
        documents: Document embeddings from the encoder, `(m, dim)`.
        words: Counts of the queries' words, of the vocabulary of the documents' words.
        document_words: The documents' words, if the adapter reads words.
        positives: Rows of each query's labelled documents, which are not among the candidates. The first is
            read with them: what is like a relevant document is more probably relevant. Where they stand
            tells how many others are relevant, see `level_of`.
        negatives: Rows of documents that were judged and aren't relevant. Their probability is 0.
        folds: Rows of the queries of each fold. The labels of a fold then tell nothing about its own queries.
            None lets all labels tell of all queries.
    """
    mapped = adapter.map_documents(documents)
    features = DocumentFeatures.of(adapter.reader, [mapped], document_words)
    searched = adapter.map_queries(queries)

    def read_rows(asked: np.ndarray, rows: np.ndarray, labelled: np.ndarray | None) -> Reading:
        counts = None if words is None else words[asked]
        take = mapped.__getitem__
        return read_candidates(adapter, searched[asked], rows, take, features, counts, labelled=labelled)

    return judge(adapter, read_rows, candidates, positives, negatives, folds)


def judge(
    adapter: RetrieverAdapter,
    read_rows: ReadRows,
    candidates: np.ndarray,
    positives: Sequence[np.ndarray] | None = None,
    negatives: Sequence[np.ndarray] | None = None,
    folds: Sequence[np.ndarray] | None = None,
) -> Judged:
    """Return how an adapter judges candidates, wherever the documents are.

    Args:
        adapter: The adapter.
        read_rows: Reads documents of queries with the adapter.
        candidates: As in `judge_candidates`, as the others.
        positives: Rows of each query's labelled documents.
        negatives: Rows of documents that were judged and aren't relevant.
        folds: Rows of the queries of each fold.
    """
    possible = candidates >= 0
    if negatives is not None and any(map(len, negatives)):
        possible &= ~membership(candidates, negatives)

    def read(
        asked: np.ndarray, first: np.ndarray | None = None, labelled: bool = False
    ) -> tuple[np.ndarray, Reading]:
        """Read queries' candidates, after one document each that may be known as labelled.

        Returns:
            Their log-odds, -inf where no relevant document can be, and all that is read.
        """
        rows, kept = candidates[asked], possible[asked]
        if first is not None:
            rows = np.column_stack([first, rows])
            kept = np.column_stack([np.ones(len(first), dtype=bool), kept])
        reading = read_rows(asked, rows, np.zeros(len(asked), dtype=np.int64) if labelled else None)
        return np.where(kept, reading.relevance.numpy(), np.float32(-np.inf)), reading

    every = np.arange(len(candidates))
    if positives is None:
        return Judged(np.where(candidates >= 0, expit(read(every)[0]), np.float32(np.nan)), None)
    given_one, reading = read(every, np.array([rows[0] for rows in positives]), labelled=True)
    given_one = given_one[:, 1:]
    scores = adapter.combine(reading.cosines, reading.ranking).numpy()
    cosines = reading.cosines.numpy()[:, 1:]
    probability = _levelled(lambda asked, first: read(asked, first)[0], given_one, cosines, positives, folds)
    return Judged(
        np.where(candidates >= 0, probability, np.float32(np.nan)),
        np.where(candidates >= 0, scores[:, 1:] - scores[:, :1], np.float32(-np.inf)),
    )


def _levelled(
    log_odds: Callable[[np.ndarray, np.ndarray], np.ndarray],
    given_one: np.ndarray,
    cosines: np.ndarray,
    positives: Sequence[np.ndarray],
    folds: Sequence[np.ndarray] | None,
) -> np.ndarray:
    """Return probabilities at the level that labelled documents tell, `(n, k)`.

    Args:
        log_odds: From queries and a labelled document each to log-odds of that and the candidates.
        given_one: Log-odds of the candidates beside a labelled document, `(n, k)`.
        cosines: Cosines of the candidates, `(n, k)`.
        positives: As in `judge_candidates`.
        folds: As in `judge_candidates`.
    """
    query, label = pair_rows([rows[:LABELS] for rows in positives]).T
    every = np.arange(len(positives))
    if folds is None:
        folds, others = [every], [every]
    else:
        others = [np.setdiff1d(every, fold) for fold in folds]
    told = [np.flatnonzero(np.isin(query, rest)) for rest in others]
    samples = [labels[sampled(len(labels))] for labels in told]
    read = np.unique(np.concatenate(samples))
    alone = log_odds(query[read], label[read])
    probability = np.empty(given_one.shape, dtype=np.float32)
    for fold, rest, some in zip(folds, others, samples, strict=True):
        near = nearness(cosines, rest)
        level = level_of(alone[np.searchsorted(read, some)], query[some], given_one, near)
        probability[fold] = level.probability(given_one[fold], near[fold])
    return probability


def with_probability(
    pool: CandidatePool,
    adapter: RetrieverAdapter,
    embeddings: CollectionEmbeddings,
    words: csr_array | None,
    document_words: Words | None,
) -> CandidatePool:
    """Return a pool with the probability that each candidate is relevant, and the score that ranks it.

    Args:
        pool: The pool.
        adapter: The adapter.
        embeddings: Embeddings of the pool's queries and documents from the encoder.
        words: Counts of the queries' words.
        document_words: The documents' words.
    """
    queries, documents, _ = embeddings
    judged = judge_candidates(
        adapter, queries, pool.candidates, documents, words, document_words, pool.positives, pool.negatives
    )
    return replace(pool, probability=judged.probability, ranking_scores=judged.ranking_scores)


def _tensor(values: np.ndarray) -> Tensor:
    values = np.asarray(values, dtype=np.float32)
    # torch warns about arrays that are read-only, as memory-mapped ones are.
    return torch.from_numpy(values if values.flags.writeable else values.copy())

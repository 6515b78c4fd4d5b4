"""Choosing the weight of an adapter in the ranking on development queries, without being fooled by noise."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import torch

from ..candidates import DocumentFeatures
from ..candidates.hybrid import take_from
from ..candidates.reading import read_candidates
from ..candidates.retrieved import RetrievedCandidates
from ..evaluation import ndcg_per_query, reorder
from ..models.adapter_rrra import RetrieverAdapter

logger = logging.getLogger(__name__)


def choose_strength(
    adapter: RetrieverAdapter,
    development: RetrievedCandidates,
    documents: np.ndarray,
    features: DocumentFeatures,
) -> None:
    """Set `lambda_`, the adapter's weight in the reranking score, by the one-standard-error rule.

    0 is among the choices: the adapter never ranks the development queries worse than the retriever alone.

    Args:
        adapter: The adapter; its configuration is changed.
        development: What is retrieved for the development queries.
        documents: Document embeddings as indexed, `(m, dim)`.
        features: Features of the documents.
    """
    strengths = adapter.reader.strengths
    quality = quality_by_strength(adapter, development, documents, features)
    row = smallest_within_one_standard_error(strengths, quality)
    adapter.config.lambda_ = strengths[row]
    adapter.config.fit["development"] = {
        "queries": quality.shape[1],
        "nDCG@10": {"encoder": float(quality[0].mean()), "adapter": float(quality[row].mean())},
        "lambda": strengths[row],
        **adapter.config.fit.get("development", {}),
    }
    logger.info(
        "lambda %.2f: development nDCG@10 %.4f (%.4f without)",
        strengths[row],
        quality[row].mean(),
        quality[0].mean(),
    )


def quality_by_strength(
    adapter: RetrieverAdapter,
    development: RetrievedCandidates,
    documents: np.ndarray,
    features: DocumentFeatures,
) -> np.ndarray:
    """Return nDCG@10 of each development query under each strength, `(len(strengths), n)`."""
    queries, rows, take = development.queries, development.rows, take_from(documents)
    reading = read_candidates(adapter, queries, rows, take, features, development.words)
    cosines = torch.from_numpy(development.cosines)
    rankings = [
        reorder(development.relevant, adapter.combine(cosines, reading.ranking, strength).numpy())
        for strength in adapter.reader.strengths
    ]
    return np.stack([ndcg_per_query(ranking, development.num_relevant) for ranking in rankings])


def smallest_within_one_standard_error(
    strengths: Sequence[float], quality: np.ndarray, prior_queries: int = 0
) -> int:
    """Return the position of the smallest strength that is within one standard error of the best.

    The standard error is that of the per-query differences from the best strength. So a gain that a few
    queries made by chance doesn't lead to a harmful strength. A strength that is worse than the first on
    average is never chosen, however large its standard error.

    Args:
        strengths: Ascending, the first being the harmless choice.
        quality: Quality of each query under each strength, `(len(strengths), n)`.
        prior_queries: Number of queries to imagine on which no strength differs. They shrink differences
            that few queries show, and hardly those that many show.

    Source:
        The one-standard-error rule of Breiman et al. 1984, on paired differences.

    Example:
        >>> smallest_within_one_standard_error([0.0, 1.0], np.array([[0.5, 0.5, 0.5], [0.7, 0.3, 0.6]]))
        0
        >>> better = np.array([[0.5, 0.5, 0.5], [0.7, 0.6, 0.6]])
        >>> smallest_within_one_standard_error([0.0, 1.0], better)
        1
        >>> smallest_within_one_standard_error([0.0, 1.0], better, prior_queries=20)
        0
    """
    if len(strengths) != len(quality) or list(strengths) != sorted(strengths):
        raise ValueError(f"strengths must ascend, one for each row of quality, got {list(strengths)}.")
    means = quality.mean(axis=1)
    losses = quality[means.argmax()] - quality
    n = quality.shape[1]
    standard_errors = losses.std(axis=1, ddof=1) / np.sqrt(n) if n > 1 else np.full(len(losses), np.inf)
    believed = losses.mean(axis=1) * n / (n + prior_queries)
    return int(np.argmax((believed <= standard_errors) & (means >= means[0])))

"""Reading a fitted head: calibrating its probabilities and choosing its weight in the ranking."""

from __future__ import annotations

import logging

import numpy as np
import torch
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from ..adapter_rrra import RetrieverAdapter
from ..evaluation import expected_calibration_error, ndcg_per_query, reorder
from .examples import DevelopmentSet, gather
from .selection import smallest_within_one_standard_error

logger = logging.getLogger(__name__)

LAMBDAS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0)
# Pairs that pass through the adapter at a time: bounds memory at d = 384 to about 100 MB.
PAIRS_PER_BLOCK = 16_384
# Logits that tell less than this are taken to tell nothing.
MIN_SLOPE = 1e-4


@torch.inference_mode()
def candidate_logits(
    adapter: RetrieverAdapter, queries: np.ndarray, rows: np.ndarray, documents: np.ndarray
) -> np.ndarray:
    """Return the adapter's logits for each query's candidates, in blocks.

    Args:
        adapter: The adapter.
        queries: `(n, dim)`.
        rows: Rows of the candidates among the documents, `(n, k)`; -1 is read as any document.
        documents: `(m, dim)`.

    Returns:
        `(n, k)`, float32.
    """
    adapter.eval()
    block = max(1, PAIRS_PER_BLOCK // max(1, rows.shape[1]))
    logits = np.empty(rows.shape, dtype=np.float32)
    for start in range(0, len(rows), block):
        stop = min(start + block, len(rows))
        q = gather(queries, np.arange(start, stop))[:, None]
        c = gather(documents, rows[start:stop])
        logits[start:stop] = adapter(q, c).logits.numpy()
    return logits


def candidate_probabilities(
    adapter: RetrieverAdapter, queries: np.ndarray, candidates: np.ndarray, documents: np.ndarray
) -> np.ndarray:
    """Return the probability of relevance of each query's candidates, after the adapter's maps.

    Args:
        adapter: The adapter.
        queries: `(n, dim)`, as the encoder makes them.
        candidates: Rows of the candidates among the documents, `(n, k)`; -1 where there is none.
        documents: `(m, dim)`, as the encoder makes them.

    Returns:
        `(n, k)`, float32, NaN where there is no candidate.
    """
    logits = candidate_logits(
        adapter, adapter.map_queries(queries), candidates, adapter.map_documents(documents)
    )
    return np.where(candidates >= 0, expit(logits), np.float32(np.nan))


def quality_by_lambda(
    adapter: RetrieverAdapter, development: DevelopmentSet, documents: np.ndarray
) -> np.ndarray:
    """Return nDCG@10 of each development query under each lambda, `(len(LAMBDAS), n)`."""
    logits = torch.from_numpy(candidate_logits(adapter, development.queries, development.rows, documents))
    cosines = torch.from_numpy(development.cosines)
    rankings = [
        reorder(development.relevant, adapter.combine(cosines, logits, lambda_).numpy())
        for lambda_ in LAMBDAS
    ]
    return np.stack([ndcg_per_query(ranking, development.num_relevant) for ranking in rankings])


def choose_lambda(adapter: RetrieverAdapter, development: DevelopmentSet, documents: np.ndarray) -> None:
    """Set the weight of the adapter in the reranking score, by the one-standard-error rule, 0 allowed."""
    qualities = quality_by_lambda(adapter, development, documents)
    row = smallest_within_one_standard_error(LAMBDAS, qualities)
    adapter.config.lambda_ = LAMBDAS[row]
    adapter.config.fit["development"] = {
        "queries": qualities.shape[1],
        "nDCG@10": {"encoder": float(qualities[0].mean()), "adapter": float(qualities[row].mean())},
        "lambda": LAMBDAS[row],
        **adapter.config.fit.get("development", {}),
    }
    logger.info(
        "lambda %.2f: development nDCG@10 %.4f (%.4f without)",
        LAMBDAS[row],
        qualities[row].mean(),
        qualities[0].mean(),
    )


@torch.no_grad()
def calibrate(adapter: RetrieverAdapter, development: DevelopmentSet, documents: np.ndarray) -> None:
    """Set temperature and bias so that probabilities match the share of labelled development candidates.

    Platt scaling: a listwise objective leaves the level of the logits free, so a temperature alone
    could not calibrate them. Where the logits do not rise with relevance, every candidate gets the
    share of labelled ones as its probability.
    """
    logits = candidate_logits(adapter, development.queries, development.rows, documents)
    labels = development.relevant.ravel()
    slope, intercept = _platt(logits, labels)
    adapter.config.temperature = 1.0 / slope
    # Half up on the labelled classes and half down on the others moves the log-odds by the whole.
    direction = [1.0] if adapter.config.num_classes == 1 else [0.5, 0.5, -0.5, -0.5]
    adapter.readout.bias.add_(torch.tensor(direction) * intercept / slope)
    probabilities = expit(slope * logits + intercept)
    error = expected_calibration_error(probabilities, labels)
    adapter.config.fit["development"] = {"expected_calibration_error": error}
    logger.info("Temperature %.2f, expected calibration error %.4f", 1.0 / slope, error)


def _platt(logits: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Return slope and intercept of the logistic regression of the labels on the logits."""
    if labels.any() and not labels.all():
        regression = LogisticRegression(C=np.inf).fit(logits.reshape(-1, 1), labels)
        slope, intercept = float(regression.coef_[0, 0]), float(regression.intercept_[0])
        if slope > MIN_SLOPE:
            return slope, intercept
    logger.warning("The adapter's logits do not rise with relevance on the development queries.")
    share = (labels.sum() + 0.5) / (labels.size + 1)
    return MIN_SLOPE, float(np.log(share / (1 - share)))

"""Features of a candidate document, in addition to its cosine.

Each feature is a function of `FeatureInputs` that returns `(n, k)`. To add one, write the function and add
it to `FEATURES`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .memory_rrra import Memory

AGREEMENT_TAU = 0.03


class CandidateFeatures(NamedTuple):
    """What is known about candidates in addition to their embeddings.

    Args:
        statics: Features of each candidate's document alone, `(n, k, 2)`, from `Memory.document_statics`;
            None to compute them, which is slow.
        words: Words shared with the query, `(n, k)`; None if no words are read.
        expansion: Words shared with what the query recalls, `(n, k)`; None if no words are read.
        recalled: What `Memory.recall` returns for the queries; None to compute it.
    """

    statics: Tensor | None = None
    words: Tensor | None = None
    expansion: Tensor | None = None
    recalled: tuple[Tensor, Tensor] | None = None


class FeatureInputs(NamedTuple):
    """Inputs of the features of a block of queries.

    Args:
        cosines: Cosines of the search, `(n, k)`.
        statics: Features of the documents alone, `(n, k, 2)`.
        views: Products of each candidate with the query before the maps, with what the query recalls, and
            with the consensus of the candidates, `(n, k, 3)`.
        share: Share of each candidate in the consensus, `(n, k)`.
        words: Words shared with the query, `(n, k)`; None if no words are read.
        expansion: Words shared with what the query recalls, `(n, k)`; None if no words are read.
    """

    cosines: Tensor
    statics: Tensor
    views: Tensor
    share: Tensor
    words: Tensor | None
    expansion: Tensor | None


def feature_inputs(
    memory: Memory, q: Tensor, c: Tensor, cosines: Tensor, given: CandidateFeatures
) -> FeatureInputs:
    """Compute the inputs of all features.

    Args:
        memory: The memory of training pairs.
        q: Normalised query embeddings, as searched with, `(n, dim)`.
        c: Normalised embeddings of the candidates, as indexed, `(n, k, dim)`.
        cosines: Cosines of the candidates, `(n, k)`.
        given: What is known about the candidates already.
    """
    statics = given.statics
    if statics is None:
        statics = memory.document_statics(c.flatten(0, 1)).unflatten(0, c.shape[:2])
    weights, rows = memory.recall(q) if given.recalled is None else given.recalled
    remembered = torch.einsum("nm,nmd->nd", weights, memory.answers[rows].to(q))
    share = (cosines / AGREEMENT_TAU).softmax(-1)
    consensus = torch.einsum("nk,nkd->nd", share, c)
    base = memory.before_maps(q) @ memory.document_inverse
    # One product for all three: it takes most of the time.
    views = torch.einsum("nvd,nkd->nkv", torch.stack([base, remembered, consensus], dim=1), c)
    return FeatureInputs(cosines, statics.to(q), views, share, given.words, given.expansion)


def mapped(x: FeatureInputs) -> Tensor:
    """Return the cosine of the search, after the linear maps. Costs nothing."""
    return x.cosines


def base(x: FeatureInputs) -> Tensor:
    """Return the cosine before the linear maps, recovered with the maps' inverses. Costs one product."""
    return x.views[..., 0] * x.statics[..., 1]


def memory(x: FeatureInputs) -> Tensor:
    """Return the cosine with what was relevant to similar training queries. Costs a search among those."""
    return x.views[..., 1]


def hubness(x: FeatureInputs) -> Tensor:
    """Return how close the document is to training queries that it isn't relevant to. Precomputed."""
    return x.statics[..., 0]


def agreement(x: FeatureInputs) -> Tensor:
    """Return the product with the softmax-weighted mean of the other candidates. Costs one product."""
    return x.views[..., 2] - x.share


def words(x: FeatureInputs) -> Tensor:
    """Return the share of the query's rare words that the document has, by BM25. Costs a sparse product."""
    return _of_words(x.words)


def expansion(x: FeatureInputs) -> Tensor:
    """Return the words shared with what was relevant to similar training queries. Costs a sparse product."""
    return _of_words(x.expansion)


def _of_words(values: Tensor | None) -> Tensor:
    if values is None:
        raise ValueError("The adapter reads words: give the words shared with the candidates, too.")
    return values


FEATURES = {
    "mapped": mapped,
    "base": base,
    "memory": memory,
    "hubness": hubness,
    "agreement": agreement,
    "words": words,
    "expansion": expansion,
}
# Those that need the words of queries and documents.
OF_WORDS = ("words", "expansion")

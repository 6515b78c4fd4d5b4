"""Features of a query's candidate documents.

Each feature is a function of `Candidates` that returns `(n, k)`. To add one, write the function and add it to
`FEATURES`. Scores of encoders and collections are on different scales, so features compare a candidate with
the query's other candidates: by standard scores, by distance from the best, and by rank.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from .memory_rrra import Memory, Recalled

AGREEMENT_TAU = 0.03
# Number of best documents that the consensus and the feedback of a query are made of.
CONSENSUS = 20
FUSED = 10
FEEDBACK = 3
# A cosine difference that matters, about the temperature that encoders are trained with.
COSINE_UNIT = 0.05
# The constant of reciprocal rank fusion (Cormack et al. 2009), and one that tells first ranks apart.
RRF = 60
FIRST_RANKS = 10
# Number of candidates by cosine whose spread is measured.
SPREAD = 100
# Greatest BM25 weight of a word, relative to its inverse document frequency.
GREATEST_BM25 = 2.2


class CandidateFeatures(NamedTuple):
    """What is known about candidates in addition to their embeddings.

    Args:
        statics: Features of each candidate's document alone, `(n, k, features)`, from the reader's
            `document_statics`; None to compute them, which is slow.
        words: BM25 scores, divided by the sum of the inverse document frequencies of the query's words,
            `(n, k)`; None without words.
        recalled: What `Memory.recall` returns for the queries; None to compute it.
        coverage: Share of the query's words that a candidate has, weighed by inverse document frequency,
            `(n, k)`; None without words.
        length: Logarithm of the number of words of a candidate, less its mean over the corpus, `(n, k)`; None
            without words.
        query_words: Number of distinct words of each query, `(n,)`; None without words.
        expansion: Word pieces shared with what the query recalls, `(n, k)`; for adapters of format version 2.
        labelled: Place of a document labelled relevant among the candidates, `(n,)` int64; None if none is
            known. The heads estimate the relevance of the others.
        present: Where there is a candidate, `(n, k)`; None if everywhere.
    """

    statics: Tensor | None = None
    words: Tensor | None = None
    recalled: Recalled | None = None
    coverage: Tensor | None = None
    length: Tensor | None = None
    query_words: Tensor | None = None
    expansion: Tensor | None = None
    labelled: Tensor | None = None
    present: Tensor | None = None


class Sorted(NamedTuple):
    """Candidates, best first; places without a candidate are last.

    Args:
        values: What they are sorted by, `(n, k)`.
        order: Where they were before, `(n, k)` int64.
    """

    values: Tensor
    order: Tensor


class Candidates:
    """The candidates of a block of queries, and what several features are computed from.

    Without words, features of words are 0.

    Args:
        memory: The memory of training pairs.
        q: Normalised query embeddings, as searched with, `(n, dim)`.
        c: Normalised embeddings of the candidates, as indexed, `(n, k, dim)`.
        cosines: Cosines of the candidates, `(n, k)`.
        given: What is known about the candidates already.
    """

    def __init__(self, memory: Memory, q: Tensor, c: Tensor, cosines: Tensor, given: CandidateFeatures):
        self.memory, self.q, self.c, self.given = memory, q, c, given
        self.present = torch.ones_like(cosines, dtype=torch.bool) if given.present is None else given.present
        self.cosines = cosines.where(self.present, 0.0)

    def known(self, values: Tensor | None) -> Tensor:
        """Return what is given about candidates, 0 where there is no candidate or nothing is given."""
        if values is None:
            return torch.zeros_like(self.cosines)
        return values.to(self.cosines).where(self.present, 0.0)

    @cached_property
    def words(self) -> Tensor:
        """BM25 scores, relative to the query's words, `(n, k)`."""
        return self.known(self.given.words)

    @cached_property
    def count(self) -> Tensor:
        """Number of candidates, `(n, 1)`."""
        return self.present.sum(-1, keepdim=True)

    @cached_property
    def by_cosine(self) -> Sorted:
        """The candidates by cosine."""
        cosines = self.cosines.masked_fill(~self.present, -torch.inf)
        return Sorted(*cosines.sort(dim=-1, descending=True, stable=True))

    @cached_property
    def by_words(self) -> Sorted:
        """The candidates by BM25. Those that share no word are last."""
        return self.sorted_by(self.words)

    @cached_property
    def by_fusion(self) -> Sorted:
        """The candidates by reciprocal rank fusion."""
        return self.sorted_by(self.cosine_rrf + self.word_rrf)

    def sorted_by(self, values: Tensor) -> Sorted:
        """Sort the candidates by values `(n, k)`, equal ones by cosine: their own order must not matter."""
        order = self.by_cosine.order
        found = values.gather(-1, order).sort(dim=-1, descending=True, stable=True)
        return Sorted(found.values, order.gather(-1, found.indices))

    def tenth(self, found: Sorted) -> Tensor:
        """Return the tenth value, the last one if there are fewer, `(n, 1)`."""
        return found.values.gather(-1, (self.count - 1).clamp(0, 9))

    @cached_property
    def cosine_ranks(self) -> Tensor:
        """Ranks by cosine, from 0, `(n, k)`."""
        return ranks_in(self.by_cosine.order)

    @cached_property
    def shares_words(self) -> Tensor:
        """Whether a candidate shares a word with the query, `(n, k)`."""
        return self.words > 0

    @cached_property
    def word_ranks(self) -> Tensor:
        """Ranks by BM25, from 0, `(n, k)`. Those of candidates that share no word mean nothing."""
        return ranks_in(self.by_words.order)

    @cached_property
    def cosine_rrf(self) -> Tensor:
        """What the rank by cosine adds to the score of reciprocal rank fusion, `(n, k)`."""
        return 1 / (RRF + 1 + self.cosine_ranks)

    @cached_property
    def word_rrf(self) -> Tensor:
        """What the rank by BM25 adds to the score of reciprocal rank fusion, `(n, k)`."""
        return self.shares_words / (RRF + 1 + self.word_ranks)

    @cached_property
    def best_cosine(self) -> Tensor:
        """Cosine of the first candidate, `(n, 1)`."""
        return self.by_cosine.values[:, :1].clamp_min(-1)

    @cached_property
    def best_words(self) -> Tensor:
        """BM25 score of the best candidate by words, `(n, 1)`, positive."""
        return self.by_words.values[:, :1].clamp_min(1e-6)

    @cached_property
    def standard_scores(self) -> dict[str, Tensor]:
        """Standard scores of several features, `(n, k)` each, computed together because that is faster."""
        # Shares of the best candidates in three means: by their cosines, and twice even ones.
        shares = self.c.new_zeros(len(self.c), 3, self.c.shape[1])
        values, order = (column[:, :CONSENSUS] for column in self.by_cosine)
        shares[:, 0].scatter_(-1, order, (values / AGREEMENT_TAU).clamp_min(-1e9).softmax(-1))
        for row, best, size in ((1, self.by_cosine, FEEDBACK), (2, self.by_fusion, FUSED)):
            order = best.order[:, :size]
            even = self.present.gather(-1, order) / self.count.clamp(1, size)
            shares[:, row].scatter_(-1, order, even.to(shares))
        means = shares @ self.c
        means[:, 1] += self.q
        products = means @ self.c.mT
        # Consensus is that with the others.
        products[:, ::2] -= shares[:, ::2]
        values = torch.cat([self.cosines[:, None], self.words[:, None], products], dim=1)
        scores = standard_scores(values, self.present[:, None]).unbind(1)
        names = ("cosine", "bm25", "consensus", "feedback", "fused_consensus")
        return dict(zip(names, scores, strict=True))

    def with_vector(self, vectors: Tensor) -> Tensor:
        """Return the product of each candidate with a vector of its query: `(n, dim)` to `(n, k)`."""
        return torch.einsum("nd,nkd->nk", vectors, self.c)

    @cached_property
    def recalled(self) -> Recalled:
        """The similar training queries."""
        return self.memory.recall(self.q) if self.given.recalled is None else self.given.recalled

    @cached_property
    def statics(self) -> Tensor:
        """Features of the documents alone, `(n, k, 1)`."""
        if self.given.statics is not None:
            return self.given.statics.to(self.q)
        return self.memory.hubness(self.c.flatten(0, 1)).view(*self.c.shape[:2], 1).to(self.q)

    def above_labelled(self, values: Tensor) -> Tensor:
        """Return how far values `(n, k)` are above that of the labelled document; 0 if none is known."""
        if self.given.labelled is None:
            return torch.zeros_like(values)
        return values - values.gather(-1, self.given.labelled[:, None])

    @cached_property
    def near_labelled(self) -> Tensor:
        """Cosine of each candidate with the document labelled relevant, `(n, k)`; 0 if none is known."""
        if self.given.labelled is None:
            return torch.zeros_like(self.cosines)
        rows = torch.arange(len(self.c), device=self.c.device)
        return self.with_vector(self.c[rows, self.given.labelled])


Feature = Callable[[Candidates], Tensor]
"""From candidates to one number for each, `(n, k)`."""


def standard_scores(values: Tensor, present: Tensor) -> Tensor:
    """Return how many standard deviations a value lies above the mean of the query's candidates.

    Args:
        values: `(n, k)`.
        present: Which of them are candidates, `(n, k)`; the others get 0.

    Example:
        >>> standard_scores(torch.tensor([[1.0, 3.0, 9.0]]), torch.tensor([[True, True, False]])).round()
        tensor([[-1.,  1.,  0.]])
    """
    count = present.sum(-1, keepdim=True).clamp_min(1)
    mean = values.where(present, 0.0).sum(-1, keepdim=True) / count
    differences = (values - mean).where(present, 0.0)
    return differences / ((differences.square().sum(-1, keepdim=True) / count).sqrt() + 1e-6)


def ranks_in(order: Tensor) -> Tensor:
    """Return the rank of each candidate, from 0, given the candidates best first: `(n, k)` to `(n, k)`."""
    places = torch.arange(order.shape[-1], device=order.device).expand_as(order)
    return torch.empty_like(order).scatter_(-1, order, places)


def ranks(values: Tensor, present: Tensor) -> Tensor:
    """Return the rank of each value among those present, the greatest first, from 0. Ties keep their order.

    Example:
        >>> ranks(torch.tensor([[1.0, 3.0, 9.0]]), torch.tensor([[True, True, False]]))
        tensor([[1, 0, 2]])
    """
    order = values.masked_fill(~present, -torch.inf).argsort(dim=-1, descending=True, stable=True)
    return ranks_in(order)


def of_query(values: Tensor, x: Candidates) -> Tensor:
    """Give all candidates what is known of their query: `(n, 1)` to `(n, k)`."""
    return values.expand_as(x.cosines)


# ---------------------------------------------------------------- by the encoder


def cosine(x: Candidates) -> Tensor:
    """Return the standard score of the cosine of the search, after the linear maps."""
    return x.standard_scores["cosine"]


def cosine_gap(x: Candidates) -> Tensor:
    """Return how far the cosine is below the best one."""
    return (x.cosines - x.best_cosine) / COSINE_UNIT


def cosine_rank(x: Candidates) -> Tensor:
    """Return the reciprocal rank by cosine, on a scale that tells the first ten apart."""
    return 1 / (1 + x.cosine_ranks / FIRST_RANKS)


def cosine_rrf(x: Candidates) -> Tensor:
    """Return the reciprocal rank by cosine, as reciprocal rank fusion has it."""
    return RRF * x.cosine_rrf


def consensus(x: Candidates) -> Tensor:
    """Return the standard score of the cosine with the weighted mean of the other best documents."""
    return x.standard_scores["consensus"]


def feedback(x: Candidates) -> Tensor:
    """Return the standard score of the cosine with the query moved towards its best documents (Rocchio)."""
    return x.standard_scores["feedback"]


# ---------------------------------------------------------------- by words


def bm25(x: Candidates) -> Tensor:
    """Return the standard score of BM25."""
    return x.standard_scores["bm25"]


def bm25_share(x: Candidates) -> Tensor:
    """Return BM25 relative to the best candidate."""
    return x.words / x.best_words


def bm25_rank(x: Candidates) -> Tensor:
    """Return the reciprocal rank by BM25, on a scale that tells the first ten apart."""
    return x.shares_words / (1 + x.word_ranks / FIRST_RANKS)


def bm25_rrf(x: Candidates) -> Tensor:
    """Return the reciprocal rank by BM25, as reciprocal rank fusion has it."""
    return RRF * x.word_rrf


def coverage(x: Candidates) -> Tensor:
    """Return the share of the query's words that the document has, rare words counting more."""
    return x.known(x.given.coverage)


def length(x: Candidates) -> Tensor:
    """Return how much longer the document is than others, as a logarithm."""
    return x.known(x.given.length)


# ---------------------------------------------------------------- by both


def fused_consensus(x: Candidates) -> Tensor:
    """Return the standard score of the cosine with the mean of the others that are best by rank fusion."""
    return x.standard_scores["fused_consensus"]


# ---------------------------------------------------------------- of the query: what to trust


def best_cosine(x: Candidates) -> Tensor:
    """Return the cosine of the first candidate."""
    return of_query(x.best_cosine, x)


def cosine_lead(x: Candidates) -> Tensor:
    """Return how far the first candidate is ahead of the tenth by cosine."""
    return of_query(x.best_cosine - x.tenth(x.by_cosine).clamp_min(-1), x)


def cosine_spread(x: Candidates) -> Tensor:
    """Return the standard deviation of the first hundred cosines."""
    first = x.by_cosine.values[:, :SPREAD]
    present, count = first > -torch.inf, x.count.clamp(1, SPREAD)
    mean = first.where(present, 0.0).sum(-1, keepdim=True) / count
    squares = (first - mean).where(present, 0.0).square().sum(-1, keepdim=True)
    return of_query((squares / count).sqrt(), x)


def best_bm25(x: Candidates) -> Tensor:
    """Return the best BM25 score relative to the greatest possible one."""
    return of_query(x.best_words / GREATEST_BM25, x)


def bm25_lead(x: Candidates) -> Tensor:
    """Return how far the best candidate by words is ahead of the tenth, relative to it."""
    return of_query((x.best_words - x.tenth(x.by_words)) / x.best_words, x)


def overlap(x: Candidates) -> Tensor:
    """Return the share of the first ten by cosine that are among the first ten by words."""
    both = x.shares_words & (torch.maximum(x.cosine_ranks, x.word_ranks) < FIRST_RANKS)
    return of_query(both.sum(-1, keepdim=True) / FIRST_RANKS, x)


def query_length(x: Candidates) -> Tensor:
    """Return the logarithm of the number of the query's distinct words."""
    words = x.given.query_words
    if words is None:
        return torch.zeros_like(x.cosines)
    return of_query(torch.log1p(words.to(x.cosines))[:, None], x)


# ---------------------------------------------------------------- by the labels of other queries, after a fit


def recalled(x: Candidates) -> Tensor:
    """Return the standard score of the cosine with what was relevant to similar training queries."""
    answers = torch.einsum("nm,nmd->nd", x.recalled.weights, x.memory.answers[x.recalled.rows].to(x.q))
    return standard_scores(x.with_vector(answers), x.present)


def nearest_query(x: Candidates) -> Tensor:
    """Return the cosine of the query with the most similar training query."""
    return of_query(x.recalled.nearest[:, None], x)


def hubness(x: Candidates) -> Tensor:
    """Return the standard score of how close a document is to training queries that it isn't relevant to."""
    return standard_scores(x.statics[..., 0], x.present)


# ---------------------------------------------------------------- by a labelled document of the query


def has_labelled(x: Candidates) -> Tensor:
    """Return whether a document labelled relevant is known."""
    return torch.full_like(x.cosines, float(x.given.labelled is not None))


def cosine_above_labelled(x: Candidates) -> Tensor:
    """Return how far the cosine is above that of the labelled document."""
    return x.above_labelled(x.cosines) / COSINE_UNIT


def bm25_above_labelled(x: Candidates) -> Tensor:
    """Return how far BM25 is above that of the labelled document, relative to the best candidate."""
    return x.above_labelled(x.words) / x.best_words


def near_labelled(x: Candidates) -> Tensor:
    """Return the cosine with the labelled document."""
    return x.near_labelled


def near_labelled_score(x: Candidates) -> Tensor:
    """Return the standard score of the cosine with the labelled document."""
    return x.near_labelled if x.given.labelled is None else standard_scores(x.near_labelled, x.present)


# ---------------------------------------------------------------- values as they are, for the probability


def raw_cosine(x: Candidates) -> Tensor:
    """Return the cosine of the search."""
    return x.cosines


def raw_bm25(x: Candidates) -> Tensor:
    """Return BM25, relative to the query's words."""
    return x.words


def _by_name(*features: Feature) -> dict[str, Feature]:
    return {feature.__name__: feature for feature in features}


# What the ranking head reads.
RANKING = _by_name(
    cosine,
    cosine_gap,
    cosine_rank,
    cosine_rrf,
    consensus,
    feedback,
    bm25,
    bm25_share,
    bm25_rank,
    bm25_rrf,
    coverage,
    length,
    fused_consensus,
    best_cosine,
    cosine_lead,
    cosine_spread,
    best_bm25,
    bm25_lead,
    overlap,
    query_length,
)
# What it also reads after a fit.
OF_LABELS = _by_name(recalled, nearest_query, hubness)
# What the relevance head reads. Ranks and features of the query would tell it that one document is relevant
# to each query, as in most collections that it is taught by.
RELEVANCE = _by_name(
    raw_cosine,
    cosine,
    raw_bm25,
    bm25,
    coverage,
    consensus,
    feedback,
    fused_consensus,
    has_labelled,
    cosine_above_labelled,
    bm25_above_labelled,
    near_labelled,
    near_labelled_score,
)
FEATURES = {**RANKING, **OF_LABELS, **RELEVANCE}

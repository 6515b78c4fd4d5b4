"""Systems on a frozen encoder: each is fitted on training and development queries, and ranks any others.

A new system is one function: it takes a trial and returns what ranks queries.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ..evaluation import membership, ndcg_per_query
from ..fitting import FitArguments, fit_adapter
from ..fitting.features import fit_features, gather_features
from ..fitting.maps import MapRecipe, Maps, choose_maps
from ..models.features_rrra import FEATURES, OF_WORDS
from .methods import Method, register
from .ranking import RANKED, Rank, ranked_by, searcher
from .task import Queries
from .trial import Trial

System = Callable[[Trial], Rank]

# Feedback documents and their weight; the first weight changes nothing.
FEEDBACK_DOCUMENTS = (1, 2, 3, 5, 10)
FEEDBACK_WEIGHTS = (0.0, 0.1, 0.2, 0.4, 0.7, 1.0)
# Constant of reciprocal rank fusion in Cormack et al. 2009, and weights of BM25 beside the encoder.
FUSION_CONSTANT = 60
FUSION_WEIGHTS = (0.0, 0.25, 0.5, 1.0, 2.0)


def system(name: str, about: str, **options: Any) -> Callable[[System], System]:
    """Register a system under a name.

    Args:
        name: Its name.
        about: What it is, in a line.
        **options: Further fields of `Method`.
    """

    def add(fit: System) -> System:
        register(Method("systems", name, about, ranked_by(fit), **options))
        return fit

    return add


# -------------------------------------------------------------------- encoder, maps and adapters


@system("encoder", "cosine of the frozen encoder's embeddings", seeded=False)
def encoder(trial: Trial) -> Rank:
    """Search with the embeddings as they are."""
    return searcher(trial.task.documents, trial.arguments.fit.depth)


@system("query-map", "residual linear map of the query embeddings")
def query_map(trial: Trial) -> Rank:
    """Search with mapped queries."""
    return _mapped(trial, "query")


@system("two-sided-map", "residual linear maps of query and document embeddings")
def two_sided_map(trial: Trial) -> Rank:
    """Search with mapped queries in mapped documents."""
    return _mapped(trial, "both")


@system("adapter", "the encoder's candidates, reranked by the adapter")
def adapter(trial: Trial) -> Rank:
    """Rerank what the encoder finds."""
    return reranked(trial, trial.arguments.fit)


@system("query-map+adapter", "candidates of the query-side map, reranked by the adapter")
def query_map_adapter(trial: Trial) -> Rank:
    """Rerank what the query-side map finds."""
    return reranked(trial, trial.arguments.fit, "query")


@system("two-sided-map+adapter", "candidates of the two-sided map, reranked by the adapter")
def two_sided_map_adapter(trial: Trial) -> Rank:
    """Rerank what the two-sided map finds."""
    return reranked(trial, trial.arguments.fit, "both")


@system("features", "candidates of the two-sided map, reranked by all features")
def features(trial: Trial) -> Rank:
    """Rerank what the two-sided map finds by features beside the two embeddings."""
    return by_features(trial, FitArguments.preset("features"))


@system("features-no-words", "the same from embeddings alone")
def features_no_words(trial: Trial) -> Rank:
    """Rerank what the two-sided map finds by the features that embeddings hold."""
    return by_features(trial, without_features(*OF_WORDS))


@system("features-as-labelled", "all features, fitted to the labels as they are: without even odds")
def features_as_labelled(trial: Trial) -> Rank:
    """Rerank by a head that may take an unlabelled document for irrelevant as another query asked for it."""
    return by_features(trial, FitArguments.preset("features", even_odds=False))


@system("query-map+features", "candidates of the query-side map, reranked by all features")
def query_map_features(trial: Trial) -> Rank:
    """Rerank what the query-side map finds: the documents stay as they are indexed."""
    return by_features(trial, FitArguments.preset("features", stage1="query"))


def without_features(*names: str) -> FitArguments:
    """Return the settings of the features head without some pieces of features."""
    return FitArguments.preset("features", features=tuple(name for name in FEATURES if name not in names))


def by_features(trial: Trial, arguments: FitArguments) -> Rank:
    """Return the search of maps, reranked by an adapter that reads features.

    Args:
        trial: The trial.
        arguments: Settings of the fit; `tau` and `depth` are the trial's, and `seed` is its own.
    """
    task, fit = trial.task, trial.arguments.fit
    parts = trial.training.labelled, task.documents, trial.development.labelled
    arguments = replace(arguments, seed=trial.seed, tau=fit.tau, depth=fit.depth)
    everything = replace(arguments, features=FEATURES)
    gathered = trial.once(
        ("features", arguments.stage1),
        lambda: gather_features(*parts, everything, task.document_words, stage1_of(trial, arguments.stage1)),
    )
    fitted = fit_features(*parts, arguments, task.document_words, gathered)
    documents = fitted.map_documents(task.documents)
    return searcher(documents, fit.depth, fitted.map_queries, fitted, task.document_words)


@system("paper", "the adapter in the published form, on the encoder's candidates")
def paper(trial: Trial) -> Rank:
    """Rerank by the published form: four classes, segment constraint, product score."""
    published = FitArguments.preset("paper")
    changes = {name: getattr(published, name) for name in ("objective", "scoring", "segment_weight")}
    return reranked(trial, replace(trial.arguments.fit, **changes))


def stage1_of(trial: Trial, stage1: str) -> tuple[Maps, MapRecipe]:
    """Return the maps of a trial and how they were trained; fitted once."""
    arguments = replace(trial.arguments.fit, stage1=stage1, seed=trial.seed)
    return trial.once(
        ("maps", stage1),
        lambda: choose_maps(
            trial.training.labelled, trial.task.documents, trial.development.labelled, arguments
        ),
    )


def _mapped(trial: Trial, stage1: str) -> Rank:
    maps, _ = stage1_of(trial, stage1)
    documents = maps.map_documents(trial.task.documents)
    return searcher(documents, trial.arguments.fit.depth, maps.map_queries)


def reranked(trial: Trial, arguments: FitArguments, stage1: str = "none") -> Rank:
    """Return the search of an encoder or its maps, reranked by an adapter that is fitted on them.

    Args:
        trial: The trial.
        arguments: Settings of the fit; their `stage1` and `seed` are not used.
        stage1: Maps before the adapter.
    """
    documents, map_queries = trial.task.documents, _identity
    if stage1 != "none":
        maps, _ = stage1_of(trial, stage1)
        documents, map_queries = maps.map_documents(documents), maps.map_queries
    training, development = (
        queries.labelled._replace(embeddings=map_queries(queries.embeddings))
        for queries in (trial.training, trial.development)
    )
    fitted = fit_adapter(
        training.embeddings,
        documents,
        training.positives,
        development=development,
        arguments=replace(arguments, stage1="none", seed=trial.seed),
    )
    return searcher(documents, arguments.depth, map_queries, fitted)


def _identity(embeddings: np.ndarray) -> np.ndarray:
    return embeddings


# -------------------------------------------------------------------- cheap peers


@system("prf", "pseudo-relevance feedback: the query moved to the mean of its first documents")
def pseudo_relevance_feedback(trial: Trial) -> Rank:
    """Search, add the mean of the first `m` documents to the query, weighted, and search again.

    Source:
        Rocchio 1971, on embeddings as in Li et al. 2022, "Pseudo Relevance Feedback with Deep Language
        Models and Dense Retrievers".
    """
    documents = trial.task.documents
    search = searcher(documents, trial.arguments.fit.depth)

    def rank_with(count: int, weight: float) -> Rank:
        def rank(queries: Queries) -> np.ndarray:
            first = search(queries)
            if not weight:
                return first
            feedback = np.asarray(documents[first[:, :count]]).mean(axis=1)
            return search(queries._replace(embeddings=queries.embeddings + weight * feedback))

        return rank

    settings = [(count, weight) for count in FEEDBACK_DOCUMENTS for weight in FEEDBACK_WEIGHTS]
    return max((rank_with(*setting) for setting in settings), key=lambda rank: _quality(rank, trial))


@system("bm25", "BM25 on the texts, by bm25s", settings=("fit",), seeded=False)
def bm25(trial: Trial) -> Rank:
    """Rank by BM25, with the library's defaults (Lucene's form, English stop words, no stemming)."""
    try:
        import bm25s
    except ImportError as error:
        raise ImportError("bm25 and rrf need bm25s: pip install 'rrra-hf[compare]'.") from error

    def make() -> Any:
        index = bm25s.BM25()
        tokens = bm25s.tokenize(trial.task.collection.document_texts, show_progress=False)
        index.index(tokens, show_progress=False)
        return index

    index = trial.once("bm25", make)
    k = min(max(trial.arguments.fit.depth, RANKED), len(trial.task.collection.document_ids))

    def rank(queries: Queries) -> np.ndarray:
        tokens = bm25s.tokenize(queries.texts, return_ids=False, show_progress=False)
        return index.retrieve(tokens, k=k, show_progress=False).documents

    return rank


@system("rrf", "reciprocal rank fusion of the encoder and BM25")
def reciprocal_rank_fusion(trial: Trial) -> Rank:
    """Fuse the rankings of encoder and BM25; the weight of BM25 is chosen on development queries.

    Source:
        Cormack et al. 2009, "Reciprocal Rank Fusion outperforms Condorcet and individual rank learning
        methods".
    """
    by_encoder, by_words = encoder(trial), bm25(trial)

    def rank_with(weight: float) -> Rank:
        return lambda queries: _fused(by_encoder(queries), by_words(queries), weight)

    return max(map(rank_with, FUSION_WEIGHTS), key=lambda rank: _quality(rank, trial))


def _fused(first: np.ndarray, second: np.ndarray, weight: float) -> np.ndarray:
    """Return the rows of two rankings by the sum of their reciprocal ranks, `(n, k)` as `first` has."""
    gains = 1.0 / (FUSION_CONSTANT + 1 + np.arange(max(first.shape[1], second.shape[1])))
    fused = np.empty_like(first)
    for i, rankings in enumerate(zip(first.tolist(), second.tolist(), strict=True)):
        scores: dict[int, float] = {}
        for ranking, factor in zip(rankings, (1.0, weight), strict=True):
            for row, gain in zip(ranking, gains, strict=False):
                scores[row] = scores.get(row, 0.0) + factor * gain
        fused[i] = sorted(scores, key=lambda row: -scores[row])[: first.shape[1]]
    return fused


@system(
    "cross-encoder",
    "the encoder's candidates, reranked by a cross-encoder",
    settings=("fit", "cross_encoder"),
    seeded=False,
    needs="cross_encoder",
)
def cross_encoder(trial: Trial) -> Rank:
    """Rerank what the encoder finds by a model that reads both texts."""
    search, depth = encoder(trial), trial.arguments.fit.depth

    def rank(queries: Queries) -> np.ndarray:
        rows = search(queries).copy()
        documents = trial.task.collection.document_texts
        scores = cross_encoder_scores(trial, queries.texts, documents, rows[:, :depth])
        order = np.argsort(-scores, axis=1, kind="stable")
        rows[:, :depth] = np.take_along_axis(rows[:, :depth], order, axis=1)
        return rows

    return rank


def cross_encoder_scores(
    trial: Trial, queries: list[str], documents: list[str], rows: np.ndarray
) -> np.ndarray:
    """Return a cross-encoder's logit of each query and candidate.

    Args:
        trial: The trial; its arguments name the model.
        queries: Texts of the queries, `n`.
        documents: Texts of the corpus.
        rows: Rows of each query's candidates, `(n, k)`; -1 where there is none.

    Returns:
        `(n, k)` float32, 0 where there is no candidate.
    """
    from sentence_transformers import CrossEncoder

    model = trial.once("cross-encoder", lambda: CrossEncoder(trial.arguments.cross_encoder))
    present = rows >= 0
    pairs = [(queries[query], documents[rows[query, place]]) for query, place in np.argwhere(present)]
    scores = np.zeros(rows.shape, dtype=np.float32)
    scores[present] = model.predict(pairs, activation_fn=torch.nn.Identity(), show_progress_bar=False)
    return scores


def _quality(rank: Rank, trial: Trial) -> float:
    """Return the mean nDCG@10 of the development queries, with binary gains."""
    queries = trial.development
    relevant = membership(rank(queries)[:, :10], queries.positives)
    return float(ndcg_per_query(relevant, queries.labelled.num_relevant).mean())

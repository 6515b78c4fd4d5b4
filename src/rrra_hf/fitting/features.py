"""Fitting an adapter that reads features, and cross-fitting its false-negative probabilities."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from scipy.sparse import csr_array
from scipy.special import expit
from torch import Tensor
from torch.nn import functional as F

from ..candidates import DocumentFeatures, LabelledQueries
from ..candidates.labelled import RetrievedCandidates, gather, hold_out, shuffled_batches
from ..candidates.reading import PAIRS_PER_BLOCK
from ..candidates.words import word_statistics
from ..models.adapter_rrra import RetrieverAdapter
from ..models.configuration_rrra import AdapterConfig
from ..models.features_rrra import OF_WORDS, RANKING_UNITS, RELEVANCE_UNITS, FeatureReader, Reader
from .arguments import FitArguments
from .maps import MapRecipe, Maps, choose_maps, refit_maps
from .tuning import calibrate, choose_lambda

logger = logging.getLogger(__name__)

# Parts that the training queries are dealt into: the features of each is gathered with the maps and the
# memory of the others, as it will be for unseen queries.
FOLDS = 3
# Training queries that are remembered.
MEMORY = 10_000
BATCH_SIZE = 128
LEARNING_RATE = 3e-3
# Many steps overfit the judge, whose labels are noisy by nature; the ranker gains from them.
RANKING_STEPS = 800
RELEVANCE_STEPS = 80
# Slope with which the judge starts to follow the retriever's score.
RELEVANCE_SLOPE = 0.2


@dataclass(frozen=True, eq=False)
class FoldState:
    """What some training queries make of the documents: their maps, their memory, and the features.

    Args:
        adapter: An adapter with the maps and an unfitted head that remembers the queries.
        documents: The documents' embeddings, mapped, `(m, dim)`.
        features: Features of each document.
        remembered: Rows of the documents that the queries are labelled with, ascending.
    """

    adapter: RetrieverAdapter
    documents: np.ndarray
    features: DocumentFeatures
    remembered: np.ndarray

    @property
    def head(self) -> FeatureReader:
        """The adapter's head."""
        assert self.adapter.features is not None
        return self.adapter.features

    def mapped(self, queries: LabelledQueries) -> LabelledQueries:
        """Return queries as they are searched with."""
        return queries._replace(embeddings=self.adapter.map_queries(queries.embeddings))

    def gather(self, queries: LabelledQueries, rows: np.ndarray) -> Tensor:
        """Return the features of candidates, `(n, k, features)`.

        Args:
            queries: The queries, mapped.
            rows: Rows of each query's candidates, `(n, k)`.
        """
        step = max(1, PAIRS_PER_BLOCK // rows.shape[1])
        blocks = [np.arange(i, min(i + step, len(rows))) for i in range(0, len(rows), step)]
        return torch.cat([self._gather_block(queries.select(block), rows[block]) for block in blocks])

    def _gather_block(self, queries: LabelledQueries, rows: np.ndarray) -> Tensor:
        q = F.normalize(torch.from_numpy(np.array(queries.embeddings, dtype=np.float32)), dim=-1)
        c = gather(self.documents, rows)
        known = self.features.of_candidates(self.head, q, queries.words, rows)
        return self.head.features(q, c, torch.einsum("nd,nkd->nk", q, c), known)


class Gathered(NamedTuple):
    """The features that readers are fitted on, and the maps it is for.

    Args:
        maps: The maps fitted on all training queries; None without a stage 1.
        recipe: How they were trained.
        names: Names of the features.
        features: Features of what each training query retrieves with the maps and the memory of other
            folds, `(n, depth, features)`.
        cosines: Its cosines, `(n, depth)`.
        relevant: Whether it is labelled, `(n, depth)`.
        remembered: Whether a query of the other folds is labelled with it, `(n, depth)`.
    """

    maps: Maps | None
    recipe: MapRecipe
    names: list[str]
    features: Tensor
    cosines: Tensor
    relevant: np.ndarray
    remembered: np.ndarray


def gather_features(
    training: LabelledQueries,
    documents: np.ndarray,
    development: LabelledQueries,
    arguments: FitArguments,
    words: csr_array | None,
    stage1: tuple[Maps, MapRecipe] | None = None,
) -> Gathered:
    """Fit the maps, and gather the features of what unseen training queries retrieve.

    Args:
        training: Training queries.
        documents: Embeddings of the documents, `(m, dim)`.
        development: Development queries.
        arguments: Settings.
        words: Counts of the documents' words, `(m, vocabulary)`.
        stage1: What `choose_maps` returned for these arguments, if it was asked before.
    """
    maps, recipe = stage1 or _stage1(training, documents, development, arguments)
    features, cosines, relevant, remembered, names = [], [], [], [], []
    for space, part in _out_of_fold(training, documents, recipe, arguments, words, FOLDS):
        queries = space.mapped(training.select(part))
        found = RetrievedCandidates.retrieve(queries, space.documents, arguments.depth)
        features.append(space.gather(queries, found.rows))
        cosines.append(torch.from_numpy(found.cosines))
        relevant.append(found.relevant)
        remembered.append(np.isin(found.rows, space.remembered))
        names = space.head.names
    labels = np.concatenate(relevant), np.concatenate(remembered)
    return Gathered(maps, recipe, names, torch.cat(features), torch.cat(cosines), *labels)


def fit_features(
    training: LabelledQueries,
    documents: np.ndarray,
    development: LabelledQueries,
    arguments: FitArguments,
    words: csr_array | None,
    gathered: Gathered | None = None,
) -> RetrieverAdapter:
    """Fit maps, memory and an features head; the arguments are those of `fit_adapter`, checked.

    Args:
        training: Training queries.
        documents: Embeddings of the documents, `(m, dim)`.
        development: Development queries.
        arguments: Settings.
        words: Counts of the documents' words, `(m, vocabulary)`.
        gathered: What `gather_features` returned for these arguments, or for more features.
    """
    if gathered is None:
        gathered = gather_features(training, documents, development, arguments, words)
    space = fold_state(training, documents, gathered.maps, arguments, words)
    features = gathered.features[..., [gathered.names.index(name) for name in space.head.names]]
    weights = candidate_weights(gathered.relevant, gathered.remembered, arguments)
    of_candidates = features, gathered.relevant, weights
    space.head.ranking_head = fit_ranking_head(*of_candidates, gathered.cosines, arguments)
    space.head.relevance_head = fit_relevance_head(*of_candidates, space.head.names, arguments)

    adapter = space.adapter.eval()
    retrieved = RetrievedCandidates.retrieve(space.mapped(development), space.documents, arguments.depth)
    remembered = np.isin(retrieved.rows, space.remembered)
    weights = candidate_weights(retrieved.relevant, remembered, arguments)
    calibrate(adapter, retrieved, space.documents, space.features, weights.numpy())
    choose_lambda(adapter, retrieved, space.documents, space.features)
    adapter.config.fit["maps"] = gathered.recipe._asdict()
    return adapter


def cross_fit_features(
    training: LabelledQueries,
    candidates: np.ndarray,
    documents: np.ndarray,
    development: LabelledQueries | None,
    arguments: FitArguments,
    words: csr_array | None,
    folds: int,
) -> np.ndarray:
    """Return the false-negative probability of each candidate, by a judge that never saw its query's label.

    The features of a query is gathered with the maps and the memory of the other folds, among its candidates
    and one of its labelled positives, which is known where false negatives are looked for; the judge is
    then fitted on the other folds' features.

    Args:
        training: The queries.
        candidates: Rows of each query's candidates, `(n, depth)`, -1 where there are none.
        documents: Embeddings of the documents, `(m, dim)`.
        development: Queries to choose the maps' recipe by; None to hold out some of the queries for it.
        arguments: Settings.
        words: Counts of the documents' words.
        folds: Parts to deal the queries into.

    Returns:
        `(n, depth)` float32; NaN where there is no candidate.
    """
    taught = training
    if development is None:
        held_out, kept = hold_out(len(training.positives), arguments.development_fraction, arguments.seed)
        development, taught = training.select(held_out), training.select(kept)
    _, recipe = _stage1(taught, documents, development, arguments)
    rng = np.random.default_rng(arguments.seed)
    positive = np.array([rng.choice(rows) for rows in training.positives])
    # An empty place repeats the first candidate: what is said of it is thrown away again.
    first = np.where(candidates[:, :1] < 0, positive[:, None], candidates[:, :1])
    rows = np.column_stack([np.where(candidates < 0, first, candidates), positive])
    relevant = rows == positive[:, None]
    gathered, remembered, judged = [], [], []
    for space, part in _out_of_fold(training, documents, recipe, arguments, words, folds):
        gathered.append(space.gather(space.mapped(training.select(part)), rows[part]))
        remembered.append(np.isin(rows[part], space.remembered))
        judged.append(part)
    probabilities = np.empty(candidates.shape, dtype=np.float32)
    for fold, part in enumerate(judged):
        others = [other for other in range(len(judged)) if other != fold]
        features = torch.cat([gathered[other] for other in others])
        labels = np.concatenate([relevant[judged[other]] for other in others])
        known = np.concatenate([remembered[other] for other in others])
        weights = candidate_weights(labels, known, arguments)
        judge = fit_relevance_head(features, labels, weights, space.head.names, arguments)
        with torch.no_grad():
            probabilities[part] = expit(judge(gathered[fold])[:, :-1].numpy())
        logger.info("Cross-fitted fold %d of %d", fold + 1, folds)
    return np.where(candidates >= 0, probabilities, np.float32(np.nan))


# -------------------------------------------------------------------- spaces


def _stage1(
    training: LabelledQueries, documents: np.ndarray, development: LabelledQueries, arguments: FitArguments
) -> tuple[Maps | None, MapRecipe]:
    if arguments.stage1 == "none":
        return None, MapRecipe(0, 0, 0.0)
    return choose_maps(training, documents, development, arguments)


def _out_of_fold(
    training: LabelledQueries,
    documents: np.ndarray,
    recipe: MapRecipe,
    arguments: FitArguments,
    words: csr_array | None,
    folds: int,
) -> Iterator[tuple[FoldState, np.ndarray]]:
    """Yield the space that the other folds make, and the rows of the training queries of each fold."""
    count = len(training.positives)
    if count < 2:
        raise ValueError(f"Features needs at least two training queries beside those held out, got {count}.")
    folds = min(folds, count)
    dealt = np.random.default_rng(arguments.seed).permutation(count) % folds
    for fold in range(folds):
        others = training.select(np.flatnonzero(dealt != fold))
        maps = None if arguments.stage1 == "none" else refit_maps(others, documents, arguments, recipe)
        yield fold_state(others, documents, maps, arguments, words), np.flatnonzero(dealt == fold)


def fold_state(
    training: LabelledQueries,
    documents: np.ndarray,
    maps: Maps | None,
    arguments: FitArguments,
    words: csr_array | None,
) -> FoldState:
    """Return what training queries make of the documents.

    Args:
        training: The queries to remember; `MEMORY` of them, if there are more.
        documents: Embeddings of the documents, `(m, dim)`.
        maps: The maps that these queries were used to fit, if any.
        arguments: Settings.
        words: Counts of the documents' words, `(m, vocabulary)`; without them none are read.
    """
    if len(training.positives) > MEMORY:
        rng = np.random.default_rng(arguments.seed)
        training = training.select(np.sort(rng.choice(len(training.positives), MEMORY, replace=False)))
    labelled, columns = np.unique(np.concatenate(training.positives), return_inverse=True)
    lengths = [len(rows) for rows in training.positives]
    pairs = np.column_stack([np.repeat(np.arange(len(lengths)), lengths), columns])
    names = [name for name in arguments.features if name not in OF_WORDS or words is not None]
    reads_words = any(name in OF_WORDS for name in names)
    answers = words[labelled] if words is not None and reads_words else None
    sizes = {
        "names": names,
        "queries": len(lengths),
        "documents": len(labelled),
        "pairs": len(pairs),
        "vocabulary": 0 if answers is None else answers.shape[1],
        "entries": 0 if answers is None else answers.nnz,
    }
    dim = documents.shape[1]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(arguments.seed)
        adapter = RetrieverAdapter(AdapterConfig(embedding_dim=dim, tau=arguments.tau, features=sizes))
    head = adapter.features
    assert head is not None
    if maps is not None:
        maps.install(adapter)
        head.query_inverse.copy_(torch.linalg.inv(maps.query))
        if maps.document is not None:
            head.document_inverse.copy_(torch.linalg.inv(maps.document))
    if words is not None and answers is not None:
        idf, length = word_statistics(words)
        head.idf.copy_(torch.from_numpy(idf))
        head.mean_length.fill_(length)
        for buffer, values in (
            (head.memory_words, answers.indices),
            (head.memory_counts, answers.data),
            (head.memory_ends, answers.indptr),
        ):
            buffer.copy_(torch.from_numpy(values))
    mapped = adapter.map_documents(np.asarray(documents, dtype=np.float32))
    head.remember(
        torch.from_numpy(adapter.map_queries(np.asarray(training.embeddings, dtype=np.float32))),
        torch.from_numpy(mapped[labelled]),
        torch.from_numpy(pairs),
    )
    return FoldState(adapter, mapped, DocumentFeatures.of(head, [mapped], words), labelled)


# -------------------------------------------------------------------- readers


def candidate_weights(relevant: np.ndarray, remembered: np.ndarray, arguments: FitArguments) -> Tensor:
    """Return what each candidate counts in a fit, so that to be remembered is no features against it.

    Where each document has the label of one query, a document that is remembered, from another query, never
    has the label of this one. That is how such collections are made, and says nothing of its relevance; but a
    reader that sees what is remembered would learn it. So with `even_odds`, unlabelled candidates that are
    remembered count less, if they are labelled more seldom than others: as little as makes the odds of both
    the same.

    Args:
        relevant: Whether each candidate is labelled, `(n, k)`.
        remembered: Whether another query is labelled with it, `(n, k)`.
        arguments: `even_odds` is used.

    Returns:
        `(n, k)` float32, in (0, 1].

    Example:
        >>> relevant, remembered = np.array([[True, False, False]]), np.array([[False, False, True]])
        >>> candidate_weights(relevant, remembered, FitArguments())
        tensor([[1.0000, 1.0000, 0.3333]])
    """
    if not arguments.even_odds:
        return torch.ones(relevant.shape)

    def odds(part: np.ndarray) -> float:
        positives = int((relevant & part).sum())
        return (positives + 0.5) / (int(part.sum()) - positives + 0.5)

    weight = min(1.0, odds(remembered) / odds(~remembered))
    return torch.from_numpy(np.where(remembered & ~relevant, weight, 1.0).astype(np.float32))


def fit_ranking_head(
    features: Tensor, relevant: np.ndarray, weights: Tensor, cosines: Tensor, arguments: FitArguments
) -> Reader:
    """Fit what corrects the retriever's score, by the softmax of each positive against the others.

    Args:
        features: `(n, k, features)`.
        relevant: Whether each candidate is labelled, `(n, k)`.
        weights: What each candidate counts, `(n, k)`.
        cosines: `(n, k)`.
        arguments: `tau` and `seed` are used.
    """
    usable = torch.from_numpy(relevant.any(axis=1) & ~relevant.all(axis=1))
    labels = torch.from_numpy(relevant).float()[usable]
    features, scores, logs = features[usable], cosines[usable] / arguments.tau, weights[usable].log()

    def loss(reader: Reader, batch: np.ndarray) -> Tensor:
        z, y = scores[batch] + reader(features[batch]), labels[batch]
        others = (z + logs[batch]).masked_fill(y > 0, -torch.inf).logsumexp(-1, keepdim=True)
        return (((torch.logaddexp(z, others) - z) * y).sum(-1) / y.sum(-1)).mean()

    return _fit(_reader(features, RANKING_UNITS, arguments.seed), len(labels), loss, RANKING_STEPS, arguments)


def fit_relevance_head(
    features: Tensor, relevant: np.ndarray, weights: Tensor, names: list[str], arguments: FitArguments
) -> Reader:
    """Fit what estimates the probability of relevance, by the log loss of each candidate.

    Args:
        features: `(n, k, features)`.
        relevant: Whether each candidate is labelled, `(n, k)`.
        weights: What each candidate counts, `(n, k)`.
        names: Names of the features.
        arguments: `tau` and `seed` are used.
    """
    labels = torch.from_numpy(relevant).float()
    judge = _reader(features, RELEVANCE_UNITS, arguments.seed)
    share = (labels.sum() + 0.5) / (weights.sum() + 1)
    with torch.no_grad():
        judge.linear.bias.fill_(torch.logit(share))
        if "mapped" in names:
            place = names.index("mapped")
            judge.linear.weight[0, place] = RELEVANCE_SLOPE * judge.deviation[place] / arguments.tau

    def loss(reader: Reader, batch: np.ndarray) -> Tensor:
        losses = F.binary_cross_entropy_with_logits(
            reader(features[batch]), labels[batch], weights[batch], reduction="sum"
        )
        return losses / len(batch)

    return _fit(judge, len(labels), loss, RELEVANCE_STEPS, arguments)


def _reader(features: Tensor, units: int, seed: int) -> Reader:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        reader = Reader(features.shape[-1], units)
    if len(features):
        reader.standardize(features)
    return reader


def _fit(
    reader: Reader,
    count: int,
    loss: Callable[[Reader, np.ndarray], Tensor],
    steps: int,
    arguments: FitArguments,
) -> Reader:
    if not count:
        logger.warning("No training query has both a labelled and an unlabelled candidate to learn from.")
        return reader
    optimizer = torch.optim.AdamW(reader.parameters(), lr=LEARNING_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.02, steps)
    batches = shuffled_batches(count, BATCH_SIZE, np.random.default_rng(arguments.seed))
    for _ in range(steps):
        value = loss(reader, next(batches))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        schedule.step()
    return reader

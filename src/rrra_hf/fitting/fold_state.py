"""What some of the training queries teach: their maps, their memory, and the features of the documents."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..candidates import DocumentFeatures, LabelledQueries
from ..candidates.labelled import at_most, pair_rows
from ..candidates.reading import candidate_features
from ..candidates.retrieved import RetrievedCandidates
from ..indexes import WordIndex
from ..models.adapter_rrra import RetrieverAdapter
from ..models.configuration_rrra import AdapterConfig
from ..models.features_rrra import OF_LABELS
from ..models.reader_rrra import FeatureReader
from .arguments import FitArguments
from .maps import Maps

# Maximum number of training queries to remember, and of labels of each.
MEMORY = 10_000
LABELS = 100


@dataclass(frozen=True, eq=False)
class FoldState:
    """An adapter with the maps and the memory of some training queries, and what it makes of the documents.

    Args:
        adapter: An adapter whose heads aren't fitted.
        documents: The documents' embeddings, mapped, `(m, dim)`.
        features: Features of the documents.
        remembered: Rows of the documents that the queries are labelled with, ascending.
    """

    adapter: RetrieverAdapter
    documents: np.ndarray
    features: DocumentFeatures
    remembered: np.ndarray

    @property
    def reader(self) -> FeatureReader:
        """The adapter's reader."""
        assert isinstance(self.adapter.reader, FeatureReader)
        return self.adapter.reader

    def mapped(self, queries: LabelledQueries) -> LabelledQueries:
        """Return queries as they are searched with."""
        return queries._replace(embeddings=self.adapter.map_queries(queries.embeddings))

    def retrieve(self, queries: LabelledQueries, depth: int) -> RetrievedCandidates:
        """Return the candidates of mapped queries."""
        return RetrievedCandidates.retrieve(queries, self.documents, depth, self.features.words)

    def candidate_features(
        self, queries: LabelledQueries, rows: np.ndarray, labelled: np.ndarray | None = None
    ) -> Tensor:
        """Return the features of candidates, `(n, k, features)`.

        Args:
            queries: The queries, mapped.
            rows: Rows of each query's candidates, `(n, k)`.
            labelled: Place of a document labelled relevant among each query's candidates, `(n,)`.
        """
        take = self.documents.__getitem__
        return candidate_features(
            self.reader, queries.embeddings, rows, take, self.features, queries.words, labelled
        )


def fold_state(
    training: LabelledQueries,
    documents: np.ndarray,
    maps: Maps | None,
    arguments: FitArguments,
    words: WordIndex | None,
) -> FoldState:
    """Return what training queries teach.

    Args:
        training: The queries to remember; a random `MEMORY` of them if there are more, and a random
            `LABELS` of the labels of each.
        documents: Embeddings of the documents, `(m, dim)`.
        maps: The maps that were fitted on these queries, if any.
        arguments: `features`, `tau` and `seed` are used. Without features of labels, nothing is remembered.
        words: The documents' words; None to read no words.
    """
    remembers = any(name in OF_LABELS for name in arguments.features)
    if not remembers:
        training = training.select(np.arange(0))
    rng = np.random.default_rng(arguments.seed)
    if len(training.positives) > MEMORY:
        training = training.select(np.sort(rng.choice(len(training.positives), MEMORY, replace=False)))
    pairs = pair_rows(at_most(LABELS, training.positives, rng))
    labelled, columns = np.unique(pairs[:, 1], return_inverse=True)
    sizes = {"queries": len(training.positives), "documents": len(labelled), "pairs": len(pairs)}
    adapter = _unfitted(documents.shape[1], sizes, arguments)
    if maps is not None:
        maps.install(adapter)
    mapped = adapter.map_documents(np.asarray(documents, dtype=np.float32))
    assert isinstance(adapter.reader, FeatureReader)
    if remembers:
        adapter.reader.memory.remember(
            torch.from_numpy(adapter.map_queries(np.asarray(training.embeddings, dtype=np.float32))),
            torch.from_numpy(mapped[labelled]),
            torch.from_numpy(np.column_stack([pairs[:, 0], columns])),
        )
    remembered = np.unique(pair_rows(training.positives)[:, 1])
    return FoldState(adapter, mapped, DocumentFeatures.of(adapter.reader, [mapped], words), remembered)


def _unfitted(dim: int, sizes: dict[str, int], arguments: FitArguments) -> RetrieverAdapter:
    reader = {"kind": "features", "ranking": arguments.features, **sizes}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(arguments.seed)
        return RetrieverAdapter(AdapterConfig(embedding_dim=dim, tau=arguments.tau, reader=reader))

"""What some of the training queries teach: their maps, their memory, and the features of the documents."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from ..candidates import DocumentFeatures, LabelledQueries
from ..candidates.reading import candidate_features
from ..candidates.words import word_statistics
from ..models.adapter_rrra import RetrieverAdapter
from ..models.configuration_rrra import AdapterConfig
from ..models.features_rrra import OF_WORDS
from ..models.memory_rrra import Memory
from ..models.reader_rrra import FeatureReader
from .arguments import FitArguments
from .maps import MapRecipe, Maps, refit_maps

# Maximum number of training queries to remember.
MEMORY = 10_000


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

    def candidate_features(self, queries: LabelledQueries, rows: np.ndarray) -> Tensor:
        """Return the features of candidates, `(n, k, features)`.

        Args:
            queries: The queries, mapped.
            rows: Rows of each query's candidates, `(n, k)`.
        """
        take = self.documents.__getitem__
        return candidate_features(self.reader, queries.embeddings, rows, take, self.features, queries.words)


def fold_state(
    training: LabelledQueries,
    documents: np.ndarray,
    maps: Maps | None,
    arguments: FitArguments,
    words: csr_array | None,
) -> FoldState:
    """Return what training queries teach.

    Args:
        training: The queries to remember; a random `MEMORY` of them if there are more.
        documents: Embeddings of the documents, `(m, dim)`.
        maps: The maps that were fitted on these queries, if any.
        arguments: Settings.
        words: Counts of the documents' words, `(m, vocabulary)`; None to read no words.
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
    adapter = _unfitted(documents.shape[1], sizes, arguments)
    assert isinstance(adapter.reader, FeatureReader)
    memory = adapter.reader.memory
    if maps is not None:
        maps.install(adapter)
        memory.query_inverse.copy_(torch.linalg.inv(maps.query))
        if maps.document is not None:
            memory.document_inverse.copy_(torch.linalg.inv(maps.document))
    if words is not None and answers is not None:
        _remember_words(memory, words, answers)
    mapped = adapter.map_documents(np.asarray(documents, dtype=np.float32))
    memory.remember(
        torch.from_numpy(adapter.map_queries(np.asarray(training.embeddings, dtype=np.float32))),
        torch.from_numpy(mapped[labelled]),
        torch.from_numpy(pairs),
    )
    return FoldState(adapter, mapped, DocumentFeatures.of(adapter.reader, [mapped], words), labelled)


def out_of_fold(
    training: LabelledQueries,
    documents: np.ndarray,
    recipe: MapRecipe,
    arguments: FitArguments,
    words: csr_array | None,
    folds: int,
) -> Iterator[tuple[FoldState, np.ndarray]]:
    """Yield, for each fold, what the other folds teach, and the rows of the fold's own queries.

    Raises:
        ValueError: If there are fewer than two training queries.
    """
    count = len(training.positives)
    if count < 2:
        raise ValueError(f"Fitting needs at least two training queries that aren't held out, got {count}.")
    folds = min(folds, count)
    dealt = np.random.default_rng(arguments.seed).permutation(count) % folds
    for fold in range(folds):
        others = training.select(np.flatnonzero(dealt != fold))
        maps = refit_maps(others, documents, arguments, recipe)
        yield fold_state(others, documents, maps, arguments, words), np.flatnonzero(dealt == fold)


def _unfitted(dim: int, sizes: dict[str, object], arguments: FitArguments) -> RetrieverAdapter:
    reader = {"kind": "features", **sizes}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(arguments.seed)
        return RetrieverAdapter(AdapterConfig(embedding_dim=dim, tau=arguments.tau, reader=reader))


def _remember_words(memory: Memory, words: csr_array, answers: csr_array) -> None:
    """Store the statistics of the corpus's words, and the words of the labelled documents."""
    idf, length = word_statistics(words)
    memory.idf.copy_(torch.from_numpy(idf))
    memory.mean_length.fill_(length)
    for buffer, values in (
        (memory.words, answers.indices),
        (memory.counts, answers.data),
        (memory.ends, answers.indptr),
    ):
        buffer.copy_(torch.from_numpy(values))

"""Cost of reranking 150 candidates of a query: adapters, the paper's unfactored network, a cross-encoder.

The adapters rerank by the function that the retriever uses, from the rows that a hybrid search found, one
query at a time.

Run: OMP_NUM_THREADS=1 python benchmarks/rerank.py --out results/rerank.json
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import BertConfig, BertForSequenceClassification

from common import report
from rrra_hf import AdapterConfig, FitArguments, RetrieverAdapter
from rrra_hf.candidates import DEPTH, DocumentFeatures, LabelledQueries
from rrra_hf.fitting.fold_state import MEMORY, fold_state
from rrra_hf.indexes import FlatIndex, WordIndex
from rrra_hf.models.features_rrra import OF_LABELS, RANKING
from rrra_hf.retrieval.corpus_index import IndexedDocuments, no_features
from rrra_hf.retrieval.reranking import rerank
from rrra_hf.retrieval.searching import EncodedQueries, hybrid_candidates, search_dense

QUERIES, DIM, HIDDEN, TOKENS = 16, 384, 384, 100
DOCUMENTS, VOCABULARY = 20_000, 30_000
DEFAULT = "trained adapter, with words"


def milliseconds(run: Callable[[int], object], repeats: int, queries: int = QUERIES) -> float:
    """Return the median wall time per query."""
    run(0)
    times = []
    for row in list(range(queries)) * repeats:
        start = time.perf_counter()
        run(row)
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times)


class UnfactoredNetwork(nn.Module):
    """The residual network as the paper writes it: one layer over `[q - c, q * c, q + c]` for every pair."""

    def __init__(self) -> None:
        super().__init__()
        self.input, self.output = nn.Linear(3 * DIM, HIDDEN), nn.Linear(HIDDEN, DIM)

    def forward(self, q: Tensor, c: Tensor) -> Tensor:
        """Return `cos(q, a)`."""
        q = q[:, None].expand_as(c)
        adapted = c + self.output(F.gelu(self.input(torch.cat([q - c, q * c, q + c], dim=-1))))
        return F.cosine_similarity(q, adapted, dim=-1)


class Corpus:
    """Random documents and queries, and the candidates that a hybrid search found.

    Args:
        seed: Random seed.
    """

    def __init__(self, seed: int = 0):
        self.rng = np.random.default_rng(seed)
        self.vectors = unit_vectors(DOCUMENTS, self.rng)
        self.words = WordIndex.of(random_texts(DOCUMENTS, TOKENS, self.rng), "none", show_progress_bar=False)
        self.index = FlatIndex(DIM)
        self.index.add(self.vectors)
        counts = self.words.count(random_texts(QUERIES, 10, self.rng))
        self.queries = [
            EncodedQueries(vector[None], counts[[row]])
            for row, vector in enumerate(unit_vectors(QUERIES, self.rng))
        ]
        documents = self.documents(None)
        self.dense = [search_dense(documents, query, DEPTH) for query in self.queries]
        self.candidates = [
            hybrid_candidates(documents, query, dense, DEPTH)
            for query, dense in zip(self.queries, self.dense, strict=True)
        ]

    def documents(self, adapter: RetrieverAdapter | None) -> IndexedDocuments:
        """Return the documents with what an adapter reads of them."""
        features = no_features(DOCUMENTS, self.words)
        if adapter is not None:
            features = DocumentFeatures.of(adapter.reader, [self.vectors], self.words)
        return IndexedDocuments(self.index, features, self.words)

    def reranking(self, adapter: RetrieverAdapter, with_words: bool = True) -> Callable[[int], object]:
        """Return a function that reranks the candidates of a query."""
        adapter.eval()
        documents = self.documents(adapter)
        queries = [query if with_words else query._replace(words=None) for query in self.queries]
        return lambda row: rerank(adapter, documents, queries[row], self.candidates[row], self.dense[row])

    def remembering(self) -> RetrieverAdapter:
        """Return an adapter that remembers as many training queries as it can."""
        positives = [self.rng.integers(0, DOCUMENTS, 1) for _ in range(MEMORY)]
        training = LabelledQueries(unit_vectors(MEMORY, self.rng), positives)
        arguments = FitArguments(maps="none", features=(*RANKING, *OF_LABELS))
        return fold_state(training, self.vectors, None, arguments, self.words).adapter


def unit_vectors(count: int, rng: np.random.Generator) -> np.ndarray:
    """Return random unit vectors, `(count, DIM)`."""
    vectors = rng.standard_normal((count, DIM), dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def random_texts(count: int, length: int, rng: np.random.Generator) -> list[str]:
    """Return texts whose words have the frequencies of a natural language (Zipf's law)."""
    words = np.minimum(rng.zipf(1.2, (count, length)), VOCABULARY)
    return [" ".join(f"w{word}" for word in row) for row in words.tolist()]


@torch.inference_mode()
def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    corpus = Corpus()
    unfactored = UnfactoredNetwork().eval()
    pairs = [
        (torch.from_numpy(query.embeddings), torch.from_numpy(corpus.index.reconstruct(rows)))
        for query, rows in zip(corpus.queries, corpus.candidates, strict=True)
    ]
    config = BertConfig(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536)
    config.num_labels = 1
    cross_encoder = BertForSequenceClassification(config).eval()
    tokens = torch.randint(5, 30_000, (DEPTH, TOKENS))
    trained = RetrieverAdapter.pretrained(DIM)
    reader = {"kind": "residual", "hidden_size": HIDDEN}
    residual = RetrieverAdapter(AdapterConfig(embedding_dim=DIM, reader=reader, lambda_=1.0))
    repeats = arguments.repeats

    costs = {
        DEFAULT: milliseconds(corpus.reranking(trained), repeats),
        "trained adapter, embeddings alone": milliseconds(corpus.reranking(trained, False), repeats),
        f"fitted adapter, {MEMORY} queries in memory": milliseconds(
            corpus.reranking(corpus.remembering()), repeats
        ),
        "residual": milliseconds(corpus.reranking(residual), repeats),
        "residual of the paper, unfactored": milliseconds(lambda row: unfactored(*pairs[row]), repeats),
        f"cross-encoder, 6 layers, {TOKENS} tokens": milliseconds(
            lambda row: [cross_encoder(block) for block in tokens.split(25)], 1, queries=2
        ),
    }
    rows = [
        {"system": name, "ms per query": cost, "times the default": cost / costs[DEFAULT]}
        for name, cost in costs.items()
    ]
    title = f"Reranking {DEPTH} candidates, one query at a time, d = {DIM}, hidden {HIDDEN}, one thread"
    report(title, rows, arguments.out)


if __name__ == "__main__":
    main()

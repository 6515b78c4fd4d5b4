"""Cost of reranking 100 candidates per query: adapters, the paper's unfactored network, a cross-encoder.

The adapters rerank by the function that the retriever uses, from the rows that a search found.

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
from scipy.sparse import csr_array
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import BertConfig, BertForSequenceClassification

from common import report
from rrra_hf import AdapterConfig, FitArguments, RetrieverAdapter
from rrra_hf.candidates import DocumentFeatures, LabelledQueries
from rrra_hf.fitting.fold_state import MEMORY, fold_state
from rrra_hf.indexes import FlatIndex
from rrra_hf.retrieval.reranking import rerank

QUERIES, CANDIDATES, DIM, HIDDEN, TOKENS = 16, 100, 384, 384, 100
DOCUMENTS, VOCABULARY = 20_000, 30_000
DEFAULT = "features, with words"


def milliseconds(run: Callable[[], object], repeats: int, queries: int) -> float:
    """Return the median wall time per query."""
    run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times) / queries


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
    """Random documents and queries, and what a search found.

    Args:
        seed: Random seed.
    """

    def __init__(self, seed: int = 0):
        self.rng = np.random.default_rng(seed)
        self.documents = unit_vectors(DOCUMENTS, self.rng)
        self.queries = unit_vectors(QUERIES, self.rng)
        self.words = random_counts(DOCUMENTS, TOKENS, self.rng)
        self.query_words = random_counts(QUERIES, 10, self.rng)
        self.index = FlatIndex(DIM)
        self.index.add(self.documents)
        self.cosines, self.rows = self.index.search(self.queries, CANDIDATES)

    def reranking(
        self, adapter: RetrieverAdapter, features: DocumentFeatures, words: csr_array | None = None
    ) -> Callable[[], object]:
        """Return the reranking of what was found."""
        adapter.eval()
        return lambda: rerank(
            adapter, self.index, self.queries, self.rows, self.cosines, CANDIDATES, features, words
        )

    def by_features(self, words: bool) -> Callable[[], object]:
        """Return the reranking by an adapter that remembers as many training queries as it can."""
        training = LabelledQueries(
            unit_vectors(MEMORY, self.rng), [self.rng.integers(0, DOCUMENTS, 1) for _ in range(MEMORY)]
        )
        counts = self.words if words else None
        state = fold_state(training, self.documents, None, FitArguments(maps="none"), counts)
        return self.reranking(state.adapter, state.features, self.query_words if words else None)

    def by_residual(self) -> Callable[[], object]:
        """Return the reranking by a residual adapter."""
        reader = {"kind": "residual", "hidden_size": HIDDEN}
        adapter = RetrieverAdapter(AdapterConfig(embedding_dim=DIM, reader=reader, lambda_=1.0))
        return self.reranking(adapter, DocumentFeatures.of(adapter.reader, [self.documents], None))


def unit_vectors(count: int, rng: np.random.Generator) -> np.ndarray:
    """Return random unit vectors, `(count, DIM)`."""
    vectors = rng.standard_normal((count, DIM), dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def random_counts(texts: int, length: int, rng: np.random.Generator) -> csr_array:
    """Return word counts of texts. The words have the frequencies of a natural language (Zipf's law)."""
    words = np.minimum(rng.zipf(1.2, (texts, length)), VOCABULARY) - 1
    ones = np.ones(words.size, dtype=np.float32)
    counts = csr_array((ones, words.ravel(), np.arange(texts + 1) * length), shape=(texts, VOCABULARY))
    counts.sum_duplicates()
    return counts


@torch.inference_mode()
def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    corpus = Corpus()
    q = torch.from_numpy(corpus.queries)
    c = torch.from_numpy(corpus.index.reconstruct(corpus.rows))
    unfactored = UnfactoredNetwork().eval()
    cross_encoder = BertForSequenceClassification(
        BertConfig(
            hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536, num_labels=1
        )
    ).eval()
    tokens = torch.randint(5, 30_000, (CANDIDATES, TOKENS))
    repeats = arguments.repeats

    costs = {
        DEFAULT: milliseconds(corpus.by_features(words=True), repeats, QUERIES),
        "features, embeddings alone": milliseconds(corpus.by_features(words=False), repeats, QUERIES),
        "residual": milliseconds(corpus.by_residual(), repeats, QUERIES),
        "residual of the paper, unfactored": milliseconds(lambda: unfactored(q, c), repeats, QUERIES),
        "cross-encoder, 6 layers, 100 tokens": milliseconds(
            lambda: [cross_encoder(block) for block in tokens.split(25)], 3, 1
        ),
    }
    rows = [
        {"system": name, "ms per query": cost, "times the default": cost / costs[DEFAULT]}
        for name, cost in costs.items()
    ]
    report(f"Reranking {CANDIDATES} candidates, d = {DIM}, hidden {HIDDEN}, one thread", rows, arguments.out)


if __name__ == "__main__":
    main()

"""Cost of reranking 100 candidates a query, against the paper's unfactored head and a cross-encoder.

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
from rrra_hf.candidates import LabelledQueries
from rrra_hf.fitting.features import MEMORY, fold_state

QUERIES, CANDIDATES, DIM, HIDDEN, TOKENS = 16, 100, 384, 384, 100
DOCUMENTS, VOCABULARY = 20_000, 30_000


def milliseconds(run: Callable[[], object], repeats: int, queries: int) -> float:
    """Return the median wall time a query."""
    run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times) / queries


class UnfactoredHead(nn.Module):
    """The head as the paper writes it: one layer over `[q - c, q * c, q + c]`, for every pair."""

    def __init__(self) -> None:
        super().__init__()
        self.input, self.output = nn.Linear(3 * DIM, HIDDEN), nn.Linear(HIDDEN, DIM)

    def forward(self, q: Tensor, c: Tensor) -> Tensor:
        """Return `cos(q, a)`."""
        q = q[:, None].expand_as(c)
        adapted = c + self.output(F.gelu(self.input(torch.cat([q - c, q * c, q + c], dim=-1))))
        return F.cosine_similarity(q, adapted, dim=-1)


def evidence_reranking(q: Tensor, words: bool) -> Callable[[], object]:
    """Return reranking by a head that remembers as many queries as it may, its statics made before."""
    rng = np.random.default_rng(0)
    documents = F.normalize(torch.randn(DOCUMENTS, DIM), dim=-1).numpy()
    counts = random_counts(DOCUMENTS, TOKENS, rng)
    training = LabelledQueries(
        F.normalize(torch.randn(MEMORY, DIM), dim=-1).numpy(),
        [rng.integers(0, DOCUMENTS, 1) for _ in range(MEMORY)],
    )
    arguments = FitArguments.preset("features", stage1="none")
    space = fold_state(training, documents, None, arguments, counts if words else None)
    asked = random_counts(len(q), 10, rng) if words else None
    rows = rng.integers(0, DOCUMENTS, (len(q), CANDIDATES))

    def run() -> object:
        known = space.features.of_candidates(space.head, q, asked, rows)
        return space.adapter.rerank(q, torch.from_numpy(documents[rows]), features=known)

    return run


def random_counts(texts: int, length: int, rng: np.random.Generator) -> csr_array:
    """Return the counts of texts whose words have the frequencies of a natural language (Zipf's)."""
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
    q = F.normalize(torch.randn(QUERIES, DIM), dim=-1)
    c = F.normalize(torch.randn(QUERIES, CANDIDATES, DIM), dim=-1)
    adapter = RetrieverAdapter(AdapterConfig(embedding_dim=DIM, hidden_size=HIDDEN, lambda_=1.0)).eval()
    unfactored = UnfactoredHead().eval()
    cross_encoder = BertForSequenceClassification(
        BertConfig(
            hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536, num_labels=1
        )
    ).eval()
    tokens = torch.randint(5, 30_000, (CANDIDATES, TOKENS))
    repeats = arguments.repeats

    costs = {
        "adapter": milliseconds(lambda: adapter.rerank(q, c), repeats, QUERIES),
        "features, embeddings alone": milliseconds(evidence_reranking(q, words=False), repeats, QUERIES),
        "features, with words": milliseconds(evidence_reranking(q, words=True), repeats, QUERIES),
        "head of the paper, unfactored": milliseconds(lambda: unfactored(q, c), repeats, QUERIES),
        "cross-encoder, 6 layers, 100 tokens": milliseconds(
            lambda: [cross_encoder(block) for block in tokens.split(25)], 3, 1
        ),
    }
    rows = [
        {"system": name, "ms a query": cost, "times the adapter": cost / costs["adapter"]}
        for name, cost in costs.items()
    ]
    report(f"Reranking {CANDIDATES} candidates, d = {DIM}, hidden {HIDDEN}, one thread", rows, arguments.out)


if __name__ == "__main__":
    main()

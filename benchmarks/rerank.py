"""Cost of reranking 100 candidates a query, against the paper's unfactored head and a cross-encoder.

Run: OMP_NUM_THREADS=1 python benchmarks/rerank.py --out results/rerank.json
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import BertConfig, BertForSequenceClassification

from common import report
from rrra_hf import AdapterConfig, RetrieverAdapter

QUERIES, CANDIDATES, DIM, HIDDEN, TOKENS = 16, 100, 384, 384, 100


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

    costs = {
        "adapter": milliseconds(lambda: adapter.rerank(q, c), arguments.repeats, QUERIES),
        "head of the paper, unfactored": milliseconds(lambda: unfactored(q, c), arguments.repeats, QUERIES),
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

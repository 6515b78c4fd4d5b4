"""What a corpus in Milvus costs: to store it, to search it, to mine in it, and what a process keeps of it.

Processor seconds are those of this process, in which Milvus Lite runs, too.

    python benchmarks/milvus.py --documents 20000
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from datasets import Dataset
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, StaticEmbedding
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from rrra_hf import Retriever, mine
from rrra_hf.data import Collection
from rrra_hf.retrieval.milvus_corpus import MilvusCorpus

WORDS, LENGTH, QUERIES = 50_000, 80, 64
T = TypeVar("T")


def main(documents: int, dim: int) -> None:
    """Print the table."""
    collection = drawn(documents)
    retriever = Retriever(encoder(dim))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "documents.db"
        options: dict[str, Any] = {"kind": "milvus", "uri": path, "index_type": "FLAT", "language": "none"}
        retriever.index(collection.corpus.select(range(100)), folder, **options)  # starts Milvus Lite
        _, stored = timed(lambda: retriever.index(collection, folder, **options))
        size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        retriever.search(collection.query_texts[:1])  # builds the inverted index of words
        _, searched = timed(lambda: retriever.search(collection.query_texts, probabilities=True))
        _, mined = timed(lambda: mine(collection, index=retriever))
        corpus = retriever.corpus
        assert isinstance(corpus, MilvusCorpus)
        corpus.stored.close()
    statistics = corpus.statistics
    kept = statistics.dimensions.nbytes + statistics.frequencies.nbytes
    for name, value in {
        "documents": f"{documents:,} of {LENGTH} words, {dim} dimensions",
        "store, ms a document": f"{1000 * stored / documents:.2f}",
        "on disk, kB a document": f"{size / documents / 1000:.1f}",
        "search, ms a query": f"{1000 * searched / QUERIES:.0f}",
        "mine, ms a query": f"{1000 * mined / QUERIES:.0f}",
        "kept in the process, bytes a distinct word": f"{kept / len(statistics.dimensions):.0f}",
        "kept in the process, bytes a document": "0",
    }.items():
        print(f"{name:45}{value}")


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """Return what a function returns, and the processor seconds that it takes."""
    start = time.process_time()
    return work(), time.process_time() - start


def drawn(documents: int) -> Collection:
    """Return documents of random words, frequent and rare, and queries of five words of a document."""
    draw = np.random.default_rng(0)
    words = np.minimum(draw.zipf(1.2, (documents, LENGTH)), WORDS) - 1
    texts = [" ".join(f"w{word}x" for word in row) for row in words]
    queries = [" ".join(text.split()[:5]) for text in texts[:QUERIES]]
    return Collection(
        "drawn",
        Dataset.from_dict(
            {"id": [f"d{row}" for row in range(documents)], "title": [""] * documents, "text": texts}
        ),
        Dataset.from_dict({"id": [f"q{row}" for row in range(QUERIES)], "text": queries}),
        {"train": {f"q{row}": {f"d{row}": 1} for row in range(QUERIES)}},
    )


def encoder(dim: int) -> SentenceTransformer:
    """Return an encoder that takes hardly any time."""
    tokenizer = Tokenizer(
        WordLevel({"[UNK]": 0, **{f"w{word}x": word + 1 for word in range(WORDS)}}, "[UNK]")
    )
    tokenizer.pre_tokenizer = Whitespace()
    return SentenceTransformer(
        modules=[StaticEmbedding(tokenizer, embedding_dim=dim), Normalize()], device="cpu"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--documents", type=int, default=20_000)
    parser.add_argument("--dim", type=int, default=384)
    given = parser.parse_args()
    main(given.documents, given.dim)

"""Time of changes to an indexed corpus, and of filtered searches.

A change (embeddings, words and documents) is compared with indexing the corpus anew, and with FAISS alone,
which copies the embeddings of the documents that stay and adds the others. A filtered search is compared with
one of the whole corpus, and with a filtered search of FAISS. All are in one run. Texts are random words, and
a static embedding model encodes them, which takes little.

Run: OMP_NUM_THREADS=1 python benchmarks/updates.py --out results/updates.json
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from tokenizers import Tokenizer, models, pre_tokenizers

from common import report
from rrra_hf import Retriever

VOCABULARY, LENGTH, DIM = 20_000, 40, 384
CHANGED = (1, 100, 1000)
# Documents of a hundred that a filter leaves.
SHARES = (1, 10, 50)
QUERIES = 50


def encoder() -> SentenceTransformer:
    """Return a static model with random embeddings."""
    words = {f"w{number}": number for number in range(VOCABULARY)} | {"[UNK]": VOCABULARY}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    weights = np.random.default_rng(0).standard_normal((VOCABULARY + 1, DIM)).astype(np.float32)
    return SentenceTransformer(modules=[StaticEmbedding(tokenizer, weights)], device="cpu")


def documents(first: int, count: int) -> dict[str, Any]:
    """Return documents of random words, frequent ones more often, whose metadata say a number up to 99."""
    rng = np.random.default_rng(first)
    drawn = (VOCABULARY * rng.random((count, LENGTH)) ** 4).astype(int).tolist()
    return {
        f"d{first + row}": {"text": " ".join(f"w{word}" for word in words), "metadata": {"number": row % 100}}
        for row, words in enumerate(drawn)
    }


def seconds(run: Callable[[], object], repeats: int = 3) -> float:
    """Return the median time of a run."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def changes(model: SentenceTransformer, corpus: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a row for each number of documents that are replaced at once."""
    rows = []
    start = time.perf_counter()
    retriever = Retriever(model).index(corpus, kind="flat", language="none", show_progress_bar=False)
    anew = time.perf_counter() - start
    vectors = retriever.corpus_index.index.reconstruct(np.arange(len(corpus)))
    for count in CHANGED:
        names = list(corpus)[:count]
        new = dict(zip(names, documents(10**7, count).values(), strict=True))

        def with_faiss(count: int = count) -> None:
            index = faiss.IndexFlatIP(DIM)
            index.add(np.concatenate([vectors[count:], vectors[:count]]))

        def update(new: dict[str, Any] = new) -> None:
            retriever.update(new, show_progress_bar=False)

        took, alone = seconds(update), seconds(with_faiss)
        rows.append(
            {
                "documents": len(corpus),
                "replaced at once": count,
                "s": took,
                "replaced / s": count / took,
                "anew / update": anew / took,
                "update / FAISS alone": took / alone,
            }
        )
    return rows


def searches(model: SentenceTransformer, corpus: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    """Return a row for each share of documents that a filter leaves."""
    retriever = Retriever(model).index(corpus, kind=kind, language="none", show_progress_bar=False)
    queries = [document["text"][:60] for document in list(corpus.values())[:QUERIES]]
    exact = faiss.IndexFlatIP(DIM)
    exact.add(retriever.corpus_index.index.reconstruct(np.arange(len(corpus))))
    embeddings = model.encode(queries, normalize_embeddings=True)
    start = time.perf_counter()
    _ = retriever.corpus_index.metadata
    first = time.perf_counter() - start

    def search(filter: dict[str, Any] | None) -> float:
        return seconds(
            lambda: [retriever.search(query, filter=filter, show_progress_bar=False) for query in queries]
        )

    def faiss_search(share: int) -> float:
        allowed = np.flatnonzero(np.arange(len(corpus)) % 100 < share)
        parameters: Any = faiss
        among = parameters.SearchParameters(sel=parameters.IDSelectorBatch(allowed))
        return seconds(lambda: [exact.search(row[None], 150, params=among) for row in embeddings])

    whole = search(None)
    rows = []
    for share in SHARES:
        took = search({"number": {"$lt": share}})
        rows.append(
            {
                "documents": len(corpus),
                "index": kind,
                "share left": f"{share}%",
                "ms": 1000 * took / QUERIES,
                "filtered / whole": took / whole,
                "filtered / FAISS filtered": took / faiss_search(share),
                "s once": first,
            }
        )
    return rows


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, nargs="*", default=[10_000, 100_000])
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    model = encoder()
    corpora = [documents(0, count) for count in arguments.documents]
    out = arguments.out
    report("Changes", [row for corpus in corpora for row in changes(model, corpus)], out)
    rows = [row for corpus in corpora for kind in ("flat", "hnsw") for row in searches(model, corpus, kind)]
    report("Filtered searches", rows, out and out.with_stem(f"{out.stem}_filters"))


if __name__ == "__main__":
    main()

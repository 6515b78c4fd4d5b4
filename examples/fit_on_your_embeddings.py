"""Fit an adapter on embeddings that you already have: without texts or an encoder, in minutes on one core.

With sample data:    python examples/fit_on_your_embeddings.py --make-sample sample
With your own:       python examples/fit_on_your_embeddings.py --queries queries.parquet \
                         --documents documents.npy --pairs pairs.jsonl --out my-adapter

Embeddings are Parquet or Arrow files with the columns `id` and `embedding` (a list of floats), or .npy files,
whose ids are row numbers. Pairs are JSON objects, one per line: {"query": id, "document": id}.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rrra_hf import FitArguments, RetrieverAdapter, fit_adapter
from rrra_hf.evaluation import ndcg_per_query
from rrra_hf.indexes import search_flat
from rrra_hf.retrieval import rerank_vectors

DEPTH = 150


def main() -> None:
    """Read embeddings, hold out queries, fit an adapter, measure it, save it, and rerank one query.

    Without labels, `RetrieverAdapter.pretrained()` does instead of a fit.
    """
    options = parse_options()
    query_ids, queries = read_embeddings(options.queries)
    document_ids, documents = read_embeddings(options.documents)
    positives = read_pairs(options.pairs, query_ids, document_ids)
    labelled = np.random.default_rng(options.seed).permutation(list(positives))
    held_out, taught = np.split(labelled, [max(1, round(options.held_out * len(labelled)))])

    adapter = fit_adapter(
        queries[taught],
        documents,
        [positives[row] for row in taught],
        arguments=FitArguments(maps=options.maps, seed=options.seed),
    )
    relevant = [positives[row] for row in held_out]
    before = ndcg(rank(queries[held_out], documents), relevant)
    after = ndcg(rank(queries[held_out], documents, adapter), relevant)
    print(f"nDCG@10 on {len(held_out)} held-out queries: {before:.3f} before, {after:.3f} after")
    adapter.save_pretrained(options.out)

    # Your application does the same. Its index holds mapped documents (if the adapter maps documents) and is
    # searched with mapped queries. The adapter then reranks what the index returns.
    adapter = RetrieverAdapter.from_pretrained(options.out)
    query, documents = adapter.map_queries(queries[held_out[:1]]), adapter.map_documents(documents)
    [candidates] = search(query, documents)
    [scores] = adapter.rerank(query, documents[candidates[None]])
    [probabilities] = adapter.probability(query, documents[candidates[None]])
    print(f"Query {query_ids[held_out[0]]}: the first five documents after reranking")
    for place in np.argsort(-scores, kind="stable")[:5]:
        mark = "labelled" if candidates[place] in relevant[0] else ""
        name = document_ids[candidates[place]]
        print(f"  {name}, was {place + 1}, probability {probabilities[place]:.2f} {mark}".rstrip())


def read_embeddings(path: Path) -> tuple[list[str], np.ndarray]:
    """Return ids and embeddings, `(n, dim)`. An .npy file is mapped into memory."""
    if path.suffix == ".npy":
        embeddings = np.load(path, mmap_mode="r", allow_pickle=False)
        return [str(row) for row in range(len(embeddings))], embeddings
    table = pq.read_table(path) if path.suffix == ".parquet" else pa.ipc.open_file(path).read_all()
    lists = table["embedding"]
    lengths = {len(embedding) if embedding.is_valid else 0 for embedding in lists}
    if len(lengths) != 1:
        raise SystemExit(f"{path}: embeddings must all have the same length, got {sorted(lengths)}.")
    values = lists.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return [str(name) for name in table["id"].to_pylist()], values.reshape(len(table), -1)


def read_pairs(path: Path, query_ids: list[str], document_ids: list[str]) -> dict[int, np.ndarray]:
    """Return the rows of the labelled documents, by the row of the query."""
    query_row = {name: row for row, name in enumerate(query_ids)}
    document_row = {name: row for row, name in enumerate(document_ids)}
    positives: dict[int, list[int]] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            pair = json.loads(line)
            query, document = query_row[str(pair["query"])], document_row[str(pair["document"])]
        except (ValueError, TypeError, KeyError) as error:
            raise SystemExit(
                f"{path}, line {number}: not a pair of known ids ({error}): {line[:80]}"
            ) from error
        positives.setdefault(query, []).append(document)
    return {row: np.unique(documents) for row, documents in positives.items()}


def search(queries: np.ndarray, documents: np.ndarray) -> np.ndarray:
    """Return the rows of each query's nearest documents, best first."""
    return search_flat(queries, documents, min(DEPTH, len(documents)))[1]


def rank(queries: np.ndarray, documents: np.ndarray, adapter: RetrieverAdapter | None = None) -> np.ndarray:
    """Return the rows of each query's nearest documents, reranked if there is an adapter."""
    if adapter is None:
        return search(queries, documents)
    found = search(adapter.map_queries(queries), adapter.map_documents(documents))
    return rerank_vectors(adapter, queries, documents, found)[0]


def ndcg(rankings: np.ndarray, relevant: list[np.ndarray]) -> float:
    """Return the mean nDCG@10."""
    hits = np.array([np.isin(rows, wanted) for rows, wanted in zip(rankings, relevant, strict=True)])
    return float(ndcg_per_query(hits, np.array([len(wanted) for wanted in relevant])).mean())


def make_sample(folder: Path, documents: int = 1000, dim: int = 64, topics: int = 20, seed: int = 0) -> None:
    """Write synthetic embeddings: half of the dimensions are a text's meaning, half are the words of a topic.

    A query means the same as its document, but has the words of a random topic. The cosine can't tell the two
    halves apart, because they are rotated into each other, so it ranks documents of that topic high. An
    adapter can learn the difference.
    """
    rng = np.random.default_rng(seed)
    meaning = rng.normal(size=(documents, dim // 2))
    wording = rng.normal(size=(topics, dim // 2))
    rotation = np.linalg.qr(rng.normal(size=(dim, dim)))[0]

    def embed(meant: np.ndarray, noise: float) -> np.ndarray:
        words = wording[rng.integers(topics, size=len(meant))] + 0.3 * rng.normal(size=meant.shape)
        parts = [meant + noise * rng.normal(size=meant.shape), words]
        vectors = np.concatenate(parts, axis=1) @ rotation
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)

    folder.mkdir(parents=True, exist_ok=True)
    asked = rng.permutation(documents)[: documents // 2]
    for name, vectors in (("documents", embed(meaning, 0.0)), ("queries", embed(meaning[asked], 0.5))):
        lists = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), dim)
        ids = [f"{name[0]}{row}" for row in range(len(vectors))]
        pq.write_table(pa.table({"id": ids, "embedding": lists}), folder / f"{name}.parquet")
    pairs = ({"query": f"q{row}", "document": f"d{document}"} for row, document in enumerate(asked))
    (folder / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))


def parse_options() -> argparse.Namespace:
    """Read the command line, and write the sample data if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--queries", type=Path, help="Query embeddings: .parquet, .arrow or .npy.")
    parser.add_argument("--documents", type=Path, help="Document embeddings: .parquet, .arrow or .npy.")
    parser.add_argument("--pairs", type=Path, help="Labelled pairs: .jsonl.")
    parser.add_argument("--make-sample", type=Path, metavar="DIR", help="Write sample data and use it.")
    parser.add_argument("--out", type=Path, default=Path("my-adapter"), help="Folder for the adapter.")
    parser.add_argument(
        "--maps",
        choices=("none", "query", "both"),
        default="both",
        help="Linear maps; all but `both` keep your index.",
    )
    parser.add_argument("--held-out", type=float, default=0.2, help="Share of the queries to measure on.")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.make_sample:
        make_sample(options.make_sample, seed=options.seed)
        for name, suffix in (("queries", "parquet"), ("documents", "parquet"), ("pairs", "jsonl")):
            setattr(options, name, options.make_sample / f"{name}.{suffix}")
    elif not (options.queries and options.documents and options.pairs):
        parser.error("pass --queries, --documents and --pairs, or --make-sample")
    return options


if __name__ == "__main__":
    main()

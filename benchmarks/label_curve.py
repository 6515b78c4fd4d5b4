"""How ranking quality grows with the number of labelled queries that an adapter is fitted on.

The collections are none of those that taught the adapter that the fit starts from. Beside it: the encoder,
reciprocal rank fusion, and what is learnt from labels alone, the linear maps.

Run: OMP_NUM_THREADS=1 python benchmarks/label_curve.py --data DATA --out results/label_curve.json
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from common import report
from pretrain import Found, adapter_scores, find, quality
from rrra_hf import RetrieverAdapter, fit_adapter
from rrra_hf.candidates import DocumentFeatures, LabelledQueries, read_candidates
from rrra_hf.candidates.hybrid import DEPTH
from rrra_hf.candidates.retrieved import RetrievedCandidates
from taught import Taught, minilm

COLLECTIONS = ("climatefever", "covidfact", "mediqa-qa", "trecqa")
LABELS = (10, 30, 100, 300)


def fitted_quality(found: Found, adapter: RetrieverAdapter) -> tuple[float, float]:
    """Return mean nDCG@10 of the search after the adapter's maps, and of its reranking."""
    taught = found.taught
    queries = taught.parts["test"].select(found.rows)
    queries = queries._replace(embeddings=adapter.map_queries(queries.embeddings))
    documents = adapter.map_documents(taught.documents)
    retrieved = RetrievedCandidates.retrieve(queries, documents, DEPTH, taught.words)
    features = DocumentFeatures.of(adapter.reader, [documents], taught.words)
    take = documents.__getitem__
    reading = read_candidates(adapter, retrieved.queries, retrieved.rows, take, features, retrieved.words)
    scores = adapter.combine(reading.cosines, reading.ranking).numpy()
    mapped = found._replace(retrieved=retrieved)
    by_cosine, by_adapter = quality(mapped, retrieved.cosines), quality(mapped, scores)
    return float(by_cosine.mean()), float(by_adapter.mean())


def some(queries: LabelledQueries, count: int, seed: int) -> LabelledQueries:
    """Return a random part of the queries."""
    rows = np.random.default_rng(seed).choice(len(queries.positives), count, replace=False)
    return queries.select(np.sort(rows))


def curve(taught: Taught, seed: int) -> list[dict[str, Any]]:
    """Return the rows of a collection: one for each number of labelled queries."""
    found = find(taught)
    peers = {name: float(quality(found, scores).mean()) for name, scores in found.scores.items()}
    training = taught.labelled
    rows: list[dict[str, Any]] = []
    zero = float(quality(found, adapter_scores(found, RetrieverAdapter.pretrained())).mean())
    rows.append(_row(taught.name, 0, peers, peers["encoder"], zero, "pretrained", False))
    counts = [count for count in LABELS if count < len(training.positives)]
    for count in [*counts, len(training.positives)]:
        part = some(training, count, seed)
        adapter = fit_adapter(
            part.embeddings,
            taught.documents,
            part.positives,
            query_words=part.words,
            document_words=taught.words,
        )
        maps, reranked = fitted_quality(found, adapter)
        chosen = adapter.config.fit["unseen"]["chosen"]
        rows.append(_row(taught.name, count, peers, maps, reranked, chosen["head"], chosen["maps"]))
        print(rows[-1], flush=True)
    return rows


def _row(
    name: str, count: int, peers: dict[str, float], maps: float, adapter: float, head: str, mapped: bool
) -> dict[str, Any]:
    return {
        "collection": name,
        "labelled queries": count,
        "encoder": peers["encoder"],
        "RRF": peers["RRF"],
        "search after maps": maps,
        "adapter": adapter,
        "chosen": f"{head}, {'with' if mapped else 'without'} maps",
    }


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw nDCG@10 against the number of labelled queries, a panel for each collection."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(row["collection"] for row in rows))
    style = {"svg.fonttype": "none", "svg.hashsalt": "rrra", "font.size": 9, "font.family": "sans-serif"}
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(9, 2.8), layout="constrained")
        for axes, name in zip(figure.subplots(1, len(names)), names, strict=True):
            part = [row for row in rows if row["collection"] == name]
            counts = [row["labelled queries"] for row in part]
            for system, line in (("adapter", "o-"), ("search after maps", "s--"), ("RRF", ":")):
                axes.plot(range(len(counts)), [row[system] for row in part], line, label=system)
            axes.axhline(part[0]["encoder"], color="grey", linewidth=1, label="encoder")
            axes.set_xticks(range(len(counts)), [str(count) for count in counts])
            axes.set_title(name)
            axes.spines[["top", "right"]].set_visible(False)
        figure.axes[0].set_ylabel("nDCG@10")
        figure.axes[0].legend(frameon=False)
        figure.supxlabel("labelled queries")
        FigureCanvasSVG(figure).print_svg(str(path), metadata={"Date": None, "Creator": None})


def main() -> None:
    """Print the curves."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the collections")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--picture", type=Path, help="SVG file to draw")
    parser.add_argument("--collections", nargs="*", default=list(COLLECTIONS))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rows = []
    for name in arguments.collections:
        rows += curve(Taught(arguments.data / name, minilm), arguments.seed)
    report("nDCG@10 by number of labelled queries, all-MiniLM-L6-v2", rows, arguments.out)
    if arguments.picture:
        draw(rows, arguments.picture)


if __name__ == "__main__":
    main()

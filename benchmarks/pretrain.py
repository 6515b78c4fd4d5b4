"""Teach the adapter that comes with the package, and measure it where no label of the collection is used.

A collection that teaches is measured with an adapter that all the others taught. Peers rank the same
candidates: the encoder, BM25, reciprocal rank fusion of both, and the sum of their standard scores.

Run: OMP_NUM_THREADS=1 python benchmarks/pretrain.py --data DATA --save src/rrra_hf/models/pretrained
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.metrics import average_precision_score

from common import markdown, report
from rrra_hf import RetrieverAdapter
from rrra_hf.candidates import (
    DocumentFeatures,
    judge_candidates,
    mine_embeddings,
    read_candidates,
)
from rrra_hf.candidates.hybrid import DEPTH
from rrra_hf.candidates.retrieved import RetrievedCandidates
from rrra_hf.comparison.systems.words import summed
from rrra_hf.evaluation import (
    compare_paired,
    expected_calibration_error,
    membership,
    named_rankings,
    ranking_quality,
    reorder,
)
from rrra_hf.fitting.pretrain import STEPS, Lesson, pretrain
from rrra_hf.indexes import WordIndex
from rrra_hf.models.features_rrra import RRF, ranks
from taught import ENCODERS, INVERTED, OTHERS, TEACHERS, Taught

QUERIES = 1000
# Half of what is taught with words is of the better encoder, and more: users have such encoders.
TEACHING = ["all-MiniLM-L6-v2", "all-MiniLM-L6-v2", "wordllama"]
MEASURE = "nDCG@10"
INTRODUCTION = """# Without a label

Written by `make pretrained`; do not edit.

The adapter that comes trained, on collections whose labels it hasn't seen. A collection that taught it is
measured with an adapter that the other collections taught. All systems rank the same candidates: the best 150
of dense search and word search together, or of dense search under "embeddings alone". `sum` adds the standard
scores of cosine and BM25. `over best` is the difference to the best of encoder, BM25 and RRF. `p` is the
paired randomisation test against the encoder, not corrected for the number of collections. At most 1,000 test
queries of each collection are measured, by nDCG@10.

Detection: one relevant document of each test query is labelled, and the others among the candidates are to be
found. Shown are collections where more than 1 % of the candidates are hidden positives. `expected` is the sum
of the probabilities. In several of these collections, relevant documents have no label at all; those that are
found count as errors.
"""


class Lessons(NamedTuple):
    """What a collection teaches, by encoder.

    Args:
        ranking: For both heads.
        relevance: More, for the relevance head.
    """

    ranking: list[Lesson]
    relevance: list[Lesson]


class Found(NamedTuple):
    """The candidates of test queries, and what the peers give them.

    Args:
        taught: The collection.
        rows: Rows of the queries of the split among those measured, `(n,)`.
        retrieved: The candidates.
        words: The words that they were found by; None if by their embeddings alone.
        scores: Scores of the candidates by peer, `(n, k)`.
    """

    taught: Taught
    rows: np.ndarray
    retrieved: RetrievedCandidates
    words: WordIndex | None
    scores: dict[str, np.ndarray]


def find(taught: Taught, words: bool = True) -> Found:
    """Return the candidates of the test queries, 1,000 at most."""
    queries = taught.parts["test"]
    rows = np.arange(len(queries.positives))
    if len(rows) > QUERIES:
        rows = np.sort(np.random.default_rng(0).choice(rows, QUERIES, replace=False))
    index = taught.words if words else None
    retrieved = RetrievedCandidates.retrieve(queries.select(rows), taught.documents, DEPTH, index)
    adapter = RetrieverAdapter.pretrained()
    features = DocumentFeatures.of(adapter.reader, [taught.documents], taught.words)
    q, counts = torch.from_numpy(retrieved.queries), queries.select(rows).words
    known = features.of_candidates(adapter.reader, q, counts, retrieved.rows)
    assert known.present is not None and known.words is not None
    # What is said of words means nothing where there is no candidate, as in a corpus of fewer documents.
    present, cosines = known.present, torch.from_numpy(retrieved.cosines)
    bm25 = known.words.where(present, 0.0)
    by_cosine, by_words = ranks(cosines, present), ranks(bm25, bm25 > 0)
    fused = 1 / (RRF + 1 + by_cosine) + (bm25 > 0) / (RRF + 1 + by_words)
    scores = {
        "encoder": cosines,
        "BM25": bm25.masked_fill(bm25 == 0, -torch.inf),
        "RRF": fused.masked_fill(~present, -torch.inf),
    }
    arrays = {name: value.numpy() for name, value in scores.items()}
    arrays["sum"] = summed(retrieved.cosines, bm25.numpy(), retrieved.rows)
    return Found(taught, rows, retrieved, index, arrays)


def quality(found: Found, scores: np.ndarray) -> np.ndarray:
    """Return nDCG@10 of each query when its candidates are sorted by scores."""
    part = found.taught.collection.split("test")
    names = [query for query, rows in zip(part.query_ids, part.positive_rows, strict=True) if len(rows)]
    names = [names[row] for row in found.rows]
    rows = np.where(np.isfinite(reorder(scores, scores)), reorder(found.retrieved.rows, scores), -1)
    rankings = named_rankings(names, part.document_ids, rows)
    qrels = {name: part.qrels[name] for name in names}
    return ranking_quality(rankings, qrels, [MEASURE]).per_query[MEASURE]


def adapter_scores(found: Found, adapter: RetrieverAdapter) -> np.ndarray:
    """Return the scores of an adapter."""
    taught, retrieved = found.taught, found.retrieved
    features = DocumentFeatures.of(adapter.reader, [taught.documents], found.words)
    take = taught.documents.__getitem__
    reading = read_candidates(adapter, retrieved.queries, retrieved.rows, take, features, retrieved.words)
    return adapter.combine(reading.cosines, reading.ranking).numpy()


def ranking_row(found: Found, adapter: RetrieverAdapter) -> dict[str, Any]:
    """Return the row of a collection in the table of rankings."""
    peers = found.scores if found.words is not None else {"encoder": found.scores["encoder"]}
    by_system = {name: quality(found, scores) for name, scores in peers.items()}
    ranked = quality(found, adapter_scores(found, adapter))
    against = compare_paired(ranked, by_system["encoder"])
    best = max(values.mean() for name, values in by_system.items() if name != "sum")
    return {
        "collection": found.taught.name,
        "queries": len(ranked),
        **{name: float(values.mean()) for name, values in by_system.items()},
        "pretrained": float(ranked.mean()),
        "over best": float(ranked.mean() - best),
        "over encoder": float(against.difference),
        "p": float(against.p_value),
    }


def detection_row(taught: Taught, adapter: RetrieverAdapter) -> dict[str, Any] | None:
    """Return the row of a collection in the table of hidden positives: one known, the others to be found."""
    queries = taught.parts["test"]
    rng = np.random.default_rng(0)
    queries = queries.select(np.sort(rng.permutation(len(queries.positives))[:QUERIES]))
    known = [rng.choice(rows, 1) for rows in queries.positives]
    pool = mine_embeddings(
        queries.embeddings,
        taught.documents,
        known,
        query_words=queries.words,
        document_words=taught.words,
        show_progress_bar=False,
    )
    given = queries.embeddings, pool.candidates, taught.documents, queries.words, taught.words, known
    judged = pool.candidates >= 0
    hidden = membership(pool.candidates, queries.positives)[judged]
    if hidden.mean() < 0.01:
        return None
    probability = judge_candidates(adapter, *given).probability[judged]
    found = hidden[probability > 0.5]
    return {
        "collection": taught.name,
        "hidden": float(hidden.mean()),
        "AP cosine": float(average_precision_score(hidden, pool.scores[judged])),
        "AP probability": float(average_precision_score(hidden, probability)),
        "ECE": float(expected_calibration_error(probability, hidden)),
        "expected / hidden": float(probability.sum() / hidden.sum()),
        "precision above .5": float(found.mean()) if len(found) else 1.0,
        "found above .5": float(found.sum() / hidden.sum()),
    }


def means(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the row of means."""
    averaged = [name for name in rows[0] if name not in ("collection", "queries", "p")]
    values = {name: float(np.mean([row[name] for row in rows])) for name in averaged}
    return {name: values.get(name, "") for name in rows[0]} | {"collection": "mean"}


def lessons_by_collection(taught: dict[str, dict[str, Taught]], teaching: list[str]) -> dict[str, Lessons]:
    """Return what each teacher teaches.

    Args:
        taught: The collections by encoder and name.
        teaching: Encoders that teach; one given twice counts twice.
    """
    first = taught[teaching[0]]
    lessons = {}
    for name in TEACHERS:
        by_encoder = {encoder: taught[encoder][name].lesson() for encoder in set(teaching)}
        # Once more without words, for those who have embeddings alone.
        ranking = [*(by_encoder[encoder] for encoder in teaching), first[name].lesson(words=False)]
        lessons[name] = Lessons(ranking, [first[name].inverted_lesson()] if name in INVERTED else [])
    return lessons


def adapter_without(left_out: str, lessons: dict[str, Lessons], seed: int, steps: int) -> RetrieverAdapter:
    """Return the adapter that all collections but one taught; all if it is no teacher."""
    taught_by = [value for name, value in lessons.items() if name != left_out]
    ranking = [each for value in taught_by for each in value.ranking]
    relevance = [each for value in taught_by for each in value.relevance]
    return pretrain(ranking, relevance, seed=seed, steps=steps)


def main() -> None:
    """Teach, measure, and write the weights."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the collections")
    parser.add_argument("--save", type=Path, help="folder to write the adapter to")
    parser.add_argument("--out", type=Path, help="JSON files to write, without suffix")
    parser.add_argument("--encoders", nargs="*", default=list(ENCODERS), choices=list(ENCODERS))
    parser.add_argument("--teaching", nargs="*", default=TEACHING, help="one given twice counts twice")
    parser.add_argument("--markdown", type=Path, help="page to write the tables to")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    taught = {
        encoder: {name: Taught(arguments.data / name, ENCODERS[encoder]) for name in (*TEACHERS, *OTHERS)}
        for encoder in dict.fromkeys([*arguments.teaching, *arguments.encoders])
    }
    lessons = lessons_by_collection(taught, arguments.teaching)
    by_left_out = {
        name: adapter_without(name, lessons, arguments.seed, arguments.steps) for name in ("", *lessons)
    }
    if arguments.save:
        by_left_out[""].save_pretrained(arguments.save)

    pages = [INTRODUCTION]
    for encoder in arguments.encoders:
        tables: dict[str, list[dict[str, Any] | None]] = {
            "ranking": [],
            "embeddings alone": [],
            "detection": [],
        }
        for name, collection in taught[encoder].items():
            adapter = by_left_out.get(name, by_left_out[""])
            tables["ranking"].append(ranking_row(find(collection), adapter))
            tables["embeddings alone"].append(ranking_row(find(collection, words=False), adapter))
            tables["detection"].append(detection_row(collection, adapter))
        slug = encoder.replace(" ", "-")
        for kind, found in tables.items():
            rows = [row for row in found if row]
            pages.append(f"## {encoder}: {kind}\n\n{markdown([*rows, means(rows)])}\n")
            out = arguments.out and arguments.out.with_name(
                f"{arguments.out.name}-{kind}-{slug}.json".replace(" ", "-")
            )
            report(f"{kind}, {encoder}, no label of the collection", [*rows, means(rows)], out)
    if arguments.markdown:
        arguments.markdown.write_text("\n".join(pages), encoding="utf-8")


if __name__ == "__main__":
    main()

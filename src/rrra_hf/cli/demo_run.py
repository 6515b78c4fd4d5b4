"""The steps of `rrra demo`: encode, mine, fit, measure, and find missing labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .opening import packaged

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from ..candidates import CandidatePool
    from ..data import Collection
    from ..evaluation import ReliabilityBins
    from ..indexes import WordIndex
    from ..labels import Audit
    from ..models.adapter_rrra import RetrieverAdapter
    from ..retrieval import Hit, Retriever

MAX_LENGTH = 64
# Folder of the collection as it was read, and of embeddings.
CACHE = "cache"
MEASURES = ("nDCG@10", "R@1", "R@100")
ENCODER, BM25, RRF = "encoder", "BM25", "both, rank fusion"
AS_IT_COMES, FITTED, TRAINED = "adapter, without a label", "adapter, fitted to labels", "encoder trained"
# Documents ranked for R@100, and bins of probabilities.
RANKED, BINS = 100, 10


@dataclass
class Demo:
    """What a demo found.

    Args:
        collection: The documentation.
        retriever: Searches it with the fitted adapter.
        systems: Measures on the held-out queries, by system.
        reliability: The fitted adapter's probabilities of the candidates of held-out queries, and how many of
            these are labelled.
        audit: The training labels that are probably missing.
        training: What the training of the encoder brought, in a sentence; empty if it wasn't trained.
    """

    collection: Collection
    retriever: Retriever
    systems: dict[str, dict[str, float]]
    reliability: ReliabilityBins
    audit: Audit
    training: str = ""


def run_demo(
    collection: Collection, encoder: SentenceTransformer, out: Path, seed: int, say: Callable[[str], None]
) -> Demo:
    """Run all steps but the training of the encoder, and save the retriever.

    Args:
        collection: The collection.
        encoder: The encoder.
        out: Folder of the demo.
        seed: Random seed of the fit.
        say: Is told which step begins.
    """
    from ..candidates import mine
    from ..indexes import index_words
    from ..labels import Audit
    from ..retrieval import Retriever

    cache = out / CACHE
    say("Encoding the documents and searching with the adapter that comes trained")
    unfitted = Retriever(encoder).index(collection, cache_dir=cache)
    pool = mine(collection, encoder, cache_dir=cache)
    words = index_words(collection.document_texts, cache)

    say("Fitting an adapter to the labels")
    adapter = fit(collection, encoder, pool, words, cache, seed)
    fitted = Retriever(encoder, adapter=adapter).index(collection, cache_dir=cache)
    fitted.save_pretrained(out / "retriever")

    say("Searching with the held-out questions")
    systems, reliability = measure(collection.split("test"), unfitted, fitted, words)
    return Demo(collection, fitted, systems, reliability, Audit(collection, "train", pool))


def fit(
    collection: Collection,
    encoder: SentenceTransformer,
    pool: CandidatePool,
    words: WordIndex,
    cache: Path,
    seed: int,
) -> RetrieverAdapter:
    """Fit an adapter to the training labels, whose queries were encoded before."""
    from ..candidates import LabelledQueries
    from ..embeddings import embed_collection, encode
    from ..fitting import FitArguments, fit_adapter

    training, part = collection.split("train"), collection.split("dev")
    queries = encode(encoder, part.query_texts, task="query", cache_dir=cache)
    embeddings = embed_collection(training, encoder, cache_dir=cache)
    return fit_adapter(
        embeddings.queries,
        embeddings.documents,
        pool=pool,
        development=LabelledQueries.of(part, queries, words.count(part.query_texts)),
        arguments=FitArguments(seed=seed),
        query_words=words.count(training.query_texts),
        document_words=words,
    )


def measure(
    part: Collection, unfitted: Retriever, fitted: Retriever, words: WordIndex
) -> tuple[dict[str, dict[str, float]], ReliabilityBins]:
    """Return the measures of each system on held-out queries, and the reliability of the probabilities."""
    import numpy as np

    from ..candidates import DEPTH
    from ..embeddings import encode
    from ..evaluation import named_rankings, ranking_quality, reliability_bins

    texts, qrels = part.query_texts, part.qrels
    embeddings = encode(unfitted.encoder, texts, task="query")

    def search(retriever: Retriever, **how: Any) -> list[list[Hit]]:
        return retriever.search_embeddings(embeddings, DEPTH, query_texts=texts, **how)

    by_words = named_rankings(part.query_ids, part.document_ids, words.search(words.count(texts), RANKED)[1])
    with_adapter = search(fitted, probabilities=True)
    found: dict[str, Sequence[Any]] = {
        ENCODER: search(unfitted, rerank=False, mode="dense"),
        BM25: list(by_words.values()),
        RRF: search(unfitted, rerank=False, mode="hybrid"),
        AS_IT_COMES: search(unfitted),
        FITTED: with_adapter,
    }
    systems = {
        name: ranking_quality(dict(zip(part.query_ids, hits, strict=True)), qrels, MEASURES).mean
        for name, hits in found.items()
    }
    pairs = [
        (hit["probability"], hit["corpus_id"] in qrels[query])
        for query, hits in zip(part.query_ids, with_adapter, strict=True)
        for hit in hits
    ]
    probabilities, labelled = np.array(pairs).T
    return systems, reliability_bins(probabilities, labelled, BINS, equal_width=True)


def train_encoder(demo: Demo, model: str, out: Path, steps: int, seed: int) -> None:
    """Train the encoder with LoRA in three stages, and add its figures.

    Args:
        demo: The demo.
        model: Name of the encoder.
        out: Folder of the demo.
        steps: Training steps in stage 1 and in stage 3.
        seed: Random seed.
    """
    from ..models.files_rrra import read_json
    from ..retrieval import Retriever, evaluate
    from ..training import TrainArguments, train

    arguments = TrainArguments(
        stage1_max_steps=steps,
        stage3_max_steps=steps,
        batch_size=12,
        num_negatives=2,
        folds=2,
        max_seq_length=MAX_LENGTH,
        seed=seed,
    )
    trained = Retriever(train(demo.collection, packaged(model), out / "run", arguments))
    trained.index(demo.collection, cache_dir=out / "run/embeddings")
    quality = evaluate(trained, demo.collection.split("test"), MEASURES).quality
    demo.systems[TRAINED] = quality["adapter"].mean
    demo.training = read_json(out / "run/results.json")["comparison"]["sentence"]

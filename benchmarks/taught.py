"""The collections that the trained adapter is taught by and measured on, with vectors of several encoders."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file
from scipy.sparse import csr_array, vstack
from tokenizers import Tokenizer

from rrra_hf import load_collection
from rrra_hf.candidates import LabelledQueries
from rrra_hf.data import Collection
from rrra_hf.fitting.pretrain import Lesson, inverted, lesson
from rrra_hf.indexes import WordIndex

# Those whose licence allows to ship what is learnt from them, and others to measure on.
TEACHERS = (
    "bioasq12b",
    "boolq",
    "cosqa",
    "nl2bash",
    "pubmedqa",
    "scifact",
    "selqa",
    "squad2-dev",
    "worldtree-open",
)
OTHERS = (
    "adi",
    "cacm",
    "climatefever",
    "covidfact",
    "healthver",
    "med",
    "mediqa-qa",
    "nq-utd",
    "time",
    "trecqa",
)
# Many of their documents are relevant to several queries: they also teach turned round.
INVERTED = ("nl2bash", "scifact", "squad2-dev", "worldtree-open")
SPLITS = ("train", "dev", "test")
# File of a collection with its vectors by all-MiniLM-L6-v2, see `minilm`.
VECTORS = "minilm128.npz"


class Taught:
    """A collection with the vectors of one encoder.

    Args:
        folder: Folder of the collection.
        vectors: Returns the normalised vectors of documents and of the labelled queries of each split.
    """

    def __init__(self, folder: Path, vectors: Callable[[Path, Collection], tuple[np.ndarray, np.ndarray]]):
        self.name = folder.name
        self.collection = load_collection(folder)
        self.documents, queries = vectors(folder, self.collection)
        self.words = WordIndex.of(self.collection.document_texts, show_progress_bar=False)
        self.parts: dict[str, LabelledQueries] = {}
        self.texts: dict[str, list[str]] = {}
        start = 0
        for split in (split for split in SPLITS if split in self.collection.splits):
            part = self.collection.split(split)
            kept = [row for row, rows in enumerate(part.positive_rows) if len(rows)]
            self.texts[split] = [part.query_texts[row] for row in kept]
            self.parts[split] = LabelledQueries(
                queries[start : start + len(part.query_ids)][kept],
                [part.positive_rows[row] for row in kept],
                self.words.count(self.texts[split]),
            )
            start += len(part.query_ids)

    @cached_property
    def teaching(self) -> list[str]:
        """The splits that teach: not the test queries, unless there are no others."""
        return [split for split in self.parts if split != "test"] or ["test"]

    @cached_property
    def labelled(self) -> LabelledQueries:
        """The labelled queries of the splits that teach."""
        parts = [self.parts[split] for split in self.teaching]
        return LabelledQueries(
            np.concatenate([part.embeddings for part in parts]),
            [rows for part in parts for rows in part.positives],
            csr_array(vstack([part.words for part in parts])),
        )

    def lesson(self, words: bool = True) -> Lesson:
        """Return what the collection teaches, with or without its words."""
        return lesson(self.labelled, self.documents, self.words if words else None)

    def inverted_lesson(self) -> Lesson:
        """Return what it teaches turned round."""
        texts = [text for split in self.teaching for text in self.texts[split]]
        return lesson(*inverted(self.labelled, self.documents, texts, self.collection.document_texts))


def minilm(folder: Path, collection: Collection, dim: int = 384) -> tuple[np.ndarray, np.ndarray]:
    """Read the vectors by all-MiniLM-L6-v2 at 128 tokens that come with a collection.

    Args:
        folder: Folder of the collection.
        collection: The collection.
        dim: Number of dimensions to keep.
    """
    with np.load(folder / VECTORS) as file:
        documents, queries = (file[f"{name}8"] * file[f"{name}s"][:, None] for name in "DQ")
    # The queries of the qrels files, in their order.
    order = [query for split in SPLITS for query in _queries_of_qrels(folder / "qrels" / f"{split}.tsv")]
    row_of = {query: row for row, query in enumerate(order)}
    rows = [
        row_of[query]
        for split in SPLITS
        if split in collection.splits
        for query in collection.split(split).query_ids
    ]
    return _normalized(documents[:, :dim]), _normalized(queries[rows][:, :dim])


def short_minilm(folder: Path, collection: Collection) -> tuple[np.ndarray, np.ndarray]:
    """Return the same vectors cut to 128 dimensions."""
    return minilm(folder, collection, 128)


def wordllama_files() -> tuple[np.ndarray, Tokenizer]:
    """Return the static model of 256 dimensions in the package wordllama: token embeddings, tokenizer."""
    found = importlib.util.find_spec("wordllama")
    if found is None or found.origin is None:
        raise SystemExit("Install wordllama to measure with its encoder: pip install --no-deps wordllama")
    package = Path(found.origin).parent
    (table,) = load_file(package / "weights" / "l2_supercat_256.safetensors").values()
    tokenizer = Tokenizer.from_file(str(package / "tokenizers" / "l2_supercat_tokenizer_config.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(512)
    return table, tokenizer


def wordllama(folder: Path, collection: Collection) -> tuple[np.ndarray, np.ndarray]:
    """Embed with the static model of wordllama."""
    table, tokenizer = wordllama_files()

    def embed(texts: Sequence[str]) -> np.ndarray:
        ids = [encoding.ids for encoding in tokenizer.encode_batch(list(texts), add_special_tokens=False)]
        return _normalized(np.stack([table[row or [0]].astype(np.float32).mean(axis=0) for row in ids]))

    queries = [
        text for split in SPLITS if split in collection.splits for text in collection.split(split).query_texts
    ]
    return embed(collection.document_texts), embed(queries)


ENCODERS = {"all-MiniLM-L6-v2": minilm, "its first 128 dimensions": short_minilm, "wordllama": wordllama}


def _queries_of_qrels(path: Path) -> list[str]:
    if not path.exists():
        return []
    rows = [line.split("\t") for line in path.read_text().splitlines()[1:]]
    return list(dict.fromkeys(row[0] for row in rows if float(row[2]) > 0))


def _normalized(vectors: np.ndarray) -> np.ndarray:
    values = np.asarray(vectors, dtype=np.float32)
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-9)

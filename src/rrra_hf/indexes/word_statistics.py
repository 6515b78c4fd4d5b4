"""What BM25 has to know of a corpus whose documents are elsewhere."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from ..models.files_rrra import read_meta
from .checksums import check_files
from .stop_lists import LANGUAGES
from .word_counts import inverse_frequency
from .word_files import FORMAT_VERSION, META_NAME, load_array, save_arrays

# Sparse vectors of Milvus have dimensions below 2**32 - 1. The last is that of documents without words.
NO_WORD = 2**32 - 2
ARRAYS = ("dimensions", "frequencies")
# Numbers in the metadata, and their types.
NUMBERS = {"documents": int, "words": int, "logarithms": float, "stored_length": float}


def dimensions_of(vocabulary: np.ndarray) -> np.ndarray:
    """Return the dimensions of words in sparse vectors, `(v,)` uint32.

    They are remainders of the words' hashes, so that a vocabulary need not be agreed on. Of a million words,
    about a hundred pairs share a dimension.

    Args:
        vocabulary: Hashes of words, `(v,)` int64.

    Example:
        >>> dimensions_of(np.array([5, 2**32 + 3, -1])).tolist()
        [5, 5, 3]
    """
    return (vocabulary.view(np.uint64) % np.uint64(NO_WORD)).astype(np.uint32)


@dataclass(frozen=True, eq=False)
class WordStatistics:
    """Frequencies of the words of a corpus.

    Args:
        language: Language of the words, such as "english", or "none".
        dimensions: The words, see `dimensions_of`, ascending, `(v,)` uint32.
        frequencies: Number of documents that have each, at least 1, `(v,)` int64.
        documents: Number of documents.
        words: Sum of their numbers of words.
        logarithms: Sum of the logarithms of 1 + their numbers of words.
        stored_length: Mean number of words per document that the stored weights were computed with. It stays
            as it is when documents come and go.

    Example:
        >>> from rrra_hf.indexes.word_counts import count_words
        >>> first, second = (
        ...     WordStatistics.of(*count_words(texts, "english", False), "english")
        ...     for texts in (["A dog barks.", "Dogs and cats"], ["Dogs"])
        ... )
        >>> first.plus(second).frequencies.tolist(), first.plus(second).minus(first).frequencies.tolist()
        ([3, 1, 1], [1])
    """

    language: str
    dimensions: np.ndarray
    frequencies: np.ndarray
    documents: int
    words: int
    logarithms: float
    stored_length: float

    @classmethod
    def of(cls, counts: csr_array, vocabulary: np.ndarray, language: str) -> WordStatistics:
        """Return the statistics of documents.

        Args:
            counts: Counts of their words, `(m, v)` float32.
            vocabulary: Hashes of the words, `(v,)` int64.
            language: Language of the words.
        """
        frequencies = np.bincount(counts.indices, minlength=len(vocabulary))
        lengths = counts.sum(axis=1, dtype=np.float64)
        return cls._of(dimensions_of(vocabulary), frequencies, lengths, language)

    @classmethod
    def of_vectors(cls, documents: Sequence[Mapping[str, Any]], language: str) -> WordStatistics:
        """Return the statistics of stored documents.

        Args:
            documents: Their sparse vectors, `words`, and numbers of words, `length`.
            language: Language of the words.
        """
        found = chain.from_iterable(document["words"] for document in documents)
        dimensions = np.fromiter(found, dtype=np.uint32)
        dimensions = dimensions[dimensions != NO_WORD]
        lengths = np.array([document["length"] for document in documents], dtype=np.float64)
        return cls._of(dimensions, np.ones(len(dimensions), dtype=np.int64), lengths, language)

    @classmethod
    def _of(
        cls, dimensions: np.ndarray, frequencies: np.ndarray, lengths: np.ndarray, language: str
    ) -> WordStatistics:
        logarithms = float(np.log1p(lengths.astype(np.float64)).sum())
        words, documents = int(lengths.sum()), len(lengths)
        stored_length = max(1.0, words / max(1, documents))
        merged = _merged(dimensions.astype(np.uint32), frequencies)
        return cls(language, *merged, documents, words, logarithms, stored_length)

    def plus(self, others: WordStatistics) -> WordStatistics:
        """Return the statistics of these documents and others."""
        return self._with(others, 1)

    def minus(self, others: WordStatistics) -> WordStatistics:
        """Return the statistics of these documents without some of them."""
        return self._with(others, -1)

    def _with(self, others: WordStatistics, sign: int) -> WordStatistics:
        dimensions, frequencies = _merged(
            np.concatenate([self.dimensions, others.dimensions]),
            np.concatenate([self.frequencies, sign * others.frequencies]),
        )
        return replace(
            self,
            dimensions=dimensions,
            frequencies=frequencies,
            documents=self.documents + sign * others.documents,
            words=self.words + sign * others.words,
            logarithms=self.logarithms + sign * others.logarithms,
        )

    @property
    def mean_length(self) -> float:
        """Mean number of words of a document, at least 1."""
        return max(1.0, self.words / max(1, self.documents))

    @property
    def mean_logarithm(self) -> float:
        """Mean logarithm of 1 + the number of words of a document."""
        return self.logarithms / max(1, self.documents)

    def idf(self, dimensions: np.ndarray) -> np.ndarray:
        """Return the inverse document frequencies of words, 0 for words that no document has, float32."""
        if not len(self.dimensions):
            return np.zeros(len(dimensions), dtype=np.float32)
        place = np.searchsorted(self.dimensions, dimensions).clip(max=len(self.dimensions) - 1)
        idf = inverse_frequency(self.frequencies[place], self.documents)
        return np.where(self.dimensions[place] == dimensions, idf, np.float32(0))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the statistics to a folder, complete or not at all.

        Args:
            path: The folder. Statistics that were saved there before are replaced.

        Raises:
            ValueError: If the folder holds other files.
        """
        arrays = {name: getattr(self, name) for name in ARRAYS}
        numbers = {name: getattr(self, name) for name in NUMBERS}
        save_arrays(path, arrays, {"language": self.language, "size": len(self.dimensions), **numbers})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> WordStatistics:
        """Open a folder written by `save`. Arrays are memory-mapped.

        Args:
            path: The folder.

        Raises:
            ValueError: If a file is missing or damaged; the message names it.
        """
        file = Path(path) / META_NAME
        meta = read_meta(file, {FORMAT_VERSION}, ("language", "size", *NUMBERS))
        language, size, numbers = meta["language"], meta["size"], [meta[name] for name in NUMBERS]
        kinds = (int, *NUMBERS.values())
        typed = all(type(value) is kind for value, kind in zip((size, *numbers), kinds, strict=True))
        if (
            not typed
            or not all(0 <= value < 2**63 for value in (size, *numbers))
            or language not in LANGUAGES
        ):
            raise ValueError(f"{file} is damaged or of another version: {meta}.")
        check_files(file)
        dimensions = load_array(path, "dimensions", np.uint32, size)
        frequencies = load_array(path, "frequencies", np.int64, size)
        if (dimensions[1:] <= dimensions[:-1]).any() or not (
            (frequencies > 0) & (frequencies <= meta["documents"])
        ).all():
            raise ValueError(
                f"{Path(path)} is damaged: words must ascend, and be in 1 to {meta['documents']} documents."
            )
        return cls(language, dimensions, frequencies, *numbers)


def _merged(dimensions: np.ndarray, frequencies: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return each word once, ascending, with the sum of its frequencies; those with none are left out."""
    distinct, place = np.unique(dimensions, return_inverse=True)
    sums = np.zeros(len(distinct), dtype=np.int64)
    np.add.at(sums, place, frequencies)
    return distinct[sums > 0], sums[sums > 0]

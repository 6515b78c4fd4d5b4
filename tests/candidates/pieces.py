"""Word pieces that are given as numbers, for adapters of format version 2."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_array

from feature_task import VOCABULARY
from rrra_hf.candidates import WordPieces
from rrra_hf.candidates.word_pieces import weigh_pieces as weigh

__all__ = ["counts_of", "pieces_of", "weigh"]


def counts_of(texts: Sequence[Sequence[int]], vocabulary: int = VOCABULARY) -> csr_array:
    """Return the counts of texts that are given as lists of pieces."""
    rows = [np.bincount(np.array(text, dtype=int), minlength=vocabulary) for text in texts]
    return csr_array(np.stack(rows).astype(np.float32))


def pieces_of(texts: Sequence[Sequence[int]], vocabulary: int = VOCABULARY) -> WordPieces:
    """Return the pieces of a corpus without the encoder that made them."""
    pieces = WordPieces.__new__(WordPieces)
    pieces.counts = counts_of(texts, vocabulary)
    return pieces

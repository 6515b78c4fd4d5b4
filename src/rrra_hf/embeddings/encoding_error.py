"""How far the embeddings of one encoder are from those of another that should give the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from sentence_transformers import SentenceTransformer

from .encode import encode
from .forward import Task


class EncodingError(NamedTuple):
    """Differences between two encoders' normalised embeddings of the same texts.

    Args:
        greatest: The greatest difference of two values.
        lowest_cosine: The lowest cosine of a text's two embeddings.
        same_nearest: Share of the texts whose nearest other text is the same.
    """

    greatest: float
    lowest_cosine: float
    same_nearest: float


def encoding_error(
    model: SentenceTransformer, reference: SentenceTransformer, texts: Sequence[str], *, task: Task
) -> EncodingError:
    """Compare an encoder on another backend or of lower precision with the original, on a sample of texts.

    Args:
        model: The encoder to check, such as `SentenceTransformer(path, backend="onnx")`.
        reference: The same encoder on torch.
        texts: The sample, two texts or more.
        task: Encode them as `"query"` or `"document"`.

    Raises:
        ValueError: If there are fewer than two texts, or the dimensions differ.
    """
    if len(texts) < 2:
        raise ValueError(f"texts must be two or more, got {len(texts)}.")
    ours, theirs = (encode(encoder, texts, task=task) for encoder in (model, reference))
    if ours.shape != theirs.shape:
        raise ValueError(f"model must have the reference's dimension {theirs.shape[1]}, got {ours.shape[1]}.")
    return EncodingError(
        greatest=float(np.abs(ours - theirs).max()),
        lowest_cosine=float((ours * theirs).sum(axis=1).min()),
        same_nearest=float((_nearest(ours) == _nearest(theirs)).mean()),
    )


def _nearest(embeddings: np.ndarray) -> np.ndarray:
    cosines = embeddings @ embeddings.T
    np.fill_diagonal(cosines, -np.inf)
    return cosines.argmax(axis=1)

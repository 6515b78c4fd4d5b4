"""Scores of a cross-encoder, for reranking, detecting and denoising."""

from __future__ import annotations

import numpy as np
import torch

from .trial import Trial


def cross_encoder_scores(
    trial: Trial, queries: list[str], documents: list[str], rows: np.ndarray
) -> np.ndarray:
    """Return a cross-encoder's logit for each query and candidate.

    Args:
        trial: The trial. Its arguments name the model.
        queries: Texts of the queries, `n`.
        documents: Texts of the corpus.
        rows: Row numbers of the candidates, `(n, k)`; -1 marks an empty place.

    Returns:
        Logits, `(n, k)` float32, 0 at empty places.
    """
    from sentence_transformers import CrossEncoder

    model = trial.once("cross-encoder", lambda: CrossEncoder(trial.arguments.cross_encoder))
    present = rows >= 0
    pairs = [(queries[query], documents[rows[query, place]]) for query, place in np.argwhere(present)]
    scores = np.zeros(rows.shape, dtype=np.float32)
    scores[present] = model.predict(pairs, activation_fn=torch.nn.Identity(), show_progress_bar=False)
    return scores

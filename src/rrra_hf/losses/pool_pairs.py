"""What a candidate pool knows of (query, document) pairs, looked up by their rows."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from ..candidates import CandidatePool
from ..candidates.labelled import pair_rows

# Greater than the key of every pair. It keeps the table of candidates from being empty.
NO_PAIR = np.iinfo(np.int64).max


class PoolPairs(nn.Module):
    """What a pool knows about pairs, as tensors that move with the loss.

    Args:
        pool: Candidates with their false-negative probabilities.
        threshold: As in `CandidatePool.suspects`.

    Raises:
        ValueError: If the pool has no probabilities.

    Example:
        >>> pool = CandidatePool(
        ...     query_ids=["q"], document_ids=["a", "b", "c"], positives=[np.array([0])],
        ...     candidates=np.array([[2]]), scores=np.array([[0.5]]),
        ...     probability=np.array([[0.75]]),
        ... )
        >>> pairs, query, documents = PoolPairs(pool), torch.tensor([[0]]), torch.tensor([0, 1, 2])
        >>> pairs.labelled(query, documents).tolist()
        [[True, False, False]]
        >>> pairs.log_irrelevant(query, documents).exp().tolist()
        [[1.0, 1.0, 0.25]]
    """

    labelled_keys: Tensor
    negative_keys: Tensor
    candidate_keys: Tensor
    logs: Tensor
    teacher: Tensor
    best: Tensor
    suspects: Tensor

    def __init__(self, pool: CandidatePool, threshold: float = 0.5):
        super().__init__()
        probability = pool.required_probability
        self.pool = pool
        self.num_documents = len(pool.document_ids)
        no_negatives = [np.concatenate(both) for both in zip(pool.positives, pool.excluded, strict=True)]
        labelled, negatives = (self._keys(*pair_rows(rows).T) for rows in (no_negatives, pool.negatives))
        query, place = np.nonzero(pool.candidates >= 0)
        candidates = self._keys(query, pool.candidates[query, place])
        order = np.argsort(candidates)
        with np.errstate(divide="ignore"):
            logs = np.log1p(-probability[query, place][order].astype(np.float64))
        ranked = np.full_like(pool.scores, -np.inf) if pool.ranking_scores is None else pool.ranking_scores
        # Not persistent: they belong to the pool and are no part of a model's state.
        for name, values in (
            ("labelled_keys", np.sort(labelled)),
            ("negative_keys", np.append(np.sort(negatives), NO_PAIR)),
            ("candidate_keys", np.append(candidates[order], NO_PAIR)),
            ("logs", np.append(logs, 0.0).astype(np.float32)),
            ("teacher", np.append(ranked[query, place][order], np.float32(-np.inf))),
            ("best", ranked.max(axis=1, initial=0.0)),
            ("suspects", np.append(pool.suspects(threshold)[query, place][order], False)),
        ):
            self.register_buffer(name, torch.from_numpy(values), persistent=False)

    def _keys(self, queries: np.ndarray, documents: np.ndarray) -> np.ndarray:
        return queries.astype(np.int64) * self.num_documents + documents

    def checked_rows(self, labels: Tensor | None) -> Tensor:
        """Return labels as rows of the pool.

        Args:
            labels: Rows of each query and its documents, `(batch, 1 + documents)`.

        Raises:
            ValueError: If they are missing, not integers, or beyond the pool's queries or documents.
        """
        if labels is None or labels.is_floating_point() or labels.ndim != 2:
            given = "none" if labels is None else f"{labels.dtype} of shape {tuple(labels.shape)}"
            raise ValueError(
                "A loss with a pool needs integer labels, the pool's rows of query, positive and negatives, "
                f"(batch, 2 + n), got {given}."
            )
        beyond = (labels < 0) | (labels >= self.num_documents)
        beyond[:, 0] = (labels[:, 0] < 0) | (labels[:, 0] >= len(self.pool))
        if beyond.any():
            raise ValueError(
                f"labels must be rows of the pool's {len(self.pool)} queries and {self.num_documents} "
                f"documents, got {int(beyond.sum())} others, the first is {labels[beyond][0].item()}."
            )
        return labels

    def labelled(self, queries: Tensor, documents: Tensor) -> Tensor:
        """Return which pairs are labelled relevant or left out; the two are broadcast against each other."""
        return self._find(self.labelled_keys, queries * self.num_documents + documents)[1]

    def known_negative(self, queries: Tensor, documents: Tensor) -> Tensor:
        """Return which pairs were judged and aren't relevant; the two are broadcast against each other."""
        return self._find(self.negative_keys, queries * self.num_documents + documents)[1]

    def suspect(self, queries: Tensor, documents: Tensor) -> Tensor:
        """Return which pairs are suspects; the two are broadcast against each other."""
        place, found = self._find(self.candidate_keys, queries * self.num_documents + documents)
        return found & self.suspects[place]

    def log_irrelevant(self, queries: Tensor, documents: Tensor) -> Tensor:
        """Return `log(1 - p)` of each pair; 0 if the document is not a candidate of the query."""
        place, found = self._find(self.candidate_keys, queries * self.num_documents + documents)
        return torch.where(found, self.logs[place], 0.0)

    def teacher_scores(self, queries: Tensor, documents: Tensor) -> Tensor:
        """Return the adapter's score of each pair; -inf if the document is not a candidate of the query."""
        place, found = self._find(self.candidate_keys, queries * self.num_documents + documents)
        return torch.where(found, self.teacher[place], -torch.inf)

    def best_teacher_scores(self, queries: Tensor) -> Tensor:
        """Return the greatest of the adapter's scores of each query's candidates and labelled document."""
        return self.best[queries]

    @staticmethod
    def _find(keys: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
        place = torch.searchsorted(keys, wanted).clamp_max(len(keys) - 1)
        return place, keys[place] == wanted

"""Exact search of a block of queries among all documents, a tile of documents at a time."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


class ExactSearch:
    """The best documents of each query by cosine, without those that are removed from it.

    A tile of cosines (queries x documents) is all that is held beside the embeddings: from each tile,
    only what beats the query's `depth`-th best so far is kept.

    Args:
        queries: `(n_queries, dim)`, memory-mapped or not.
        documents: `(n_documents, dim)`, likewise.
        removed: Rows of the documents that are no candidates of each query, sorted.
        depth: Candidates a query.
        max_memory: Bytes of a tile and what is made of it.
        device: Where to compute.
    """

    def __init__(
        self,
        queries: np.ndarray,
        documents: np.ndarray,
        removed: list[np.ndarray],
        depth: int,
        max_memory: int,
        device: torch.device,
    ):
        self.queries = queries
        self.documents = documents
        self.removed = removed
        self.depth = depth
        self.max_memory = max_memory
        self.device = device

    def search(self, block: slice) -> tuple[np.ndarray, np.ndarray]:
        """Find the candidates of some of the queries.

        Args:
            block: Which queries.

        Returns:
            Rows `(n, depth)` int32, best first, -1 where there are none left, and cosines `(n, depth)`
            float32, -inf there.
        """
        queries = self._normalized(self.queries[block])
        best = Best(len(queries), self.depth, self.device)
        removed = _flat(self.removed[block])
        # A cosine, whether it is high, and a document's own values: its copy and the normalised one.
        tile = max(1, self.max_memory // (5 * len(queries) + 8 * queries.shape[1]))
        # One piece of memory for all tiles: the system takes as long to hand out pages as the product takes.
        memory = torch.empty(len(queries) * min(tile, len(self.documents)), device=self.device)
        for start in range(0, len(self.documents), tile):
            documents = self._normalized(self.documents[start : start + tile])
            cosines = memory[: len(queries) * len(documents)].view(len(queries), len(documents))
            torch.mm(queries, documents.T, out=cosines)
            of_query, row = _between(removed, start, start + tile)
            cosines[of_query, row - start] = -torch.inf
            best.add(cosines, start)
        return best.sorted()

    def _normalized(self, embeddings: np.ndarray) -> Tensor:
        # A copy: memory-mapped arrays can't be written to, and torch warns of that.
        copy = torch.from_numpy(np.array(embeddings, dtype=np.float32)).to(self.device)
        return torch.nn.functional.normalize(copy, dim=1, out=copy)


class Best:
    """The highest scores of each query so far, and their rows.

    Args:
        count: Number of queries.
        depth: Scores kept for each.
        device: Where they are.
    """

    def __init__(self, count: int, depth: int, device: torch.device):
        self.scores = torch.full((count, depth), -torch.inf, device=device)
        self.rows = torch.full((count, depth), -1, dtype=torch.int32, device=device)

    def add(self, scores: Tensor, start: int) -> None:
        """Take the scores of all queries for the rows from `start` on, `(count, n)`."""
        lowest = self.scores[:, -1:]
        if lowest.isneginf().any():
            new_scores, columns = scores.topk(min(self.scores.shape[1], scores.shape[1]), dim=1)
            self._merge(new_scores, (columns + start).int())
            return
        # From here on little beats the lowest: that, side by side in rows that are filled up with -inf.
        at = _flat_nonzero(scores > lowest)
        query, column = at // scores.shape[1], at % scores.shape[1]
        found = torch.bincount(query, minlength=len(scores))
        place = torch.arange(len(query), device=query.device) - (found.cumsum(0) - found)[query]
        shape = (len(scores), int(found.max()))
        new_scores = self.scores.new_full(shape, -torch.inf)
        new_rows = self.rows.new_full(shape, -1)
        new_scores[query, place] = scores[query, column]
        new_rows[query, place] = (column + start).int()
        self._merge(new_scores, new_rows)

    def _merge(self, scores: Tensor, rows: Tensor) -> None:
        all_scores = torch.cat([self.scores, scores], dim=1)
        self.scores, places = all_scores.topk(self.scores.shape[1], dim=1)
        self.rows = torch.cat([self.rows, rows], dim=1).gather(1, places)

    def sorted(self) -> tuple[np.ndarray, np.ndarray]:
        """Return rows and scores, the best first; ties by row, ascending."""
        scores, rows = self.scores.cpu().numpy(), self.rows.cpu().numpy()
        rows[np.isneginf(scores)] = -1
        order = np.lexsort((rows, -scores), axis=1)
        return np.take_along_axis(rows, order, axis=1), np.take_along_axis(scores, order, axis=1)


def _flat_nonzero(mask: Tensor) -> Tensor:
    # On a CPU, numpy takes a fifth of torch's time.
    if mask.device.type == "cpu":
        return torch.from_numpy(np.flatnonzero(mask.numpy()))
    return mask.flatten().nonzero().squeeze(1)


def _flat(row_lists: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return all pairs of a query and a row of its list, sorted by row."""
    rows = np.concatenate([np.empty(0, dtype=np.int32), *row_lists])
    queries = np.repeat(np.arange(len(row_lists)), [len(rows) for rows in row_lists])
    order = np.argsort(rows, kind="stable")
    return queries[order], rows[order]


def _between(pairs: tuple[np.ndarray, np.ndarray], start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the pairs whose row is in [start, stop)."""
    queries, rows = pairs
    part = slice(*np.searchsorted(rows, (start, stop)))
    return queries[part], rows[part]

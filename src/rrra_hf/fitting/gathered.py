"""The features of what unseen queries retrieve, to fit heads on and to choose by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..candidates.labelled import LabelledQueries
from .arguments import FitArguments
from .data import FitData, deal
from .fold_state import FoldState, fold_state
from .maps import ChosenMaps, Maps

# Unseen queries of each fold that heads are fitted on at most. With 7,900 training queries, nDCG@10 of unseen
# queries is 0.757 with at most 1,500 and 0.765 with 4,000.
UNSEEN = 4000


class GatheredFeatures(NamedTuple):
    """What unseen queries retrieve, with the maps and the memory of other queries.

    The training queries come first, fold by fold, then the development queries.

    Args:
        names: Names of the features.
        features: `(n, depth, features)`.
        cosines: `(n, depth)`; -inf where there is no candidate.
        relevant: Whether each candidate is labelled, `(n, depth)`.
        remembered: Whether another query is labelled with it, `(n, depth)`.
        irrelevant: Whether each candidate was judged and isn't relevant, `(n, depth)`.
        num_relevant: Labelled documents of each query in the whole corpus, `(n,)`.
        fold: Fold of each query, `(n,)`; -1 for development queries.
        known: Place of a labelled candidate, `(n,)`; -1 if fewer than two are found.
        given_one: The features if that one is known to be labelled, `(n, depth, features)`; `features` where
            there is none.
    """

    names: list[str]
    features: Tensor
    cosines: Tensor
    relevant: Tensor
    remembered: Tensor
    irrelevant: Tensor
    num_relevant: np.ndarray
    fold: np.ndarray
    known: np.ndarray
    given_one: Tensor

    def select(self, rows: np.ndarray) -> GatheredFeatures:
        """Return what was gathered for some of the queries."""
        columns: list[Any] = [values[rows] for values in self[1:]]
        return GatheredFeatures(self.names, *columns)

    @property
    def present(self) -> Tensor:
        """Where there is a candidate, `(n, depth)`."""
        return self.cosines.isfinite()

    def of(self, names: Sequence[str], given_one: bool = False) -> Tensor:
        """Return the features of the given names, `(n, depth, len(names))`."""
        features = self.given_one if given_one else self.features
        return features[..., [self.names.index(name) for name in names]]


def gather_both(data: FitData, arguments: FitArguments, chosen: ChosenMaps) -> dict[bool, GatheredFeatures]:
    """Return the features without maps and, if there are any, with maps."""
    none: list[Maps | None] = [None] * len(chosen.by_fold)
    gathered = {False: gather_features(data, arguments, none)}
    if chosen.maps is not None:
        gathered[True] = gather_features(data, arguments, chosen.by_fold)
    return gathered


def gather_features(data: FitData, arguments: FitArguments, maps: list[Maps | None]) -> GatheredFeatures:
    """Compute the features of what unseen queries retrieve.

    Args:
        data: What to fit on.
        arguments: Settings.
        maps: For each fold, the maps that were fitted on the other folds.
    """
    everything = np.arange(len(data.training.positives))
    parts, late = [], []
    for row, fold in enumerate(deal(len(everything), arguments.seed)):
        others = data.training.select(np.setdiff1d(everything, fold))
        state = fold_state(others, data.documents, maps[row], arguments, data.document_words)
        if len(fold) > UNSEEN:
            fold = np.random.default_rng(arguments.seed).choice(fold, UNSEEN, replace=False)
        parts.append(read_unseen(state, data.training.select(fold), arguments, row))
        if row == 0 and data.development is not None:
            late.append(read_unseen(state, data.development, arguments, -1))
    columns = zip(*(part[1:] for part in [*parts, *late]), strict=True)
    joined: list[Any] = [
        torch.cat(column) if isinstance(column[0], Tensor) else np.concatenate(column) for column in columns
    ]
    return GatheredFeatures(parts[0].names, *joined)


def read_unseen(
    state: FoldState, queries: LabelledQueries, arguments: FitArguments, fold: int
) -> GatheredFeatures:
    """Return the features of what a fold retrieves."""
    mapped = state.mapped(queries)
    found = state.retrieve(mapped, arguments.depth)
    known = np.where(found.relevant.sum(axis=1) > 1, found.relevant.argmax(axis=1), -1)
    features = state.candidate_features(mapped, found.rows)
    # In most collections few queries have several labels, and reading candidates takes most of a fit's time.
    several, given_one = np.flatnonzero(known >= 0), features.clone()
    given_one[several] = state.candidate_features(mapped.select(several), found.rows[several], known[several])
    return GatheredFeatures(
        state.reader.names,
        features,
        torch.from_numpy(found.cosines),
        torch.from_numpy(found.relevant),
        torch.from_numpy(np.isin(found.rows, state.remembered)),
        torch.from_numpy(found.irrelevant),
        found.num_relevant,
        np.full(len(found.rows), fold),
        known,
        given_one,
    )

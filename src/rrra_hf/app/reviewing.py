"""The state of a review: which pair is shown, what was decided, and what that says about the others."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..candidates import CandidatePool
from ..data import Collection
from ..labels.review.decisions import ADAPTER, PERSON, Decision, Decisions
from ..labels.review.next_pair import worth
from ..labels.review.pair_texts import PairTexts, Suspect
from ..labels.review.recalibration import JUDGE_ERROR, Recalibration, decided, located, log_odds


class Progress(NamedTuple):
    """How far a review is.

    Args:
        relevant: Pairs that were found relevant.
        not_relevant: Pairs that were found not relevant.
        left: Relevant pairs that are probably left.
        recalibration: What the decisions made of the probabilities.
    """

    relevant: int
    not_relevant: int
    left: float
    recalibration: Recalibration


class Review:
    """A person decides about pairs, those first that are worth most.

    Skipped pairs come again when nothing else is left.

    Args:
        collection: The collection.
        pool: Its candidates with the adapter's probabilities.
        decisions: What was decided. What the person decides is added to it, and so is on the disk at once if
            they are saved.

    Raises:
        ValueError: If the pool has no probabilities or other documents than the collection.

    Example:
        >>> from rrra_hf import load_collection
        >>> collection = load_collection([{"query": "what swims", "answer": "A fish."}])
        >>> pool = CandidatePool(
        ...     query_ids=collection.query_ids, document_ids=collection.document_ids,
        ...     positives=[np.array([], int)], candidates=np.array([[0]]), scores=np.array([[0.5]]),
        ...     probability=np.array([[0.75]]),
        ... )
        >>> review = Review(collection, pool, Decisions())
        >>> review.suspect().document
        'A fish.'
        >>> review.decide(review.shown, relevant=True)
        >>> review.suspect() is None, review.progress().relevant
        (True, 1)
    """

    def __init__(self, collection: Collection, pool: CandidatePool, decisions: Decisions):
        self._given = pool.required_probability
        self._log_odds = log_odds(self._given)
        self._texts = PairTexts(collection, pool)
        self._decisions = decisions
        self._labels, self._errors = decided(pool, decisions)
        self._undecided = np.isnan(self._labels) & (pool.candidates >= 0)
        self._skipped = np.zeros(self._labels.shape, dtype=bool)
        # What can be undone: places, with what was decided about them, or None where they were skipped.
        self._done: list[tuple[tuple[int, int], Decision | None]] = [
            ((row, place), made) for row, place, made in located(pool, decisions.made) if made.by == PERSON
        ]
        self._shown: tuple[int, int] | None = None
        self._follow()
        self._show_next()

    @property
    def shown(self) -> str:
        """Name of the pair that is shown, empty if there is none."""
        return "" if self._shown is None else "{}-{}".format(*self._shown)

    def suspect(self) -> Suspect | None:
        """Return the pair that is shown, None if nothing is left to decide."""
        if self._shown is None:
            return None
        return self._texts.suspect(*self._shown, float(self._probability[self._shown]))

    def progress(self) -> Progress:
        """Return how far the review is."""
        left = np.sum(self._probability, where=self._undecided, dtype=np.float64)
        relevant, not_relevant = (int((self._labels == label).sum()) for label in (1, 0))
        return Progress(relevant, not_relevant, float(left), self._recalibration)

    def decide(self, pair: str, relevant: bool) -> None:
        """Decide about the pair that is shown, and show the next.

        Args:
            pair: Name of the pair that the person saw. If another is shown meanwhile, nothing is decided.
            relevant: Whether the document is relevant.

        Raises:
            OSError: If the decision can't be saved. The pair is still shown then.
        """
        if self._shown is None or pair != self.shown:
            return
        place, p = self._shown, float(self._probability[self._shown])
        decision = Decision(*self._texts.ids(*place), relevant, PERSON, p)
        self._decisions.add(decision)
        self._done.append((place, decision))
        self._learn(place, decision)
        self._show_next()

    def skip(self, pair: str) -> None:
        """Show another pair instead.

        Args:
            pair: Name of the pair that the person saw, as for `decide`.
        """
        if self._shown is None or pair != self.shown:
            return
        self._done.append((self._shown, None))
        self._skipped[self._shown] = True
        self._show_next()

    def undo(self) -> None:
        """Take back the last decision, or skip, and show its pair again. Decisions of earlier reviews, too.

        Raises:
            OSError: If this can't be saved. Nothing is taken back then.
        """
        if not self._done:
            return
        place, decision = self._done[-1]
        if decision is None:
            self._skipped[place] = False
        else:
            self._decisions.undo(decision)
            self._learn(place, self._decisions.get(decision.pair))
        self._done.pop()
        self._shown = place

    def _learn(self, place: tuple[int, int], decision: Decision | None) -> None:
        """Take over the decision that counts for a pair."""
        if decision is None or decision.by == ADAPTER:
            self._labels[place], self._errors[place] = np.nan, 0.0
        else:
            self._labels[place] = decision.relevant
            self._errors[place] = 0.0 if decision.by == PERSON else JUDGE_ERROR
        self._undecided[place] = np.isnan(self._labels[place])
        self._follow()

    def _follow(self) -> None:
        """Let the probabilities follow the decisions."""
        known = ~np.isnan(self._labels)
        decisions = self._given[known], self._labels[known], self._errors[known]
        self._recalibration = Recalibration.fit(*decisions)
        self._probability = self._recalibration.of_log_odds(self._log_odds)

    def _show_next(self) -> None:
        """Show the pair that is worth most, skipped ones last."""
        values = np.where(self._undecided, worth(self._probability), 0)
        if not np.any(values, where=~self._skipped):
            self._skipped[:] = False
        values[self._skipped] = 0
        self._shown = None
        if values.any():
            row, place = np.unravel_index(values.argmax(), values.shape)
            self._shown = int(row), int(place)

"""What a step of a residual fit computes: its losses in closed form, and the candidates that it draws."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rrra_hf.candidates.labelled import KnownPositives, LabelledQueries
from rrra_hf.fitting.residual_candidates import CandidateSampler
from rrra_hf.fitting.residual_objectives import four_class_loss, listwise_loss, pointwise_loss, segment_loss

# -------------------------------------------------------------------- objectives


def test_listwise_loss_in_closed_form() -> None:
    logits = torch.tensor([[1.0, 0.0, 5.0]])
    labels = torch.tensor([[1, 0, 0]])
    everything, without_last = torch.tensor([[True] * 3]), torch.tensor([[True, True, False]])
    expected = np.log(np.exp(1) + 1 + np.exp(5)) - 1
    assert listwise_loss(logits, labels, everything).item() == pytest.approx(expected, rel=1e-6)
    assert listwise_loss(logits, labels, without_last).item() == pytest.approx(np.log(1 + np.exp(-1)))


def test_pointwise_loss_weighs_both_classes_alike() -> None:
    logits, labels = torch.tensor([[2.0, -1.0, -1.0, -1.0]]), torch.tensor([[1, 0, 0, 0]])
    expected = (np.log1p(np.exp(-2)) + np.log1p(np.exp(-1))) / 2
    assert pointwise_loss(logits, labels, torch.ones(1, 4, dtype=torch.bool)).item() == pytest.approx(
        expected
    )


def test_four_class_loss_weighs_each_outcome_alike() -> None:
    labels, retrieved = torch.tensor([[1, 0, 0, 0]]), torch.tensor([[True, True, False, False]])
    class_logits = torch.zeros(1, 4, 4)
    class_logits[0, 0, 0] = 3.0
    everything = torch.ones(1, 4, dtype=torch.bool)
    certain = np.log(np.exp(3) + 3) - 3
    expected = (certain + 2 * np.log(4)) / 3
    loss = four_class_loss(class_logits, labels, retrieved, everything)
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_segment_loss_is_the_distance_to_the_nearest_point() -> None:
    q, c = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 0.0])
    for point, expected in (([0.5, 2.0], 4.0), ([3.0, 0.0], 4.0), ([-1.0, 1.0], 2.0), ([0.3, 0.0], 0.0)):
        assert segment_loss(torch.tensor(point), q, c).item() == pytest.approx(expected)
    assert torch.isfinite(segment_loss(c, c, c))


# -------------------------------------------------------------------- candidates


@settings(deadline=None)
@given(st.integers(0, 1000))
def test_drawn_candidates_are_mined_and_other_positives_are_masked(seed: int) -> None:
    rng = np.random.default_rng(seed)
    positives = [rng.choice(20, size=rng.integers(1, 4), replace=False) for _ in range(6)]
    mined = np.stack(
        [np.pad(np.setdiff1d(np.arange(20), p)[:5], (0, 2), constant_values=-1) for p in positives]
    )
    sampler = CandidateSampler(LabelledQueries(np.empty((2, 1)), positives), mined, 20, num_mined=3, rng=rng)
    batch = np.array([0, 3, 5])
    drawn = sampler.draw(batch)
    assert drawn.own.shape == (3, 4)
    assert np.array_equal(drawn.shared, np.unique(drawn.own[:, 0]))
    everything = np.concatenate([drawn.own, np.tile(drawn.shared, (3, 1))], axis=1)
    for i, query in enumerate(batch):
        assert drawn.own[i, 0] in positives[query]
        assert set(drawn.own[i, 1:]) <= set(mined[query])
        relevant = np.isin(everything[i], positives[query])
        assert not drawn.mask[i].numpy()[relevant][1:].any()
        assert drawn.mask[i].numpy()[~relevant].all()
    assert drawn.labels.sum(dim=1).tolist() == [1, 1, 1]
    assert drawn.mask[:, 0].all()


def test_a_query_without_candidates_gets_random_documents() -> None:
    mined = np.full((1, 3), -1)
    queries = LabelledQueries(np.empty((1, 1)), [np.array([0])])
    sampler = CandidateSampler(queries, mined, 50, 8, np.random.default_rng(0))
    own = sampler.draw(np.array([0])).own
    assert own.min() >= 0
    assert len(np.unique(own)) > 2


def test_known_positives_of_every_pair() -> None:
    known = KnownPositives([np.array([2]), np.array([0, 1])], num_documents=3)
    pairs = known.contains(np.arange(2)[:, None], np.arange(3)[None])
    assert pairs.tolist() == [[False, False, True], [True, True, False]]

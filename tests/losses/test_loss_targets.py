"""What the probability does in the loss, against the formulas written out row by row."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sentence_transformers.util import cos_sim
from torch import Tensor

from rrra_hf.candidates import CandidatePool
from rrra_hf.losses import CachedRRRALoss, RRRALoss

BATCH, NEGATIVES, DIM, SCALE = 3, 2, 6, 20.0
# Only looked at by the constructor, where embeddings are given.
MODEL: Any = torch.nn.Sequential(torch.nn.Identity())
TARGETS = ["weights", "drop", "soft", "relabel"]
P = torch.tensor([[0.0, 0.8], [0.6, 0.9], [0.2, 0.4]])
TEACHER = torch.tensor([[1.0, 3.0, -1.0], [2.0, 0.0, 1.0], [0.0, 0.5, 0.5]])


def embeddings(seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(BATCH, DIM, generator=generator).requires_grad_() for _ in range(2 + NEGATIVES)]


def scores(columns: list[Tensor]) -> Tensor:
    queries, *documents = columns
    return cos_sim(queries, torch.cat(documents)) * SCALE


def own(row: int) -> list[int]:
    return [row + column * BATCH for column in range(1 + NEGATIVES)]


def divergence(s: Tensor, shares: list[Tensor]) -> Tensor:
    """The mean over rows of KL(shares || softmax)."""
    rows = []
    for row, unscaled in enumerate(shares):
        t = unscaled / unscaled.sum()
        log_softmax = s[row].log_softmax(0)[own(row)]
        rows.append(
            sum(t_i * (t_i.log() - log_q) for t_i, log_q in zip(t, log_softmax, strict=True) if t_i > 0)
        )
    return torch.stack(rows).mean()


def relabelled(s: Tensor, probability: Tensor, threshold: float) -> Tensor:
    rows = []
    for row in range(BATCH):
        weights = {row: 1.0}
        for j, p in enumerate(probability[row].tolist(), 1):
            if p > threshold:
                weights[row + j * BATCH] = p
        negatives = [place for place in range(s.shape[1]) if place not in weights]
        losses = {i: torch.logsumexp(s[row][[i, *negatives]], 0) - s[row][i] for i in weights}
        rows.append(sum(w * losses[i] for i, w in weights.items()) / sum(weights.values()))
    return torch.stack(rows).mean()


def dropped(s: Tensor, probability: Tensor, threshold: float) -> Tensor:
    rows = []
    for row in range(BATCH):
        suspects = {row + j * BATCH for j, p in enumerate(probability[row].tolist(), 1) if p > threshold}
        kept = [place for place in range(s.shape[1]) if place not in suspects]
        rows.append(torch.logsumexp(s[row][kept], 0) - s[row][row])
    return torch.stack(rows).mean()


def expected(targets: str, s: Tensor, threshold: float = 0.5) -> Tensor:
    if targets == "soft":
        return divergence(s, [torch.cat([torch.ones(1), p]) for p in P])
    if targets == "distill":
        raised = torch.cat([TEACHER.max(dim=1, keepdim=True).values, TEACHER[:, 1:]], dim=1)
        return divergence(s, list(raised.softmax(dim=1)))
    return (relabelled if targets == "relabel" else dropped)(s, P, threshold)


def labels(targets: str) -> Tensor:
    return TEACHER if targets == "distill" else P


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.85])
@pytest.mark.parametrize("targets", ["drop", "soft", "relabel", "distill"])
def test_values_and_gradients_are_those_of_the_formula(targets: str, threshold: float) -> None:
    loss = RRRALoss(None, targets=targets, threshold=threshold)
    ours, theirs = embeddings(), embeddings()
    value = loss.compute_loss_from_embeddings(ours, labels(targets))
    formula = expected(targets, scores(theirs), threshold)
    torch.testing.assert_close(value, formula)
    value.backward()
    formula.backward()
    for left, right in zip(ours, theirs, strict=True):
        torch.testing.assert_close(left.grad, right.grad)


@pytest.mark.parametrize("targets", [*TARGETS, "distill"])
def test_the_cached_form_is_equal(targets: str) -> None:
    given_labels = 1 - P if targets == "weights" else labels(targets)
    whole, cached = RRRALoss(None, targets=targets), CachedRRRALoss(MODEL, mini_batch_size=2, targets=targets)
    ours, theirs = embeddings(), embeddings()
    value = whole.compute_loss_from_embeddings(ours, given_labels)
    parts = cached.calculate_loss([list(e.split(2)) for e in theirs], given_labels)
    torch.testing.assert_close(parts, value)


@pytest.mark.parametrize(
    "options", [{}, {"directions": ("query_to_doc", "doc_to_query"), "partition_mode": "joint"}]
)
@pytest.mark.parametrize("targets", TARGETS)
def test_where_the_probabilities_are_zero_it_is_the_parent_to_the_last_bit(
    targets: str, options: dict[str, Any]
) -> None:
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    parent = MultipleNegativesRankingLoss(None, **options)
    values = torch.ones_like(P) if targets == "weights" else torch.zeros_like(P)
    loss = RRRALoss(None, targets=targets, **options)
    value = loss.compute_loss_from_embeddings(embeddings(), values)
    assert torch.equal(value, parent.compute_loss_from_embeddings(embeddings(), None))


@settings(max_examples=50, deadline=None)
@given(
    st.integers(0, 10_000), st.lists(st.floats(0, 1), min_size=6, max_size=6), st.sampled_from(TARGETS[1:])
)
def test_no_loss_is_negative_and_all_gradients_are_finite(
    seed: int, values: list[float], targets: str
) -> None:
    columns = embeddings(seed)
    loss = RRRALoss(None, targets=targets)
    value = loss.compute_loss_from_embeddings(columns, torch.tensor(values).reshape(BATCH, NEGATIVES))
    value.backward()
    assert value > -1e-5
    assert all(e.grad is not None and e.grad.isfinite().all() for e in columns)


def test_a_document_that_the_encoder_should_rank_first_pulls_less_as_its_share_falls() -> None:
    pulls = []
    for p in (0.0, 0.3, 0.9):
        columns = embeddings()
        values = torch.zeros_like(P)
        values[0, 0] = p
        RRRALoss(None, targets="soft").compute_loss_from_embeddings(columns, values).backward()
        gradient = columns[2].grad
        assert gradient is not None
        pulls.append(float(gradient[0] @ columns[0][0].detach()))
    # Positive: the step pushes the document away from its query.
    assert pulls[0] > pulls[1] > pulls[2]


def make_pool(**changes: Any) -> CandidatePool:
    """Row i of the batch is query i, with the positive 3i and the candidates 3i + 1 and 3i + 2."""
    return CandidatePool(
        **{
            "query_ids": [str(i) for i in range(BATCH)],
            "document_ids": [str(i) for i in range(3 * BATCH)],
            "positives": [np.array([3 * i]) for i in range(BATCH)],
            "candidates": np.array([[3 * i + 1, 3 * i + 2] for i in range(BATCH)]),
            "scores": np.zeros((BATCH, 2)),
            "probability": P.numpy(),
            "ranking_scores": TEACHER[:, 1:].numpy(),
            **changes,
        }
    )


def rows() -> Tensor:
    first = torch.arange(BATCH)
    return torch.stack([first, 3 * first, 3 * first + 1, 3 * first + 2], dim=1)


@pytest.mark.parametrize("targets", TARGETS[1:])
def test_a_pool_says_what_the_dataset_says(targets: str) -> None:
    value = RRRALoss(None, pool=make_pool(), targets=targets).compute_loss_from_embeddings(
        embeddings(), rows()
    )
    by_dataset = RRRALoss(None, targets=targets).compute_loss_from_embeddings(embeddings(), P)
    torch.testing.assert_close(value, by_dataset)


def test_the_positive_is_taught_as_the_best_candidate_of_its_query() -> None:
    loss = RRRALoss(None, pool=make_pool(), targets="distill", teacher_temperature=2.0)
    best = TEACHER[:, 1:].max(dim=1, keepdim=True).values
    shares = (torch.cat([best, TEACHER[:, 1:]], dim=1) / 2).softmax(dim=1)
    value = loss.compute_loss_from_embeddings(embeddings(), rows())
    torch.testing.assert_close(value, divergence(scores(embeddings()), list(shares)))


@pytest.mark.parametrize("targets", [*TARGETS, "distill"])
def test_known_negatives_are_negatives_whatever_the_adapter_says(targets: str) -> None:
    known = [np.array([3 * i + 1, 3 * i + 2]) for i in range(BATCH)]
    loss = RRRALoss(None, pool=make_pool(negatives=known), targets=targets)
    parent = RRRALoss(None).compute_loss_from_embeddings(embeddings(), None)
    torch.testing.assert_close(loss.compute_loss_from_embeddings(embeddings(), rows()), parent)


@pytest.mark.parametrize("targets", [*TARGETS, "distill"])
def test_documents_that_are_no_candidates_are_negatives(targets: str) -> None:
    nobody = {"candidates": np.full((BATCH, 1), -1), "scores": np.full((BATCH, 1), -np.inf)}
    pool = make_pool(**nobody, probability=np.full((BATCH, 1), np.nan), ranking_scores=nobody["scores"])
    value = RRRALoss(None, pool=pool, targets=targets).compute_loss_from_embeddings(embeddings(), rows())
    torch.testing.assert_close(value, RRRALoss(None).compute_loss_from_embeddings(embeddings(), None))


@pytest.mark.parametrize("targets", ["soft", "relabel"])
def test_a_labelled_document_among_the_negatives_has_no_share(targets: str) -> None:
    # Document 1, a negative of row 0, is labelled for its query: it is masked, and can't be a target.
    positives = [np.array([0, 1]), np.array([3]), np.array([6])]
    candidates = np.array([[2, -1], [4, 5], [7, 8]])
    changes = {
        "scores": np.where(candidates < 0, -np.inf, 0.0),
        "ranking_scores": None,
        "probability": np.where(candidates < 0, np.nan, [[0.8, 0.0], [0.0, 0.0], [0.0, 0.0]]),
    }
    pool = make_pool(positives=positives, candidates=candidates, **changes)
    value = RRRALoss(None, pool=pool, targets=targets).compute_loss_from_embeddings(embeddings(), rows())
    s = scores(embeddings())
    s = s.index_put((torch.tensor(0), torch.tensor(own(0)[1])), torch.tensor(-torch.inf))
    if targets == "soft":
        shares = [torch.tensor([1.0, 0.0, 0.8]), *[torch.tensor([1.0, 0.0, 0.0])] * 2]
        formula = divergence(s, shares)
    else:
        formula = relabelled(s, torch.tensor([[0.0, 0.8], [0.0, 0.0], [0.0, 0.0]]), 0.5)
    torch.testing.assert_close(value, formula)


@pytest.mark.parametrize(
    ("targets", "values", "message"),
    [
        (
            "soft",
            P[:, :1],
            r"labels must hold the probabilities of the negatives, \(3, 2\), got shape \(3, 1\)",
        ),
        ("drop", P + 0.5, r"probabilities of the negatives must be in \[0, 1\], got 1.29"),
        ("relabel", P - 1.0, r"must be in \[0, 1\], got -1.0"),
        (
            "distill",
            P,
            r"labels must hold the scores of positive and negatives, \(3, 3\), got shape \(3, 2\)",
        ),
        ("distill", TEACHER * torch.nan, "scores of positive and negatives must be finite, got nan"),
    ],
)
def test_labels_that_the_targets_cannot_use_are_refused(targets: str, values: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RRRALoss(None, targets=targets).compute_loss_from_embeddings(embeddings(), values)


def ranked_pool(scores: list[list[float]], probability: Tensor) -> CandidatePool:
    return make_pool(ranking_scores=np.array(scores), probability=probability.numpy())


def test_what_the_adapter_ranks_above_a_labelled_document_is_dropped() -> None:
    # The first negative of row 0 is ranked above, the second of row 1 is probable.
    pool = ranked_pool(
        [[0.5, -1.0], [-1.0, -1.0], [0.0, -1.0]], torch.tensor([[0.1, 0.1], [0.1, 0.6], [0.1, 0.1]])
    )
    value = RRRALoss(None, pool=pool, targets="drop").compute_loss_from_embeddings(embeddings(), rows())
    left_out = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    torch.testing.assert_close(value, dropped(scores(embeddings()), left_out, 0.5))


def test_it_is_not_relabelled() -> None:
    above = torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    pool = ranked_pool([[0.5, -1.0], [-1.0, -1.0], [-1.0, -1.0]], torch.zeros(BATCH, NEGATIVES))
    values = {
        targets: RRRALoss(None, pool=pool, targets=targets).compute_loss_from_embeddings(embeddings(), rows())
        for targets in ("drop", "relabel")
    }
    torch.testing.assert_close(values["relabel"], values["drop"])
    torch.testing.assert_close(values["drop"], dropped(scores(embeddings()), above, 0.5))


@pytest.mark.parametrize("targets", ["drop", "soft", "relabel", "distill"])
def test_suspects_among_the_documents_of_other_rows_are_masked(targets: str) -> None:
    # Document 4, the first negative of row 1, is a suspect of query 0. Its own negatives are certain.
    candidates = np.array([[1, 2, 4], [4, 5, -1], [7, 8, -1]])
    changes = {
        "scores": np.where(candidates < 0, -np.inf, 0.0),
        "ranking_scores": np.where(candidates < 0, -np.inf, -30.0),
        "probability": np.where(candidates < 0, np.nan, [[0.0, 0.0, 0.9], [0.0] * 3, [0.0] * 3]),
    }
    pool = make_pool(candidates=candidates, **changes)
    loss = RRRALoss(None, pool=pool, targets=targets, teacher_temperature=0.1)
    s = scores(embeddings())
    s = s.index_put((torch.tensor(0), torch.tensor(1 + BATCH)), torch.tensor(-torch.inf))
    formula = (s.logsumexp(dim=1) - s.diagonal()).mean()
    torch.testing.assert_close(loss.compute_loss_from_embeddings(embeddings(), rows()), formula)

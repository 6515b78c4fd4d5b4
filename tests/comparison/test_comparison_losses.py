"""Other losses against false negatives: closed forms, limits, extreme scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from sentence_transformers.sentence_transformer.training_args import SentenceTransformerTrainingArguments
from sentence_transformers.util import cos_sim, dot_score
from torch import Tensor

from rrra_hf.comparison.losses import CCRLoss, DebiasedContrastiveLoss
from rrra_hf.losses import in_batch

BATCH, NEGATIVES, DIM = 5, 3, 8
LOSSES = [CCRLoss, DebiasedContrastiveLoss]


def make_embeddings(columns: int = 2 + NEGATIVES) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(BATCH, DIM, generator=generator).requires_grad_() for _ in range(columns)]


def loss_and_gradients(
    loss: MultipleNegativesRankingLoss, embeddings: list[Tensor]
) -> tuple[Tensor, tuple[Tensor, ...]]:
    value = loss.compute_loss_from_embeddings(embeddings, None)  # type: ignore[arg-type]
    return value, torch.autograd.grad(value, embeddings)


def on_the_plane(cosines: list[list[float]]) -> list[Tensor]:
    """One query, and documents at these cosines to it, one a column; or so for several queries."""
    angles = torch.tensor(cosines).acos()
    documents = torch.stack([angles.cos(), angles.sin()], dim=-1).unbind(1)
    queries = torch.tensor([[1.0, 0.0]]).repeat(len(cosines), 1)
    return [queries, *documents]


@pytest.mark.parametrize("columns", [2, 2 + NEGATIVES])
@pytest.mark.parametrize("scale", [1.0, 20.0])
@pytest.mark.parametrize(
    ("make", "off"),
    [
        (CCRLoss, {"beta": 0}),
        (DebiasedContrastiveLoss, {"tau_plus": 0}),
    ],
)
def test_switched_off_it_is_the_in_batch_loss(make: Any, off: Any, scale: float, columns: int) -> None:
    model: Any = None
    embeddings = make_embeddings(columns)
    torch.testing.assert_close(
        loss_and_gradients(make(model, scale=scale, **off), embeddings),
        loss_and_gradients(MultipleNegativesRankingLoss(model, scale=scale), embeddings),
    )


@pytest.mark.parametrize("similarity_fct", [cos_sim, dot_score])
def test_ccr_equals_its_second_form(similarity_fct: Any) -> None:
    model: Any = None
    queries, *columns = make_embeddings()
    s = similarity_fct(queries, torch.cat(columns)) * 3
    expected = (-s.diagonal() + 0.3 * s.mean(1) + 0.7 * s.logsumexp(1)).mean()
    loss = CCRLoss(model, beta=0.3, scale=3.0, similarity_fct=similarity_fct)
    torch.testing.assert_close(loss_and_gradients(loss, [queries, *columns])[0], expected)


def test_ccr_of_one_query_by_hand() -> None:
    # Scores 1 and 0 at scale 1: softmax .7311, .2689; nll .3133, mean log softmax -.8133.
    model: Any = None
    value = CCRLoss(model).compute_loss_from_embeddings(on_the_plane([[1.0, 0.0]]), None)
    assert value.item() == pytest.approx(0.313262 - 0.5 * 0.813262, abs=1e-5)


def test_ccr_rewards_confidence_more_than_the_in_batch_loss() -> None:
    model: Any = None

    def gain(beta: float) -> float:
        hedged, sure = on_the_plane([[0.6, 0.4]]), on_the_plane([[1.0, -1.0]])
        loss = CCRLoss(model, beta=beta, scale=5.0)
        return (
            loss.compute_loss_from_embeddings(hedged, None) - loss.compute_loss_from_embeddings(sure, None)
        ).item()

    assert gain(0) < gain(0.5) < gain(1)


def test_debiased_of_two_queries_by_hand() -> None:
    # Scale 2; query 1: positive .5, others .2, .8, .1; query 2: positive .2, others .5, .1, .8. (All
    # queries are the same vector.) Share .1 of the 3 others.
    model: Any = None
    e = {c: torch.tensor(2 * c).exp().item() for c in (0.1, 0.2, 0.5, 0.8)}
    expected = 0.0
    for positive in (0.5, 0.2):
        others = sum(e.values()) - e[positive]
        true_negatives = (others - 3 * 0.1 * e[positive]) / 0.9
        expected += torch.tensor(1 + true_negatives / e[positive]).log().item() / 2
    loss = DebiasedContrastiveLoss(model, tau_plus=0.1, scale=2.0)
    value = loss.compute_loss_from_embeddings(on_the_plane([[0.5, 0.8], [0.2, 0.1]]), None)
    assert value.item() == pytest.approx(expected, rel=1e-5)


def test_debiased_keeps_above_what_negatives_could_be_at_least() -> None:
    # e^2 * .5 is more than e^-1: the estimate would be negative, and its log undefined.
    model: Any = None
    loss = DebiasedContrastiveLoss(model, tau_plus=0.5, scale=2.0)
    value = loss.compute_loss_from_embeddings(on_the_plane([[1.0, -0.5]]), None)
    assert value.item() == pytest.approx(torch.tensor(-4.0).exp().log1p().item(), rel=1e-5)


def test_the_larger_the_share_the_smaller_the_debiased_loss() -> None:
    # The positive scores above the mean of the others, so that subtracting its share takes away more
    # than 1 / (1 - tau_plus) gives back.
    model: Any = None
    embeddings = on_the_plane([[0.6, 0.5, 0.2]])
    values = [
        DebiasedContrastiveLoss(model, tau_plus=share, scale=2.0)
        .compute_loss_from_embeddings(embeddings, None)
        .item()
        for share in (0.0, 0.1, 0.3, 0.5)
    ]
    assert values == sorted(values, reverse=True)
    assert len(set(values)) == 4


@pytest.mark.parametrize("make", LOSSES)
@pytest.mark.parametrize("scale", [0.01, 20.0, 1000.0])
@pytest.mark.parametrize("cosines", [[[1.0, -1.0, -1.0]], [[-1.0, 1.0, 1.0]], [[1.0, 1.0, 1.0]], [[0.3]]])
def test_extreme_scores_leave_loss_and_gradients_finite(
    make: Any, scale: float, cosines: list[list[float]]
) -> None:
    embeddings = [e.requires_grad_() for e in on_the_plane(cosines)]
    value, gradients = loss_and_gradients(make(None, scale=scale), embeddings)
    assert value.isfinite()
    assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("make", LOSSES)
def test_half_precision_embeddings_give_about_the_same_loss(make: Any) -> None:
    embeddings = make_embeddings()
    exact, _ = loss_and_gradients(make(None, scale=5.0), embeddings)
    half, gradients = loss_and_gradients(
        make(None, scale=5.0), [e.detach().bfloat16().requires_grad_() for e in embeddings]
    )
    assert half.item() == pytest.approx(exact.item(), abs=0.05)
    assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("make", LOSSES)
def test_two_devices_that_gather_have_the_mean_loss_of_the_whole_batch(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = [e.detach() for e in make_embeddings()]
    shares = []
    for rank, rows in enumerate([slice(0, 2), slice(2, 4)]):
        gathered = iter([column[:4] for column in whole])
        monkeypatch.setattr(in_batch, "all_gather_with_grad", lambda _, texts=gathered: next(texts))
        monkeypatch.setattr(in_batch, "all_gather", lambda sizes: sizes.repeat(2))
        monkeypatch.setattr(in_batch, "get_rank", lambda rank=rank: rank)
        monkeypatch.setattr(in_batch, "get_world_size", lambda: 2)
        loss = make(None, gather_across_devices=True)
        shares.append(loss.compute_loss_from_embeddings([e[rows] for e in whole], None))
    together = make(None).compute_loss_from_embeddings([e[:4] for e in whole], None)
    torch.testing.assert_close(sum(shares) / 2, together)


@pytest.mark.parametrize("beta", [-0.1, 1.1, float("nan")])
def test_an_illegal_beta_is_refused(beta: float) -> None:
    model: Any = None
    with pytest.raises(ValueError, match="beta must be from 0 to 1, got"):
        CCRLoss(model, beta=beta)


@pytest.mark.parametrize("tau_plus", [-0.1, 1.0, float("nan")])
def test_an_illegal_share_is_refused(tau_plus: float) -> None:
    model: Any = None
    with pytest.raises(ValueError, match="tau_plus must be at least 0 and below 1, got"):
        DebiasedContrastiveLoss(model, tau_plus=tau_plus)


def test_settings_for_the_model_card() -> None:
    model: Any = None
    rest = {"similarity_fct": "cos_sim", "gather_across_devices": False}
    ccr, debiased = CCRLoss(model, beta=0.25), DebiasedContrastiveLoss(model)
    assert ccr.get_config_dict() == {"beta": 0.25, "scale": 1.0, **rest}
    assert debiased.get_config_dict() == {"tau_plus": 0.1, "scale": 20.0, **rest}
    assert "2401.00165" in ccr.citation
    assert "2007.00224" in debiased.citation


@pytest.mark.parametrize("make", LOSSES)
def test_the_trainer_trains_with_it(make: Any, tiny_bert: Path, tmp_path: Path) -> None:
    model = SentenceTransformer(str(tiny_bert), device="cpu")
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    trainer = SentenceTransformerTrainer(
        model=model,
        args=SentenceTransformerTrainingArguments(
            output_dir=str(tmp_path), max_steps=1, report_to="none", disable_tqdm=True, save_strategy="no"
        ),
        train_dataset=Dataset.from_dict(
            {
                "query": ["how do i list files", "copy a file"],
                "positive": ["list files", "copy file to folder"],
                "negative": ["find files", "list files in folder"],
            }
        ),
        loss=make(model),
    )
    trainer.train()
    assert any(not torch.equal(weight.cpu(), before[name]) for name, weight in model.state_dict().items())

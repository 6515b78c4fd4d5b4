"""The cached resampling loss is the plain one, whatever the mini-batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
from sentence_transformers.sentence_transformer.losses import CachedMultipleNegativesRankingLoss
from sentence_transformers.sentence_transformer.training_args import SentenceTransformerTrainingArguments
from sentence_transformers.util import cos_sim
from torch import Tensor
from torch.nn import functional as F

from loss_options import PARENT_OPTIONS
from rrra_hf.losses import CachedRRRALoss, RRRALoss, in_batch

BATCH, NEGATIVES, DIM = 5, 3, 8
# Only looked at by the constructor, where embeddings are given.
MODEL: Any = torch.nn.Sequential(torch.nn.Identity())
TEXTS = [
    ["how do i list files", "copy a file", "sort text", "old query", "find a folder"],
    ["list files", "copy file to folder", "sort line of text", "new query", "find files in folder"],
    ["find files", "list files in folder", "copy text", "old passage", "sort a folder"],
    ["old query", "new passage", "old text", "find the old query in the text", "line"],
]
WEIGHTS = torch.tensor([[0.25, 1.0], [1.0, 0.0], [0.5, 0.5], [0.0, 0.0], [2.0, 1.5]])


@pytest.fixture
def model(tiny_bert: Path) -> SentenceTransformer:
    # Without dropout, so that two losses see the same embeddings.
    return SentenceTransformer(str(tiny_bert), device="cpu").eval()


def random_weights(batch: int = BATCH) -> Tensor:
    return torch.rand(batch, NEGATIVES, generator=torch.Generator().manual_seed(1)) * 3


def make_reps(mini_batch_size: int = 2) -> list[list[Tensor]]:
    """Queries, positives and negatives in mini-batches, the last of them smaller."""
    generator = torch.Generator().manual_seed(0)
    columns = [torch.randn(BATCH, DIM, generator=generator) for _ in range(2 + NEGATIVES)]
    return [[rep.clone().requires_grad_() for rep in column.split(mini_batch_size)] for column in columns]


def loss_and_gradients(
    loss: CachedMultipleNegativesRankingLoss, labels: Tensor | None
) -> tuple[Tensor, list[Tensor | None]]:
    reps = make_reps()
    value = loss.calculate_loss(reps, labels, with_backward=True)
    return value, [rep.grad for column in reps for rep in column]


def model_gradients(model: SentenceTransformer, loss: Any, labels: Tensor | None) -> tuple[Tensor, Tensor]:
    model.zero_grad()
    value = loss([model.preprocess(texts) for texts in TEXTS], labels)
    value.backward()
    gradients = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    return value.detach(), torch.cat(gradients)


@pytest.mark.parametrize("mini_batch_size", [1, 2, 5, 32])
@pytest.mark.parametrize("options", PARENT_OPTIONS)
@pytest.mark.parametrize("labels", [None, torch.ones(BATCH, NEGATIVES)])
def test_without_weights_or_with_all_one_it_is_the_parent_to_the_last_bit(
    options: dict[str, Any], labels: Tensor | None, mini_batch_size: int
) -> None:
    options = {**options, "mini_batch_size": mini_batch_size}
    ours, our_gradients = loss_and_gradients(CachedRRRALoss(MODEL, **options), labels)
    parents, parent_gradients = loss_and_gradients(CachedMultipleNegativesRankingLoss(MODEL, **options), None)
    assert torch.equal(ours, parents)
    assert not ours.requires_grad
    for mine, theirs in zip(our_gradients, parent_gradients, strict=True):
        assert mine is not None
        assert theirs is not None
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("weight", [0, 2])
def test_a_weight_is_how_often_a_negative_counts(weight: int) -> None:
    weights = torch.ones(BATCH, NEGATIVES)
    weights[:, 1] = weight
    queries, *columns = (torch.cat(column) for column in make_reps())
    logits = cos_sim(queries, torch.cat(columns)) * 20
    others = [[j for j in range(logits.shape[1]) if j != 2 * BATCH + i] for i in range(BATCH)]
    places = torch.tensor([row + [2 * BATCH + i] * weight for i, row in enumerate(others)])
    expected = F.cross_entropy(logits.gather(1, places), torch.arange(BATCH))
    loss = CachedRRRALoss(MODEL, mini_batch_size=2)
    torch.testing.assert_close(loss.calculate_loss(make_reps(), weights), expected)


def test_gradients_stay_finite_where_all_weights_of_a_query_are_zero() -> None:
    loss = CachedRRRALoss(MODEL, mini_batch_size=2)
    value, gradients = loss_and_gradients(loss, torch.zeros(BATCH, NEGATIVES))
    assert value.isfinite()
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("options", [{"mini_batch_size": n} for n in (1, 2, 3, 5, 64)])
def test_loss_and_gradients_of_the_model_are_those_of_the_plain_loss(
    model: SentenceTransformer, options: dict[str, int]
) -> None:
    plain, plain_gradients = model_gradients(model, RRRALoss(model), WEIGHTS)
    cached, cached_gradients = model_gradients(model, CachedRRRALoss(model, **options), WEIGHTS)
    torch.testing.assert_close(cached, plain, rtol=0, atol=1e-5)
    torch.testing.assert_close(cached_gradients, plain_gradients, rtol=0, atol=1e-5)
    unweighted, _ = model_gradients(model, RRRALoss(model), None)
    assert not torch.isclose(plain, unweighted, atol=1e-3)


def test_mini_batches_by_tokens_give_the_same_loss(model: SentenceTransformer) -> None:
    by_tokens = CachedRRRALoss(model, mini_batch_size=2, mini_batch_num_tokens=12)
    torch.testing.assert_close(
        model_gradients(model, by_tokens, WEIGHTS),
        model_gradients(model, RRRALoss(model), WEIGHTS),
        rtol=0,
        atol=1e-5,
    )


def test_under_bfloat16_autocast_it_is_near_the_plain_loss_and_finite(model: SentenceTransformer) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        plain, plain_gradients = model_gradients(model, RRRALoss(model), WEIGHTS)
        cached, cached_gradients = model_gradients(model, CachedRRRALoss(model, mini_batch_size=2), WEIGHTS)
    assert cached_gradients.isfinite().all()
    # A cosine in bfloat16 is known to 1/256 and is scaled by 20.
    torch.testing.assert_close(cached.float(), plain.float(), rtol=0, atol=0.05)
    assert torch.cosine_similarity(cached_gradients, plain_gradients, dim=0) > 0.99


def test_without_gradients_the_loss_is_the_same(model: SentenceTransformer) -> None:
    loss = CachedRRRALoss(model, mini_batch_size=2)
    with_gradients, _ = model_gradients(model, loss, WEIGHTS)
    with torch.no_grad():
        value = loss([model.preprocess(texts) for texts in TEXTS], WEIGHTS)
    torch.testing.assert_close(value, with_gradients)


def test_the_second_of_two_devices_weighs_its_own_negatives(monkeypatch: pytest.MonkeyPatch) -> None:
    # Other devices' documents come before this one's, as they do when gathered on rank 1.
    generator = torch.Generator().manual_seed(3)
    gathered = [torch.randn(BATCH, DIM, generator=generator) for _ in range(2 + NEGATIVES)]
    _, *others = gathered
    queue = iter(gathered)
    monkeypatch.setattr(in_batch, "all_gather_with_grad", lambda column: torch.cat([next(queue), column]))
    monkeypatch.setattr(in_batch, "all_gather", lambda sizes: sizes.repeat(2))
    monkeypatch.setattr(in_batch, "get_rank", lambda: 1)
    monkeypatch.setattr(in_batch, "get_world_size", lambda: 2)
    loss = CachedRRRALoss(MODEL, mini_batch_size=2, gather_across_devices=True)
    weights = random_weights()
    value = loss.calculate_loss(make_reps(), weights)
    queries, *columns = (torch.cat(column) for column in make_reps())
    documents = [torch.cat(pair) for pair in zip(others, columns, strict=True)]
    masses = (cos_sim(queries, torch.cat(documents)) * 20).exp()
    for i in range(BATCH):
        for j in range(NEGATIVES):
            masses[i, (j + 1) * 2 * BATCH + BATCH + i] *= weights[i, j]
    positives = masses[torch.arange(BATCH), BATCH + torch.arange(BATCH)]
    torch.testing.assert_close(value, (masses.sum(1) / positives).log().mean())


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.ones(BATCH), r"weights of the negatives, \(5, 3\), got shape \(5,\)"),
        (torch.ones(BATCH, NEGATIVES + 1), r"\(5, 3\), got shape \(5, 4\)"),
        (torch.full((BATCH, NEGATIVES), -0.5), "at least 0, got -0.5 .and 14 more"),
        (torch.full((BATCH, NEGATIVES), torch.nan), "finite and at least 0, got nan"),
        (torch.full((BATCH, NEGATIVES), torch.inf), "finite and at least 0, got inf"),
    ],
)
def test_illegal_weights_are_refused(labels: Tensor, message: str) -> None:
    loss = CachedRRRALoss(MODEL)
    with pytest.raises(ValueError, match=message):
        loss.calculate_loss(make_reps(), labels)


def test_the_progress_bar_is_shown_if_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    for show in (False, True):
        loss = CachedRRRALoss(MODEL, show_progress_bar=show)
        loss.calculate_loss(make_reps(), random_weights())
        assert ("Calculating loss" in capsys.readouterr().err) == show


def test_settings_for_the_model_card() -> None:
    loss = CachedRRRALoss(MODEL, scale=5.0, mini_batch_size=4)
    settings = loss.get_config_dict()
    assert (settings["scale"], settings["mini_batch_size"]) == (5.0, 4)
    assert settings == {**RRRALoss(MODEL, scale=5.0).get_config_dict(), **settings}
    assert "2508.11670" in loss.citation
    assert "2101.06983" in loss.citation


def test_the_trainer_trains_with_the_scores(model: SentenceTransformer, tmp_path: Path) -> None:
    names = ["query", "positive", "negative_1", "negative_2"]
    rows = Dataset.from_dict({**dict(zip(names, TEXTS, strict=True)), "scores": WEIGHTS.tolist()})
    seen = []

    class Watched(CachedRRRALoss):
        def calculate_loss(self, reps: Any, labels: Any = None, **options: Any) -> Tensor:
            seen.append(labels.values.tolist())
            return super().calculate_loss(reps, labels, **options)

    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    trainer = SentenceTransformerTrainer(
        model=model,
        args=SentenceTransformerTrainingArguments(
            output_dir=str(tmp_path), max_steps=1, report_to="none", disable_tqdm=True, save_strategy="no"
        ),
        train_dataset=rows,
        loss=Watched(model, mini_batch_size=2),
    )
    trainer.train()
    [labels] = seen
    assert sorted(labels) == sorted(WEIGHTS.tolist())
    assert any(not torch.equal(weight.cpu(), before[name]) for name, weight in model.state_dict().items())

"""Weights of hard negatives enter the softmax as if each negative were there so many times."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed
from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
from sentence_transformers.sentence_transformer.data_collator import SentenceTransformerDataCollator
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from sentence_transformers.sentence_transformer.training_args import SentenceTransformerTrainingArguments
from sentence_transformers.util import cos_sim, dot_score
from torch import Tensor
from torch.nn import functional as F

import forked
from loss_options import PARENT_OPTIONS, SYMMETRIC
from rrra_hf.losses import RRRALoss

BATCH, NEGATIVES, DIM = 5, 3, 8


def make_embeddings(columns: int = 2 + NEGATIVES, batch: int = BATCH) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(batch, DIM, generator=generator).requires_grad_() for _ in range(columns)]


def loss_and_gradients(
    loss: MultipleNegativesRankingLoss, labels: Tensor | None
) -> tuple[Tensor, list[Tensor]]:
    embeddings = make_embeddings()
    value = loss.compute_loss_from_embeddings(embeddings, labels)
    return value, list(torch.autograd.grad(value, embeddings))


@pytest.mark.parametrize("options", PARENT_OPTIONS)
@pytest.mark.parametrize("labels", [None, torch.ones(BATCH, NEGATIVES)])
def test_without_weights_or_with_all_one_it_is_the_parent_to_the_last_bit(
    options: dict[str, Any], labels: Tensor | None
) -> None:
    model: Any = None
    ours, our_gradients = loss_and_gradients(RRRALoss(model, **options), labels)
    parents, parent_gradients = loss_and_gradients(MultipleNegativesRankingLoss(model, **options), None)
    assert torch.equal(ours, parents)
    for mine, theirs in zip(our_gradients, parent_gradients, strict=True):
        assert torch.equal(mine, theirs)


def own_logits() -> tuple[Tensor, Tensor]:
    """The logits of the batch and, apart, those of each query's own negatives."""
    queries, *columns = make_embeddings()
    logits = cos_sim(queries, torch.cat(columns)) * 20
    own = [[logits[i, j * BATCH + i] for j in range(1, NEGATIVES + 1)] for i in range(BATCH)]
    return logits, torch.stack([torch.stack(row) for row in own])


@pytest.mark.parametrize("column", range(NEGATIVES))
def test_weight_zero_removes_a_negative(column: int) -> None:
    weights = torch.ones(BATCH, NEGATIVES)
    weights[:, column] = 0
    loss, gradients = loss_and_gradients(RRRALoss(None), weights)
    logits, _ = own_logits()
    kept = [
        torch.cat([logits[i, : (column + 1) * BATCH + i], logits[i, (column + 1) * BATCH + i + 1 :]])
        for i in range(BATCH)
    ]
    torch.testing.assert_close(loss, F.cross_entropy(torch.stack(kept), torch.arange(BATCH)))
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_weight_two_counts_a_negative_twice() -> None:
    weights = torch.ones(BATCH, NEGATIVES)
    weights[:, 1] = 2
    logits, own = own_logits()
    twice = torch.cat([logits, own[:, 1:2]], dim=1)
    loss, _ = loss_and_gradients(RRRALoss(None), weights)
    torch.testing.assert_close(loss, F.cross_entropy(twice, torch.arange(BATCH)))


def test_each_query_has_its_own_weights() -> None:
    weights = torch.rand(BATCH, NEGATIVES, generator=torch.Generator().manual_seed(1)) * 3
    logits, own = own_logits()
    others = logits.exp().sum(1) - own.exp().sum(1)
    denominators = others + (weights * own.exp()).sum(1)
    expected = (denominators.log() - logits.diagonal()).mean()
    loss, _ = loss_and_gradients(RRRALoss(None), weights)
    torch.testing.assert_close(loss, expected)


def test_all_weights_zero_leave_the_in_batch_loss() -> None:
    queries, *columns = make_embeddings()
    loss = RRRALoss(None).compute_loss_from_embeddings([queries, *columns], torch.zeros(BATCH, NEGATIVES))
    logits, _ = own_logits()
    removed = torch.eye(BATCH).repeat(1, 1 + NEGATIVES).bool()
    removed[:, :BATCH] = False
    expected = F.cross_entropy(logits.masked_fill(removed, -torch.inf), torch.arange(BATCH))
    torch.testing.assert_close(loss, expected)


def test_learnt_weights_get_finite_gradients_even_at_zero() -> None:
    weights = torch.tensor([[0.0, 0.5, 1.0]] * BATCH, requires_grad=True)
    RRRALoss(None).compute_loss_from_embeddings(make_embeddings(), weights).backward()
    assert weights.grad is not None
    assert weights.grad.isfinite().all()
    assert (weights.grad[:, 1:] > 0).all()


@pytest.mark.parametrize("similarity_fct", [cos_sim, dot_score])
def test_half_precision_embeddings_are_treated_as_by_the_parent(similarity_fct: Any) -> None:
    embeddings = [e.detach().bfloat16() for e in make_embeddings()]
    loss = RRRALoss(None, similarity_fct=similarity_fct)
    ours = loss.compute_loss_from_embeddings(embeddings, torch.ones(BATCH, NEGATIVES))
    parents = loss.compute_loss_from_embeddings(embeddings, None)
    assert ours.dtype == parents.dtype
    assert torch.equal(ours, parents)


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
    with pytest.raises(ValueError, match=message):
        RRRALoss(None).compute_loss_from_embeddings(make_embeddings(), labels)


def test_settings_for_the_model_card() -> None:
    loss = RRRALoss(None, scale=5.0, directions=SYMMETRIC)
    settings = loss.get_config_dict()
    assert settings == {
        **MultipleNegativesRankingLoss(None, scale=5.0, directions=SYMMETRIC).get_config_dict(),
        **settings,
    }
    assert (settings["source"], settings["adapter_weight"]) == ("dataset", 0.0)
    assert "2508.11670" in loss.citation


def weighted_rows() -> Dataset:
    return Dataset.from_dict(
        {
            "query": ["how do i list files", "copy a file", "sort text"],
            "positive": ["list files", "copy file to folder", "sort line of text"],
            "negative_1": ["find files", "list files in folder", "copy text"],
            "negative_2": ["old query", "new passage", "old text"],
            "scores": [[0.25, 1.0], [1.0, 0.0], [0.5, 0.5]],
        }
    )


def test_the_trainer_brings_the_scores_to_the_loss(tiny_bert: Path, tmp_path: Path) -> None:
    model = SentenceTransformer(str(tiny_bert), device="cpu")
    rows = weighted_rows()
    batch = SentenceTransformerDataCollator(model.preprocess)(list(rows))
    torch.testing.assert_close(batch["label"], torch.tensor(rows["scores"][:]))
    seen = []

    class Watched(RRRALoss):
        def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Any) -> Tensor:
            seen.append((len(embeddings), labels.values))
            return super().compute_loss_from_embeddings(embeddings, labels)

    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    trainer = SentenceTransformerTrainer(
        model=model,
        args=SentenceTransformerTrainingArguments(
            output_dir=str(tmp_path), max_steps=1, report_to="none", disable_tqdm=True, save_strategy="no"
        ),
        train_dataset=rows,
        loss=Watched(model),
    )
    trainer.train()
    [(columns, labels)] = seen
    assert columns == 4
    assert sorted(labels.tolist()) == sorted(rows["scores"][:])
    assert any(not torch.equal(weight.cpu(), before[name]) for name, weight in model.state_dict().items())


def share_of_a_process(folder: Path) -> None:
    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    rows = slice(2 * rank, 2 * rank + 2)
    embeddings = [e.detach()[rows].requires_grad_() for e in make_embeddings(batch=4)]
    loss = RRRALoss(None, gather_across_devices=True)
    value = loss.compute_loss_from_embeddings(embeddings, gathered_weights()[rows])
    value.backward()
    (folder / str(rank)).write_text(json.dumps([value.item(), [e.grad.tolist() for e in embeddings]]))
    torch.distributed.destroy_process_group()


def gathered_weights() -> Tensor:
    return torch.rand(4, NEGATIVES, generator=torch.Generator().manual_seed(2)).round(decimals=1)


@pytest.mark.slow
def test_two_processes_that_gather_equal_one_with_the_whole_batch(tmp_path: Path) -> None:
    done = forked.run(share_of_a_process, tmp_path, processes=2)
    assert done.statuses == [0, 0], done.err
    shares = [json.loads((tmp_path / str(rank)).read_text()) for rank in range(2)]
    embeddings = make_embeddings(batch=4)
    loss = RRRALoss(None).compute_loss_from_embeddings(embeddings, gathered_weights())
    loss.backward()
    assert sum(value for value, _ in shares) / 2 == pytest.approx(loss.item(), rel=1e-5)
    for column, embedding in enumerate(embeddings):
        together = torch.cat([torch.tensor(gradients[column]) for _, gradients in shares]) / 2
        torch.testing.assert_close(together, embedding.grad, rtol=1e-4, atol=1e-6)

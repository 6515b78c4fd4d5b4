"""A loss that is NaN or infinite stops the run, before it spoils the weights and with its cause named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.sentence_transformer.losses import (
    CachedMultipleNegativesRankingLoss,
    MatryoshkaLoss,
    MultipleNegativesRankingLoss,
)
from torch import Tensor, nn
from torch.utils.data import BatchSampler, SequentialSampler

from rrra_hf.candidates import CandidatePool
from rrra_hf.training import StopOnNonFiniteLoss
from rrra_hf.training.non_finite import query_names

TEXT = "how do i list copy find files folder sort text line query passage old new the"
WORDS = TEXT.split()
BAD = "sort text"
PAIRS = 16


class Spoilt(nn.Module):
    """A loss that isn't finite for a batch with the query `BAD`, as long as it is armed."""

    def __init__(self, loss: nn.Module, value: float = float("nan")):
        super().__init__()
        self.loss = loss
        self.value = value
        self.armed = True
        (self.bad_words,) = loss.model.tokenizer([BAD])["input_ids"]

    def forward(self, features: list[dict[str, Tensor]], labels: Tensor | None) -> Tensor:
        loss = self.loss(features, labels)
        length = len(self.bad_words)
        words = features[0]["input_ids"][:, :length]
        if self.armed and words.shape[1] == length and (words == torch.tensor(self.bad_words)).all(1).any():
            return loss * self.value
        return loss


def load(path: Path) -> SentenceTransformer:
    model = SentenceTransformer(str(path), device="cpu")
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model


def pairs(bad_row: int | None) -> Dataset:
    """Pairs that all differ, the query of one row being `BAD`."""
    queries = [f"{WORDS[i]} {WORDS[(i + 1) % PAIRS]}" for i in range(PAIRS)]
    queries = [query.replace(BAD, "new files") for query in queries]
    if bad_row is not None:
        queries[bad_row] = BAD
    return Dataset.from_dict({"query": queries, "positive": [f"{q} folder" for q in queries]})


def in_order(dataset: Dataset, batch_size: int, **options: Any) -> BatchSampler:
    return BatchSampler(SequentialSampler(dataset), batch_size, drop_last=False)


class Parts(nn.Module):
    """A loss of two named parts, one of which may not be finite."""

    def __init__(self, loss: nn.Module):
        super().__init__()
        self.loss = loss

    def forward(self, features: list[dict[str, Tensor]], labels: Tensor | None) -> dict[str, Tensor]:
        return {"first": self.loss(features, labels), "second": torch.zeros(())}


@pytest.fixture
def make_trainer(tiny_bert: Path, tmp_path: Path) -> Callable[..., SentenceTransformerTrainer]:
    def make(
        wrap: Callable[[nn.Module], nn.Module] = Spoilt,
        loss_class: Callable[..., nn.Module] = MultipleNegativesRankingLoss,
        bad_row: int | None = 9,
        name: str = "run",
        **changes: Any,
    ) -> SentenceTransformerTrainer:
        model = load(tiny_bert)
        loss = wrap(loss_class(model))
        settings = {
            "per_device_train_batch_size": 4,
            "num_train_epochs": 1,
            "learning_rate": 1e-3,
            "save_strategy": "no",
            "logging_steps": 1,
            "disable_tqdm": True,
            "report_to": "none",
            "use_cpu": True,
            # In the dataset's order: the third batch of four has row 9.
            "batch_sampler": in_order,
            **changes,
        }
        trainer = SentenceTransformerTrainer(
            model=model,
            args=SentenceTransformerTrainingArguments(output_dir=str(tmp_path / name), **settings),
            train_dataset=pairs(bad_row),
            eval_dataset=pairs(bad_row=9),
            loss=loss,
        )
        trainer.add_callback(StopOnNonFiniteLoss(trainer))
        return trainer

    return make


def weights(trainer: SentenceTransformerTrainer) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


def assert_equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    assert all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_the_step_before_is_what_remains(
    make_trainer: Callable[..., SentenceTransformerTrainer], tmp_path: Path, value: float
) -> None:
    trainer = make_trainer(lambda loss: Spoilt(loss, value))
    with pytest.raises(FloatingPointError, match=r"loss of step 3 is not finite.*checkpoint-2\.") as raised:
        trainer.train()
    assert f"'{BAD}'" in str(raised.value)
    assert str(raised.value).count("'") == 2 * 4
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["checkpoint-2"]
    assert [log["step"] for log in trainer.state.log_history] == [1, 2]

    before = make_trainer(max_steps=2, lr_scheduler_type="constant", name="a")
    same = make_trainer(lr_scheduler_type="constant", name="b")
    before.train()
    with pytest.raises(FloatingPointError):
        same.train()
    assert_equal(weights(same), weights(before))
    saved = SentenceTransformer(str(tmp_path / "b/checkpoint-2"), device="cpu")
    assert_equal(saved.state_dict(), weights(before))


def test_the_checkpoint_continues_as_if_nothing_had_happened(
    make_trainer: Callable[..., SentenceTransformerTrainer], tmp_path: Path
) -> None:
    stopped = make_trainer(num_train_epochs=2)
    with pytest.raises(FloatingPointError):
        stopped.train()
    resumed = make_trainer(num_train_epochs=2)
    resumed.loss.armed = False
    resumed.train(resume_from_checkpoint=str(tmp_path / "run/checkpoint-2"))
    whole = make_trainer(num_train_epochs=2, name="whole")
    whole.loss.armed = False
    whole.train()
    assert_equal(weights(resumed), weights(whole))
    assert [log for log in resumed.state.log_history if "loss" in log] == [
        log for log in whole.state.log_history if "loss" in log
    ]


def test_the_same_trainer_can_train_again(make_trainer: Callable[..., SentenceTransformerTrainer]) -> None:
    trainer = make_trainer()
    with pytest.raises(FloatingPointError):
        trainer.train()
    before = weights(trainer)
    trainer.loss.armed = False
    trainer.train()
    assert trainer.state.global_step == 4
    assert any(not torch.equal(value, before[name]) for name, value in weights(trainer).items())


def test_any_micro_batch_of_a_step_stops_it(
    make_trainer: Callable[..., SentenceTransformerTrainer], tmp_path: Path
) -> None:
    # Steps are of rows 0-7 and 8-15; row 9 is in the earlier micro-batch of the second step.
    trainer = make_trainer(gradient_accumulation_steps=2)
    with pytest.raises(FloatingPointError, match="loss of step 2 is not finite") as raised:
        trainer.train()
    names = trainer.train_dataset["query"]
    assert f"Queries of the batch: {', '.join(map(repr, names[8:12]))}." in str(raised.value)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["checkpoint-1"]


def test_a_first_step_that_fails_leaves_a_checkpoint_of_the_start(
    make_trainer: Callable[..., SentenceTransformerTrainer], tiny_bert: Path, tmp_path: Path
) -> None:
    with pytest.raises(FloatingPointError, match="loss of step 1 is not finite"):
        make_trainer(bad_row=0).train()
    saved = SentenceTransformer(str(tmp_path / "run/checkpoint-0"), device="cpu")
    assert_equal(saved.state_dict(), load(tiny_bert).state_dict())


@pytest.mark.parametrize(
    ("wrap", "loss_class"),
    [
        pytest.param(
            lambda loss: MatryoshkaLoss(loss.model, Spoilt(loss), matryoshka_dims=[32, 16]),
            MultipleNegativesRankingLoss,
            id="inside MatryoshkaLoss",
        ),
        pytest.param(
            Spoilt, lambda model: CachedMultipleNegativesRankingLoss(model, mini_batch_size=2), id="cached"
        ),
        pytest.param(lambda loss: Parts(Spoilt(loss)), MultipleNegativesRankingLoss, id="dictionary"),
    ],
)
def test_losses_of_other_kinds(
    make_trainer: Callable[..., SentenceTransformerTrainer],
    wrap: Callable[[nn.Module], nn.Module],
    loss_class: Callable[..., nn.Module],
) -> None:
    trainer = make_trainer(wrap, loss_class, lr_scheduler_type="constant")
    with pytest.raises(FloatingPointError, match=f"loss of step 3 is not finite.*'{BAD}'"):
        trainer.train()
    before = make_trainer(wrap, loss_class, lr_scheduler_type="constant", max_steps=2, name="before")
    before.train()
    assert_equal(weights(trainer), weights(before))


def test_each_of_several_losses_is_watched(
    make_trainer: Callable[..., SentenceTransformerTrainer],
) -> None:
    trainer = make_trainer()
    trainer.loss = {"pairs": trainer.loss}
    trainer.train_dataset = trainer.train_dataset.add_column("dataset_name", ["pairs"] * PAIRS)
    with pytest.raises(FloatingPointError, match="loss of step 3"):
        trainer.train()


def test_evaluation_may_be_what_it_is(make_trainer: Callable[..., SentenceTransformerTrainer]) -> None:
    trainer = make_trainer(bad_row=None, eval_strategy="steps", eval_steps=1, logging_nan_inf_filter=False)
    trainer.train()
    assert trainer.state.global_step == 4
    assert any(np.isnan(log["eval_loss"]) for log in trainer.state.log_history if "eval_loss" in log)


def test_nothing_is_left_on_the_loss(make_trainer: Callable[..., SentenceTransformerTrainer]) -> None:
    for bad_row in (None, 9):
        trainer = make_trainer(bad_row=bad_row)
        try:
            trainer.train()
        except FloatingPointError:
            assert bad_row == 9
        assert not trainer.loss._forward_hooks
        (callback,) = [
            callback
            for callback in trainer.callback_handler.callbacks
            if isinstance(callback, StopOnNonFiniteLoss)
        ]
        assert not callback.micro_batches


# ---------------------------------------------------------------- names


def test_queries_are_named_by_id_where_the_loss_has_a_pool(tiny_bert: Path) -> None:
    model = load(tiny_bert)
    features = model.tokenizer(["list files", "copy old folder"], padding=True, return_tensors="pt")
    plain = MultipleNegativesRankingLoss(model)
    pooled = MultipleNegativesRankingLoss(model)
    pooled.pool = CandidatePool(
        query_ids=["q0", "q1", "q2"],
        document_ids=["d0", "d1"],
        positives=[np.array([0])] * 3,
        candidates=np.array([[1]] * 3),
        scores=np.zeros((3, 1)),
    )
    rows = torch.tensor([[2, 0, 1], [0, 0, 1]])
    texts = ["list files", "copy old folder"]
    assert query_names(pooled, features, rows, model.tokenizer) == ["q2", "q0"]
    assert query_names(MatryoshkaLoss(model, pooled, [16]), features, rows, model.tokenizer) == ["q2", "q0"]
    assert query_names(pooled, features, rows.float(), model.tokenizer) == texts
    assert query_names(pooled, features, None, model.tokenizer) == texts
    assert query_names(plain, features, rows, model.tokenizer) == texts
    assert query_names(plain, features, rows, None) == ["unknown"]


def test_long_texts_are_cut(tiny_bert: Path) -> None:
    model = load(tiny_bert)
    features = model.tokenizer(["folder " * 20], return_tensors="pt")
    (name,) = query_names(MultipleNegativesRankingLoss(model), features, None, model.tokenizer)
    assert len(name) == 60
    assert name.startswith("folder folder")
    assert name.endswith("...")

"""Training with refreshes, at small size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from transformers import TrainerCallback

from rrra_hf import RRRAModel
from rrra_hf.candidates import CandidatePool
from rrra_hf.data import Collection
from rrra_hf.fitting import ResidualFitArguments
from rrra_hf.losses import RRRALoss
from rrra_hf.training import Refresh, Resampler

FIT = ResidualFitArguments(max_steps=4, eval_steps=2, depth=5, hidden_size=8, batch_size=16)
DEPTH = 6


class Run:
    """A training of the model, with its resampler."""

    def __init__(self, model: RRRAModel, collection: Collection, pool: CandidatePool, **settings: Any):
        self.model = model
        self.encoder = model.to_sentence_transformer()
        self.collection = collection
        self.resampler = Resampler(collection.split("train"), pool, num_negatives=2, **settings)

    def refresh(self, folder: Path, **settings: Any) -> Refresh:
        if "every_epochs" not in settings:
            settings = {"every_steps": 3, **settings}
        defaults: dict[str, Any] = {
            "development": self.collection.split("dev"),
            "arguments": FIT,
            "refit_adapter": True,
        }
        return Refresh(self.resampler, folder / "refresh", **{**defaults, **settings})

    def train(
        self, folder: Path, *callbacks: TrainerCallback, resume: str | None = None, **settings: Any
    ) -> SentenceTransformerTrainer:
        loss = settings.pop("loss", None) or RRRALoss(self.encoder)
        arguments = SentenceTransformerTrainingArguments(
            output_dir=str(folder),
            per_device_train_batch_size=8,
            learning_rate=5e-3,
            use_cpu=True,
            disable_tqdm=True,
            report_to="none",
            logging_steps=1,
            **{"num_train_epochs": 3, "batch_sampler": "no_duplicates", "save_strategy": "no", **settings},
        )
        trainer = SentenceTransformerTrainer(
            model=self.encoder,
            args=arguments,
            train_dataset=self.resampler.dataset,
            loss=loss,
            callbacks=[self.resampler, *callbacks],
        )
        trainer.train(resume_from_checkpoint=None if resume is None else str(folder / resume))
        return trainer


def losses(trainer: SentenceTransformerTrainer) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]

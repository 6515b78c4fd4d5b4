"""Training runs that one process or several do alike; `do_runs` does those of a folder.

Every process trains; the main one writes what each run logged, and a checksum of each process's weights.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
from sentence_transformers.base.sampler import DefaultBatchSampler
from sentence_transformers.sentence_transformer.training_args import SentenceTransformerTrainingArguments
from torch.utils.data import SequentialSampler
from transformers import set_seed

from rrra_hf import RRRAModel
from rrra_hf.losses import CachedRRRALoss, RRRALoss
from tiny import WORDS

LORA = {"r": 4, "target_modules": ["query", "value"], "lora_dropout": 0.0}


def make_rows(count: int) -> Dataset:
    """Rows of random words with two negatives and their weights; texts repeat here and there."""
    generator = torch.Generator().manual_seed(0)

    def texts(length: int) -> list[str]:
        drawn = torch.randint(0, len(WORDS), (count, length), generator=generator)
        return [" ".join(WORDS[word] for word in row) for row in drawn]

    return Dataset.from_dict(
        {
            "query": texts(2),
            "positive": texts(4),
            "negative_1": texts(3),
            "negative_2": texts(1),
            "scores": torch.rand(count, 2, generator=generator).tolist(),
        }
    )


def make_model(encoder: str, mode: str) -> SentenceTransformer:
    set_seed(0)
    model = RRRAModel.from_encoder(
        encoder, lora=LORA if mode == "lora" else None, adapter={"reader": {"kind": "residual"}}
    )
    with torch.no_grad():
        for parameter in model.adapter.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return model.to_sentence_transformer()


def in_order(dataset: Dataset, batch_size: int, drop_last: bool, **_: Any) -> DefaultBatchSampler:
    """Batches in the order of the rows: the processes' batches of a step make one larger batch."""
    return DefaultBatchSampler(SequentialSampler(dataset), batch_size, drop_last)


def train(settings: dict[str, Any], output_dir: Path, resume: str | None = None) -> dict[str, Any]:
    """Do one run, and return losses and gradient norms of its steps and each process's checksum."""
    processes = int(os.environ.get("WORLD_SIZE", 1))
    model = make_model(settings["encoder"], settings["mode"])
    if settings.get("checkpointing"):
        RRRAModel.from_sentence_transformer(model).gradient_checkpointing_enable({"use_reentrant": False})
    rows = make_rows(settings.get("rows", 160))
    options = settings.get("options", {})
    if options.get("source") == "adapter":
        rows = rows.remove_columns("scores")
    if options.get("targets") == "distill":
        rows = rows.map(lambda row: {"scores": [1.0, *row["scores"]]})
    make_loss = CachedRRRALoss if settings["cached"] else RRRALoss
    if settings["cached"]:
        options = {**options, "mini_batch_size": 3}
    trainer = SentenceTransformerTrainer(
        model=model,
        args=SentenceTransformerTrainingArguments(
            output_dir=str(output_dir),
            num_train_epochs=1,
            max_steps=settings.get("steps", -1),
            per_device_train_batch_size=settings["batch_size"] // processes,
            gradient_accumulation_steps=settings.get("accumulation", 1),
            learning_rate=1e-3,
            logging_steps=1,
            save_strategy="steps" if "save_steps" in settings else "no",
            save_steps=settings.get("save_steps", 500),
            batch_sampler=in_order,
            use_cpu=True,
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=rows,
        loss=make_loss(model, gather_across_devices=processes > 1, **options),
    )
    trainer.train(resume_from_checkpoint=resume)
    logs = [log for log in trainer.state.log_history if "loss" in log]
    return {
        "processes": processes,
        "losses": [log["loss"] for log in logs],
        "grad_norms": [log["grad_norm"] for log in logs],
        "checksums": gather_object([checksum(model)]),
        "sums": {name: float(weight.abs().sum()) for name, weight in model.state_dict().items()},
    }


def checksum(model: SentenceTransformer) -> str:
    digest = hashlib.sha256()
    for name, weight in sorted(model.state_dict().items()):
        digest.update(name.encode() + weight.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()


def do_runs(folder: Path) -> None:
    """Do the runs of `runs.json`, and write `results.json`."""
    results = {}
    for name, settings in json.loads((folder / "runs.json").read_text()).items():
        resume = settings.get("resume")
        results[name] = train(settings, folder / name, resume and str(folder / resume))
    if os.environ["RANK"] == "0":
        (folder / "results.json").write_text(json.dumps(results))

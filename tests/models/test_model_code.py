"""A folder carries its code, and opens where the package is not installed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoModel, AutoTokenizer

from model_folders import TEXTS, embed, run
from rrra_hf import RRRAModel


def test_folder_holds_its_code_and_needs_no_flag_here(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = json.loads((saved / "config.json").read_text())
    assert config["auto_map"] == {
        "AutoConfig": "configuration_rrra.RRRAConfig",
        "AutoModel": "modeling_rrra.RRRAModel",
    }
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked on stdin"))
    assert type(AutoModel.from_pretrained(saved)) is RRRAModel
    assert type(AutoModel.from_pretrained(saved, trust_remote_code=True)) is RRRAModel
    AutoTokenizer.from_pretrained(saved)
    SentenceTransformer(str(saved), device="cpu")


@pytest.mark.slow
def test_folder_opens_where_the_package_is_not_installed(saved: Path, tmp_path: Path) -> None:
    code = f"""
import os, sys
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_MODULES_CACHE"] = {str(tmp_path / "modules")!r}
sys.modules["rrra_hf"] = None
import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoModel
folder, texts = {str(saved)!r}, {TEXTS!r}
try:
    AutoModel.from_pretrained(folder, trust_remote_code=False)
except ValueError as error:
    assert "trust_remote_code=True" in str(error), error
else:
    raise SystemExit("loaded without trust")
transformer = SentenceTransformer(folder, device="cpu", trust_remote_code=True)
model = AutoModel.from_pretrained(folder, trust_remote_code=True)
assert type(model).__module__.startswith("transformers_modules."), type(model)
batch = model.tokenizer(texts, padding=True, return_tensors="pt")
with torch.no_grad():
    ours = model.eval()(**batch, task="query").pooler_output
torch.testing.assert_close(transformer.encode_query(texts, convert_to_tensor=True), ours, atol=1e-6, rtol=0)
model.save_pretrained({str(tmp_path / "remote")!r})
print(ours.tolist())
"""
    expected = embed(RRRAModel.from_pretrained(saved), "query")
    elsewhere = torch.tensor(json.loads(run(code)))
    for found in (elsewhere, embed(RRRAModel.from_pretrained(tmp_path / "remote"), "query")):
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)

"""How a command starts, and on which device a model runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from sentence_transformers import SentenceTransformer

from bad_input import WORDS
from command_line import rrra
from retriever_models import CORPUS, make_adapter
from rrra_hf import Retriever
from rrra_hf.cli.opening import Opening, load_model

# As the script that an installation makes.
START = """
import json, sys
sys.argv = ["rrra", *json.loads(sys.argv[1])]
from rrra_command import main
try:
    main()
finally:
    heavy = {"numpy", "torch", "transformers", "sentence_transformers", "datasets", "pyarrow", "scipy"}
    print("\\n" + json.dumps(sorted(heavy & set(sys.modules))))
"""


@pytest.mark.parametrize(
    ("arguments", "status"), [(["--help"], 0), (["search", "--help"], 0), (["search", "folder"], 2)]
)
def test_help_and_usage_errors_load_no_heavy_package(arguments: list[str], status: int) -> None:
    command = [sys.executable, "-c", START, json.dumps(arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == []


def test_other_programs_register_the_models_at_once() -> None:
    # Also one that is called like the command.
    code = """
import sys; sys.argv[0] = "rrra"
import rrra_hf, transformers; print(transformers.AutoConfig.for_model("rrra").model_type)"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "rrra\n", done.stderr


@pytest.fixture
def beside(tiny_bert: Path, tmp_path: Path) -> Path:
    retriever = Retriever.from_pretrained(tiny_bert, adapter=make_adapter(), device="cpu")
    retriever.index(CORPUS).save_pretrained(tmp_path / "retriever")
    return tmp_path / "retriever"


def test_a_model_is_put_on_the_device(tiny_bert: Path) -> None:
    # A device that every machine has, and on which nothing is computed.
    meta = Opening(device="meta")
    assert load_model(str(tiny_bert), None, meta).device.type == "meta"
    assert SentenceTransformer(str(tiny_bert), **meta.of_sentence_transformers()).device.type == "meta"


@pytest.mark.parametrize("device", ["xpu:99", "nosuch"])
def test_a_device_that_is_not_there_is_refused(beside: Path, device: str) -> None:
    for command in (["search", beside, "copy"], ["rerank", beside, "copy"]):
        failed = rrra(*command, "--device", device, stdin=" ".join(WORDS).encode())
        assert failed.status == 2
        assert f"--device must be one of this machine, got '{device}'" in failed.message

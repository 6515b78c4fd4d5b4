"""A world of folders that commands made, to be spoilt."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from transformers.utils import logging as transformers_logging

from bad_input import WORDS, succeed, write_beir


@pytest.fixture(scope="module", autouse=True)
def logging_as_before() -> Iterator[None]:
    """The command quietens transformers for its process, which here is that of all tests."""
    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    yield
    transformers_logging.set_verbosity(verbosity)
    if bars:
        transformers_logging.enable_progress_bar()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The test works in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def made(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `beir`, and what commands made of it: `pool`, `model`, `retriever`. To be copied."""
    folder = tmp_path_factory.mktemp("made")
    rng = np.random.default_rng(0)
    documents = {f"d{i}": " ".join(rng.choice(WORDS, 5, replace=False)) for i in range(20)}
    queries = {f"q{i}": " ".join(documents[f"d{i}"].split()[:2]) for i in range(20)}
    beir = write_beir(folder / "beir", documents, queries, {f"q{i}": f"d{i}" for i in range(20)})
    model = ["--model", tiny_bert]
    succeed("mine", beir, "--out", folder / "pool", *model, "--depth", 5)
    succeed("fit", beir, "--out", folder / "model", *model, "--preset", "default", "--max-steps", 4)
    succeed("index", folder / "model", beir, "--out", folder / "retriever")
    return folder


@pytest.fixture
def world(made: Path, tiny_bert: Path, here: Path) -> Path:
    """A copy of it all, with the encoder as `encoder`, in the working directory."""
    shutil.copytree(made, here, dirs_exist_ok=True)
    shutil.copytree(tiny_bert, here / "encoder")
    return here

"""Folders written by commands, for tests to damage."""

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
    """Undo the log level that the command sets for the whole process."""
    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    yield
    transformers_logging.set_verbosity(verbosity)
    if bars:
        transformers_logging.enable_progress_bar()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run the test in a temporary folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def made(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `beir` and the results of commands: `pool`, `model` and `retriever`. Tests copy it."""
    folder = tmp_path_factory.mktemp("made")
    rng = np.random.default_rng(0)
    documents = {f"d{i}": " ".join(rng.choice(WORDS, 5, replace=False)) for i in range(20)}
    queries = {f"q{i}": " ".join(documents[f"d{i}"].split()[:2]) for i in range(20)}
    beir = write_beir(folder / "beir", documents, queries, {f"q{i}": f"d{i}" for i in range(20)})
    model = ["--model", tiny_bert]
    succeed("mine", beir, "--out", folder / "pool", *model, "--depth", 5)
    succeed("fit", beir, "--out", folder / "model", *model, "--preset", "residual", "--max-steps", 4)
    succeed("index", folder / "model", beir, "--out", folder / "retriever")
    return folder


@pytest.fixture
def world(made: Path, tiny_bert: Path, here: Path) -> Path:
    """A copy of these folders and the encoder, `encoder`, in the working directory."""
    shutil.copytree(made, here, dirs_exist_ok=True)
    shutil.copytree(tiny_bert, here / "encoder")
    return here

"""Fixtures of the serving tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from rrra_hf import RRRAModel
from rrra_hf.retrieval import Retriever
from running import CORPUS, Server, Servers, started


@pytest.fixture(scope="session")
def folder(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved retriever with an adapter that changes the ranking."""
    torch.manual_seed(0)
    model = RRRAModel.from_encoder(tiny_bert, adapter={"hidden_size": 8, "lambda_": 0.5})
    with torch.no_grad():
        for parameter in model.adapter.parameters():
            parameter.add_(torch.randn_like(parameter))
    path = tmp_path_factory.mktemp("serve") / "retriever"
    Retriever(model).index(CORPUS).save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def servers(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    with started(folder, tmp_path_factory.mktemp("gate")) as running:
        yield running


@pytest.fixture(scope="session")
def server(servers: Servers) -> Server:
    return servers.small


@pytest.fixture(scope="session")
def retriever(folder: Path) -> Retriever:
    return Retriever.from_pretrained(folder, device="cpu")

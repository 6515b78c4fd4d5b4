"""Fixtures of the serving tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rrra_hf.retrieval import Retriever
from running import Server, Servers, save_retriever, started


@pytest.fixture(scope="session")
def folder(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_retriever(tiny_bert, tmp_path_factory.mktemp("serve") / "retriever")


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

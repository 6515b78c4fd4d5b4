"""Each recipe of the page on vector databases runs, and ranks as the retriever does without a database.

Chroma brings 20 packages and 200 MB, so the tests don't need it. Install it to test its recipe.
"""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from snippets import MODEL, ROOT
from tiny import word_collection

PAGE = (ROOT / "docs/how-to/vector-databases.md").read_text(encoding="utf-8")
SETUP, *SECTIONS = re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)
RECIPES = dict(zip(re.findall(r"^## (.*)$", PAGE, flags=re.MULTILINE), SECTIONS, strict=True))
PACKAGES = {
    "Qdrant": "qdrant_client",
    "Chroma": "chromadb",
    "LanceDB": "lancedb",
    "pgvector": "pgvector",
    "FAISS": "faiss",
    "LangChain": "langchain_core",
    "LlamaIndex": "llama_index.core",
}


@pytest.fixture
def setup(tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names that the beginning of the page defines, and a folder to work in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ANONYMIZED_TELEMETRY", "False")  # of Chroma
    word_collection(40, test=4).save("my-collection")
    names: dict[str, Any] = {}
    exec(SETUP.replace(MODEL, str(tiny_bert)), names)
    return names


class Postgres:
    """Answers the recipe's query with rows as psycopg returns them, sorted as the database sorts them."""

    def __init__(self, setup: dict[str, Any]):
        self.rows = list(zip(setup["ids"], setup["texts"], setup["embeddings"], strict=True))

    def execute(self, query: str, arguments: tuple[Any]) -> SimpleNamespace:
        from pgvector import Vector

        assert query == "SELECT id, text, embedding FROM docs ORDER BY embedding <=> %s LIMIT 150"
        near = arguments[0].to_numpy()
        rows = [
            (name, text, Vector(vector))
            for name, text, vector in sorted(self.rows, key=lambda row: -(row[2] @ near))
        ]
        return SimpleNamespace(fetchall=lambda: rows)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_ranks_what_the_database_finds(name: str, setup: dict[str, Any]) -> None:
    pytest.importorskip(PACKAGES[name])
    query, ids, texts = (setup[key] for key in ("query", "ids", "texts"))
    expected = setup["retriever"].rank(query, texts)
    exec(RECIPES[name], setup)
    if name == "pgvector":
        setup["best"] = setup["search"](Postgres(setup), query, setup["vector"])
    best = dict(setup["best"])
    assert list(best)[:10] == [ids[row["corpus_id"]] for row in expected[:10]]
    scores = {ids[row["corpus_id"]]: row["score"] for row in expected}
    np.testing.assert_allclose(list(best.values()), [scores[key] for key in best], atol=1e-3)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_short(name: str) -> None:
    assert len(RECIPES[name].splitlines()) <= 20

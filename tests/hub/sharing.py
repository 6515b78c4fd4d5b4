"""Models, texts and names that tests of sharing use."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from transformers import AutoModel

import rrra_hf.models
from hub_server import Blob, HubServer
from rrra_hf import RRRAModel

TEXTS = ["how do i copy files", "sort the lines of a text"]
LORA = {"r": 2, "lora_alpha": 4}
BASE = "me/tiny-bert"
MODEL = "me/model"
# The code that every model folder carries.
CODE = {path.name for path in Path(rrra_hf.models.__file__).parent.glob("*_rrra.py")}


def put(hub: HubServer, repo_id: str, folder: Path) -> str:
    """Put a folder's files into a repository, and return the commit."""
    repository = hub.repositories.get(repo_id) or hub.create(repo_id)
    paths = [path for path in folder.rglob("*") if path.is_file()]
    files = {
        path.relative_to(folder).as_posix(): Blob(path.read_bytes(), path.suffix == ".safetensors")
        for path in paths
    }
    return repository.add("main", files, f"put {folder.name}").sha


def embed(model: RRRAModel) -> torch.Tensor:
    batch = model.tokenizer(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        return model(**batch).pooler_output


def embed_with_all_loaders(name: str, **options: object) -> list[torch.Tensor]:
    models = [loader.from_pretrained(name, **options).eval() for loader in (RRRAModel, AutoModel)]
    transformer = SentenceTransformer(name, device="cpu", **options)
    return [*map(embed, models), transformer.encode(TEXTS, convert_to_tensor=True)]


def cached(tmp_path: Path, pattern: str) -> list[Path]:
    return list((tmp_path / "cache").rglob(pattern))


def other_bytes(content: bytes) -> bytes:
    """Return content of the same size, of which the last byte differs."""
    return content[:-1] + bytes([content[-1] ^ 255])


def spoil(folder: Path) -> None:
    """Change one weight of an encoder."""
    weights = load_file(folder / "model.safetensors")
    weights["embeddings.word_embeddings.weight"][0, 0] += 1
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

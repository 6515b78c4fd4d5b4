"""What the fuzzer attacks: for each format, files that are written once, and how they are read."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from sentence_transformers import SentenceTransformer

from command_line import rrra
from rrra_hf import AdapterConfig, CandidatePool, Retriever, RetrieverAdapter, RRRAModel
from rrra_hf.candidates import mine_embeddings
from rrra_hf.candidates.unfinished import UnfinishedPool
from rrra_hf.data import Collection, load_collection
from rrra_hf.embeddings import encode, read_npy, read_parquet
from rrra_hf.indexes import ApproximateIndex, BinaryIndex, FlatIndex, WordIndex, load_index
from rrra_hf.models.files_rrra import write_json
from rrra_hf.training.run_folder import RunFolder
from tiny import word_collection


class Format(NamedTuple):
    """Files of one format.

    Args:
        make: Writes them to a folder.
        read: Reads them, and returns all that they hold.
        inputs: Number of damaged inputs in CI.
        exact: Whether damage that isn't refused must make no difference; otherwise, the files may say
            something else, such as another text, and `read` checks that what they say makes sense.
        repairs: Whether `read` may write to the folder, because it makes anew what is damaged.
    """

    make: Callable[[Path, Path], None]
    read: Callable[[Path], Any]
    inputs: int
    exact: bool = True
    repairs: bool = False


def vectors(count: int, dim: int = 8, seed: int = 0) -> np.ndarray:
    drawn = np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


# -------------------------------------------------------------------- data files


def collection() -> Collection:
    made = word_collection(12, train=6, dev=3)
    return Collection(
        made.name, made.corpus, made.queries, made.qrels_by_split, {"d0": ["d1", "d2"], "d3": ["d0"]}
    )


def parts(loaded: Collection) -> Any:
    """Return what a collection holds, after checking that it is consistent and survives being saved."""
    assert all(text.strip() for text in [*loaded.document_texts, *loaded.query_texts])
    assert len(set(loaded.document_ids)) == len(loaded.document_ids)
    for qrels in loaded.qrels_by_split.values():
        assert qrels.keys() <= set(loaded.query_ids)
        assert all(grades.keys() <= set(loaded.document_ids) for grades in qrels.values())
    return [
        *(loaded.document_ids, loaded.document_texts, loaded.query_ids, loaded.query_texts),
        *(loaded.qrels_by_split, loaded.siblings),
    ]


def read_collection(source: Path, **options: Any) -> Any:
    try:
        found = parts(load_collection(source, **options))
    except (ValueError, OSError):
        # Skipping records may leave too little, but is no harder.
        with suppress(ValueError, OSError):
            parts(load_collection(source, skip_bad=True, **options))
        raise
    assert parts(load_collection(source, skip_bad=True, **options)) == found
    return found


def make_table(suffix: str) -> Callable[[Path, Path], None]:
    def make(folder: Path, model: Path) -> None:
        documents = pa.table({"id": [f"d{i}" for i in range(9)], "text": [f"a{i} b" for i in range(9)]})
        pairs = pa.table(
            {"query": ["a", "b", "c"], "document_id": ["d1", "d2", "d3"], "split": ["train"] * 3}
        )
        for name, table in (("corpus", documents), ("pairs", pairs)):
            path = folder / f"{name}.{suffix}"
            if suffix == "parquet":
                pq.write_table(table, path)
                continue
            separator = "\t" if suffix == "tsv" else ","
            rows = [
                separator.join(table.column_names),
                *map(separator.join, zip(*table.to_pydict().values(), strict=True)),
            ]
            path.write_text("\n".join(rows) + "\n")

    return make


def read_table(suffix: str) -> Callable[[Path], Any]:
    return lambda folder: read_collection(folder / f"corpus.{suffix}", pairs=folder / f"pairs.{suffix}")


def make_vectors(folder: Path, model: Path) -> None:
    np.save(folder / "vectors.npy", vectors(9))
    table = pa.table({"id": [f"d{i}" for i in range(9)], "embedding": list(vectors(9))})
    pq.write_table(table, folder / "vectors.parquet")


def read_vectors(folder: Path) -> Any:
    for found in (read_npy(folder / "vectors.npy"), read_parquet(folder / "vectors.parquet")):
        assert np.isfinite(np.asarray(found.embeddings, dtype=np.float32)).all()
        assert len(set(found.ids)) == len(found.embeddings)
    return None


# -------------------------------------------------------------------- what the package writes


TEXTS = ["copy files", "sort text", "find the folder"]


class Cache:
    """The cache of embeddings of three texts."""

    encoder: SentenceTransformer

    def make(self, folder: Path, model: Path) -> None:
        self.encoder = SentenceTransformer(str(model), device="cpu")
        self.read(folder)

    def read(self, folder: Path) -> Any:
        return encode(self.encoder, TEXTS, task="document", cache_dir=folder)


def mine(folder: Path) -> CandidatePool:
    positives = [[row] for row in range(8)]
    return mine_embeddings(
        vectors(8, seed=1), vectors(40), positives, depth=5, block_size=3, folder=folder / "pool"
    )


def make_pool(folder: Path, model: Path) -> None:
    mine(folder)


def pool_fields(pool: CandidatePool) -> Any:
    """Return what a pool holds, without empty places at the end, and without what it is compared with."""
    filled = (pool.candidates >= 0).any(axis=0)
    return [
        *(pool.query_ids, pool.document_ids, pool.positives, pool.probability),
        *(pool.candidates[:, filled], pool.scores[:, filled]),
    ]


def make_unfinished(folder: Path, model: Path) -> None:
    """Leave a pool whose blocks are all mined, and which a killed process did not finish."""
    finish = UnfinishedPool.finish

    def stop(self: UnfinishedPool, search: Any, make: Any) -> Any:
        for block in self.blocks:
            self.mine(search, block)
        raise InterruptedError

    UnfinishedPool.finish = stop  # type: ignore[method-assign]
    try:
        with suppress(InterruptedError):
            mine(folder)
    finally:
        UnfinishedPool.finish = finish  # type: ignore[method-assign]


def search(index: Any) -> Any:
    return list(index.search(vectors(4, seed=2), 5))


def make_flat(folder: Path, model: Path) -> None:
    index = FlatIndex(8)
    index.add(vectors(30))
    index.save(folder / "vectors.faiss")


def read_flat(folder: Path) -> Any:
    found = search(FlatIndex.load(folder / "vectors.faiss"))
    assert all(np.isfinite(scores).all() for scores in found)


def make_approximate(folder: Path, model: Path) -> None:
    index = ApproximateIndex(8, "hnsw", count=50)
    index.add(vectors(50))
    index.save(folder)


def make_patched(folder: Path, model: Path) -> None:
    index = ApproximateIndex(8, "hnsw", count=50)
    index.add(vectors(50))
    index.updated(np.arange(2, 50), vectors(3)).save(folder)


def make_quantized(folder: Path, model: Path) -> None:
    index = BinaryIndex(8)
    index.add(vectors(50))
    index.save(folder)


def make_words(folder: Path, model: Path) -> None:
    WordIndex.of(word_collection(12, train=6).document_texts).save(folder / "words")


def read_words(folder: Path) -> Any:
    index = WordIndex.load(folder / "words")
    return list(index.search(index.count(TEXTS), 4))


def make_adapter(folder: Path, model: Path) -> None:
    RetrieverAdapter(AdapterConfig(embedding_dim=8, reader={"kind": "residual"})).save_pretrained(folder)


def read_adapter(folder: Path) -> Any:
    adapter = RetrieverAdapter.from_pretrained(folder)
    adapter.probability(vectors(2), vectors(6).reshape(2, 3, 8))


def make_model(folder: Path, model: Path) -> None:
    RRRAModel.from_encoder(str(model)).save_pretrained(folder)


def make_plain(folder: Path, model: Path) -> None:
    maps = {"query_map": True, "document_map": True}
    RRRAModel.from_encoder(str(model), adapter=maps).save_pretrained(folder, form="plain")


def read_model(folder: Path) -> Any:
    RRRAModel.from_pretrained(folder).to_sentence_transformer().encode(TEXTS[:1])


def read_plain(folder: Path) -> Any:
    read_model(folder)
    Retriever.from_pretrained(folder, device="cpu").index(TEXTS, show_progress_bar=False)


def make_retriever(folder: Path, model: Path) -> None:
    documents = {f"d{i}": text for i, text in enumerate(word_collection(12, train=1).document_texts)}
    Retriever(RRRAModel.from_encoder(str(model))).index(documents).save_pretrained(folder)


def read_retriever(folder: Path) -> Any:
    retriever = Retriever.from_pretrained(folder)
    return retriever.search(TEXTS, 3, show_progress_bar=False)


def make_run(folder: Path, model: Path) -> None:
    RunFolder(folder, {"arguments": {"seed": 0, "fit": {"tau": 0.05}}, "collection": "0123", "processes": 1})


# -------------------------------------------------------------------- commands and the service


def run_command(folder: Path, *arguments: object) -> str:
    """Run a command that ends well, or with one line and without an output folder; return its output."""
    os.chdir(folder)
    outcome = rrra(*arguments)
    assert "Traceback" not in outcome.err, outcome.err
    if outcome.status == 0:
        return outcome.out
    assert outcome.status == 1 and outcome.out == ""
    errors = outcome.err[outcome.err.index("error: ") :]
    assert len(errors.splitlines()) == 1 and len(errors) < 2000, errors
    assert not Path("out").exists() and not list(Path().glob(".*"))
    raise ValueError(errors)


def make_mined(folder: Path, model: Path) -> None:
    collection().save(folder / "beir")
    shutil.copytree(model, folder / "encoder")


def read_mined(folder: Path) -> Any:
    run_command(folder, "mine", "beir", "--model", "encoder", "--depth", 3, "--out", "out")
    CandidatePool.load(folder / "out")
    shutil.rmtree(folder / "out")


def make_searched(folder: Path, model: Path) -> None:
    make_retriever(folder / "retriever", model)


def read_searched(folder: Path) -> Any:
    return run_command(folder, "search", "retriever", "sort text", "--json")


class Service:
    """Bodies of requests to a service."""

    def make(self, folder: Path, model: Path) -> None:
        from fastapi.testclient import TestClient

        from rrra_hf.serving import create_app

        documents = {f"d{i}": text for i, text in enumerate(word_collection(12, train=1).document_texts)}
        app = create_app(Retriever(RRRAModel.from_encoder(str(model))).index(documents))
        self.client = TestClient(app, base_url="http://localhost", raise_server_exceptions=False)
        self.client.__enter__()
        write_json(folder / "search.json", {"queries": ["sort text", "copy"], "top_k": 3, "rerank": True})
        write_json(folder / "rank.json", {"query": "sort", "documents": ["sort text", "copy"], "top_k": 2})
        rerank = {
            "query": "sort",
            "documents": ["copy", {"text": "sort"}],
            "top_n": 2,
            "return_documents": True,
        }
        write_json(folder / "v1/rerank.json", rerank)
        embeddings = {"input": ["sort", "copy"], "input_type": "query", "dimensions": 4, "model": "any"}
        write_json(folder / "v1/embeddings.json", embeddings)

    def read(self, folder: Path) -> Any:
        answers = []
        for name in ("search", "rank", "v1/rerank", "v1/embeddings"):
            answer = self.client.post(
                f"/{name}",
                content=(folder / f"{name}.json").read_bytes(),
                headers={"Content-Type": "application/json"},
            )
            assert answer.status_code in (200, 400, 413, 422), (answer.status_code, answer.text)
            assert answer.status_code == 200 or len(answer.content) < 2000, answer.text
            answers.append(answer)
        if any(answer.status_code != 200 for answer in answers):
            raise ValueError("refused")


SERVICE = Service()
CACHE = Cache()
FORMATS = {
    "beir": Format(lambda folder, model: collection().save(folder), read_collection, 250, exact=False),
    "csv": Format(make_table("csv"), read_table("csv"), 150, exact=False),
    "tsv": Format(make_table("tsv"), read_table("tsv"), 100, exact=False),
    "parquet": Format(make_table("parquet"), read_table("parquet"), 150, exact=False),
    "vectors": Format(make_vectors, read_vectors, 150, exact=False),
    "cache": Format(CACHE.make, CACHE.read, 120, repairs=True),
    "pool": Format(make_pool, lambda folder: pool_fields(CandidatePool.load(folder / "pool")), 200),
    "unfinished pool": Format(make_unfinished, lambda folder: pool_fields(mine(folder)), 120, repairs=True),
    "flat index": Format(make_flat, read_flat, 120, exact=False),
    "approximate index": Format(make_approximate, lambda folder: search(ApproximateIndex.load(folder)), 150),
    "patched index": Format(make_patched, lambda folder: search(load_index(folder)), 120),
    "quantised index": Format(make_quantized, lambda folder: search(load_index(folder)), 120),
    "words": Format(make_words, read_words, 120),
    "adapter": Format(make_adapter, read_adapter, 150, exact=False),
    "model": Format(make_model, read_model, 100, exact=False),
    "plain model": Format(make_plain, read_plain, 60, exact=False),
    "retriever": Format(make_retriever, read_retriever, 150),
    "mine": Format(make_mined, read_mined, 60, exact=False),
    "search": Format(make_searched, read_searched, 60),
    "service": Format(SERVICE.make, SERVICE.read, 150, exact=False),
    "run": Format(make_run, lambda folder: make_run(folder, folder), 60),
}

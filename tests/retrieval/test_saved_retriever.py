"""A saved retriever searches as before, and what does not belong together is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoModel

from alike import assert_alike
from forgery import forge
from retriever_models import CORPUS, make_adapter
from retrievers import QUERIES, TEXTS, make_model
from rrra_hf import RetrieverAdapter, RRRAModel
from rrra_hf.embeddings import encode
from rrra_hf.retrieval import Retriever
from rrra_hf.retrieval.documents import document_table


def test_saved_retriever_searches_as_before(retriever: Retriever, tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "model"
    expected = retriever.search(QUERIES, probabilities=True)
    retriever.save_pretrained(folder)
    loaded = Retriever.from_pretrained(folder, device="cpu")
    assert_alike(loaded.search(QUERIES, probabilities=True), expected)
    assert loaded.documents == retriever.documents
    assert loaded.document("cp") == {"id": "cp", **CORPUS["cp"]}
    assert [path.name for path in folder.parent.iterdir()] == ["model"]
    # and again, over the folder it came from
    loaded.save_pretrained(folder)
    assert_alike(
        Retriever.from_pretrained(folder, device="cpu").search(QUERIES, probabilities=True), expected
    )


def test_saved_folder_opens_with_every_loader(retriever: Retriever, tmp_path: Path) -> None:
    retriever.save_pretrained(tmp_path / "model")
    expected = encode(retriever.encoder, QUERIES, task="query")
    opened = SentenceTransformer(str(tmp_path / "model"), device="cpu")
    assert_alike(encode(opened, QUERIES, task="query"), expected)
    for load in (RRRAModel.from_pretrained, AutoModel.from_pretrained):
        model = load(tmp_path / "model")
        assert_alike(encode(model.to_sentence_transformer(), QUERIES, task="query"), expected)
        assert model.adapter.config.lambda_ == 0.5


def test_adapter_of_another_encoder_is_kept_beside_it(encoder: SentenceTransformer, tmp_path: Path) -> None:
    retriever = Retriever(encoder, make_adapter(lambda_=0.5)).index(CORPUS)
    retriever.save_pretrained(tmp_path / "model")
    loaded = Retriever.from_pretrained(tmp_path / "model", device="cpu")
    assert_alike(loaded.search(QUERIES), retriever.search(QUERIES))
    RetrieverAdapter.from_pretrained(tmp_path / "model" / "adapter")
    # Saved without it, the folder no longer has it.
    Retriever(encoder, adapter=None).save_pretrained(tmp_path / "model")
    assert not (tmp_path / "model" / "adapter").exists()
    plain = Retriever.from_pretrained(tmp_path / "model", device="cpu")
    with pytest.raises(ValueError, match="no index yet"):
        plain.search("find files")


def test_saving_over_a_model_leaves_nothing_of_it(
    tiny_bert: Path, retriever: Retriever, tmp_path: Path
) -> None:
    make_model(tiny_bert, seed=1).save_pretrained(tmp_path / "model", max_shard_size="20KB")
    (tmp_path / "model" / "README.md").write_text("mine")
    retriever.save_pretrained(tmp_path / "model")
    assert [path.name for path in (tmp_path / "model").glob("*.safetensors*")] == ["model.safetensors"]
    assert (tmp_path / "model" / "README.md").read_text() == "mine"
    found = Retriever.from_pretrained(tmp_path / "model", device="cpu").search(QUERIES)
    assert found == retriever.search(QUERIES)


def test_any_encoder_opens_without_an_index(tiny_bert: Path) -> None:
    retriever = Retriever.from_pretrained(tiny_bert, device="cpu")
    assert retriever.encoder.device.type == "cpu"
    assert len(retriever.rank("find files", TEXTS)) == len(TEXTS)
    with pytest.raises(ValueError, match="no index yet"):
        retriever.search("find files")


def test_unknown_model_is_refused(tmp_path: Path) -> None:
    for name in ("rrra-hf-tests/no-such-model", tmp_path / "no-such-model"):
        with pytest.raises(OSError, match=r"Can't load a model named .*no-such-model"):
            Retriever.from_pretrained(name)


@pytest.mark.parametrize("name", ["model.safetensors", "adapter/model.safetensors"])
def test_truncated_weights_are_refused(encoder: SentenceTransformer, tmp_path: Path, name: str) -> None:
    Retriever(encoder, make_adapter()).save_pretrained(tmp_path / "model")
    path = tmp_path / "model" / name
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"model.* damaged"):
        Retriever.from_pretrained(tmp_path / "model", device="cpu")


def test_index_of_another_model_is_refused(retriever: Retriever, tiny_bert: Path, tmp_path: Path) -> None:
    retriever.save_pretrained(tmp_path / "model")
    mine = retriever.corpus_index.encoder
    other = RRRAModel.from_encoder(tiny_bert)
    with torch.no_grad():
        next(other.encoder.parameters()).mul_(1.01)
    other.save_pretrained(tmp_path / "model")
    theirs = Retriever(other).index(["a"]).corpus_index.encoder
    with pytest.raises(
        ValueError, match=rf"index was made by another model \(fingerprint {mine}, .*{theirs}\).*again"
    ):
        Retriever.from_pretrained(tmp_path / "model", device="cpu")


def test_index_made_with_another_document_map_is_refused(
    encoder: SentenceTransformer, tmp_path: Path
) -> None:
    retriever = Retriever(encoder, make_adapter(document_map=True)).index(CORPUS)
    retriever.save_pretrained(tmp_path / "model")
    make_adapter(1, document_map=True).save_pretrained(tmp_path / "model" / "adapter")
    with pytest.raises(ValueError, match="made by another model"):
        Retriever.from_pretrained(tmp_path / "model", device="cpu")


def test_new_adapter_weights_do_not_make_an_index_stale(
    retriever: Retriever, tiny_bert: Path, tmp_path: Path
) -> None:
    retriever.save_pretrained(tmp_path / "model")
    make_model(tiny_bert, seed=1, lambda_=0.5).save_pretrained(tmp_path / "model")
    loaded = Retriever.from_pretrained(tmp_path / "model", device="cpu")
    assert_alike(loaded.search(QUERIES, rerank=False), retriever.search(QUERIES, rerank=False))
    assert loaded.search(QUERIES) != retriever.search(QUERIES)


def test_prompts_set_by_hand_are_kept(tiny_bert: Path, tmp_path: Path) -> None:
    encoder = SentenceTransformer(str(tiny_bert), device="cpu", prompts={"query": "find the "})
    retriever = Retriever(encoder).index(CORPUS)
    retriever.save_pretrained(tmp_path / "model")
    loaded = Retriever.from_pretrained(tmp_path / "model", device="cpu")
    assert_alike(loaded.search(QUERIES), retriever.search(QUERIES))
    assert loaded.search(QUERIES) != Retriever.from_pretrained(tiny_bert).index(CORPUS).search(QUERIES)


def test_merged_weights_keep_the_encoders_settings_and_have_no_index(tiny_bert: Path, tmp_path: Path) -> None:
    model = RRRAModel.from_encoder(tiny_bert, lora={"r": 2})
    encoder = model.to_sentence_transformer()
    encoder.prompts, encoder.similarity_fn_name = {"query": "find ", "document": ""}, "dot"
    retriever = Retriever(encoder).index(CORPUS)
    with pytest.raises(ValueError, match="with_index can't go with form='merged'"):
        retriever.save_pretrained(tmp_path / "merged", form="merged")
    retriever.save_pretrained(tmp_path / "merged", form="merged", with_index=False)
    merged = SentenceTransformer(str(tmp_path / "merged"), device="cpu")
    assert (merged.prompts["query"], merged.similarity_fn_name) == ("find ", "dot")
    assert RRRAModel.from_pretrained(tmp_path / "merged").config.lora is None
    assert model.config.lora is not None
    assert not (tmp_path / "merged/index").exists()
    with pytest.raises(ValueError, match="must hold an RRRAModel"):
        Retriever.from_pretrained(tiny_bert, device="cpu").save_pretrained(tmp_path / "x", form="lora")


def test_stale_index_is_not_saved(tiny_bert: Path, tmp_path: Path) -> None:
    retriever = Retriever.from_pretrained(tiny_bert, device="cpu").index(CORPUS)
    with torch.no_grad():
        next(retriever.encoder.parameters()).mul_(1.01)
    with pytest.raises(ValueError, match="changed after the corpus was indexed"):
        retriever.save_pretrained(tmp_path / "model")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["vectors.faiss", "documents.parquet", "meta.json"])
@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_damaged_index_is_refused(retriever: Retriever, tmp_path: Path, name: str, damage: str) -> None:
    retriever.save_pretrained(tmp_path / "model")
    path = tmp_path / "model" / "index" / name
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=rf"{name} is (missing|damaged)"):
        Retriever.from_pretrained(tmp_path / "model", device="cpu")


def test_files_of_different_indexes_are_refused(
    encoder: SentenceTransformer, retriever: Retriever, tmp_path: Path
) -> None:
    retriever.save_pretrained(tmp_path / "model")
    folder = tmp_path / "model" / "index"
    vectors, documents = (folder / "vectors.faiss").read_bytes(), (folder / "documents.parquet").read_bytes()
    forge(folder / "meta.json")
    Retriever(encoder).index(TEXTS[:2]).corpus_index.index.save(folder / "vectors.faiss")
    with pytest.raises(ValueError, match=r"vectors\.faiss holds 2 embeddings of dimension 32, not 6 of 32"):
        Retriever.from_pretrained(tmp_path / "model", device="cpu")
    (folder / "vectors.faiss").write_bytes(vectors)
    pq.write_table(document_table(TEXTS[::-1]), folder / "documents.parquet")
    with pytest.raises(ValueError, match=r"documents\.parquet holds other documents than were indexed"):
        Retriever.from_pretrained(tmp_path / "model", device="cpu")
    pq.write_table(pa.table({"id": ["a"]}), folder / "documents.parquet")
    with pytest.raises(
        ValueError, match=r"documents\.parquet is damaged: its column 'title' must be of type string"
    ):
        Retriever.from_pretrained(tmp_path / "model", device="cpu")
    (folder / "documents.parquet").write_bytes(documents)
    meta = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps({**meta, "format_version": 1}))
    with pytest.raises(ValueError, match=r"meta\.json .* format version 1, this package reads 2 or 3 or 4"):
        Retriever.from_pretrained(tmp_path / "model", device="cpu")


def test_failed_save_leaves_everything_as_it_was(
    retriever: Retriever, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    retriever.save_pretrained(tmp_path / "old")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def fail(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("rrra_hf.retrieval.corpus_index.pq.write_table", fail)
    for name in ("old", "new"):
        with pytest.raises(OSError, match="no space left"):
            retriever.save_pretrained(tmp_path / name)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


def test_file_in_place_of_the_folder_is_refused(retriever: Retriever, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(NotADirectoryError, match="is a file"):
        retriever.save_pretrained(tmp_path / "file")


@pytest.mark.parametrize("options", [{}, {"kind": "hnsw"}, {"storage": "binary"}])
def test_files_of_others_in_a_retrievers_folder_are_kept(
    encoder: SentenceTransformer, tmp_path: Path, options: dict[str, str]
) -> None:
    retriever = Retriever(encoder).index(TEXTS, **options)
    folder = tmp_path / "saved"
    retriever.save_pretrained(folder)
    theirs = ["model_backup.safetensors", "models.safetensors.txt", "2_Normalize/a.txt", "1_Router/a.txt"]
    theirs += [
        "adapter/notes.txt",
        "index/notes.txt",
        "index/words/mine.npy",
        ".git/config",
        "3_Router/a_Dense/b",
    ]
    for name in theirs:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    before = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    retriever.save_pretrained(folder)
    for name in theirs:
        assert (folder / name).read_text() == name
    after = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    # The subfolder of an index that is a folder has a new name.
    assert len(after) == len(before) and (options or after == before)
    assert len(Retriever.from_pretrained(folder, device="cpu").documents) == len(TEXTS)

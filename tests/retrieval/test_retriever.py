"""Search equals brute force, reranking reorders as told, and a saved folder opens as it was or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from datasets import Dataset
from numpy.testing import assert_allclose, assert_array_equal
from sentence_transformers import SentenceTransformer, util
from sentence_transformers.sentence_transformer.modules import BoW
from transformers import AutoModel

from retriever_models import CORPUS, make_adapter
from rrra_hf import AdapterConfig, RetrieverAdapter, RRRAModel
from rrra_hf.data import Collection
from rrra_hf.embeddings import encode
from rrra_hf.indexes import ApproximateIndex, FlatIndex
from rrra_hf.retrieval import Retriever, evaluate
from rrra_hf.retrieval.documents import document_table, document_texts

QUERIES = ["how do i copy files", "sort text", "find the old folder"]
TEXTS = [d if isinstance(d, str) else f"{d['title']} {d['text']}" for d in CORPUS.values()]


def make_model(tiny_bert: Path, seed: int = 0, **config: object) -> RRRAModel:
    settings = {"hidden_size": 8, **config}
    model = RRRAModel.from_encoder(tiny_bert, adapter=settings, query_prompt="how ")
    model.adapter.load_state_dict(make_adapter(seed, **config).state_dict())
    return model


def vocabulary_encoder() -> SentenceTransformer:
    """Return an encoder whose embeddings can be computed by hand: one dimension a word."""
    return SentenceTransformer(modules=[BoW(vocab=["copy", "file", "sort", "list"])], device="cpu")


def opposing_adapter(lambda_: float) -> RetrieverAdapter:
    """Return an adapter whose logit is `-cos(q, a)`, and `a = c`."""
    adapter = RetrieverAdapter(AdapterConfig(embedding_dim=4, hidden_size=2, tau=1.0, lambda_=lambda_))
    with torch.no_grad():
        adapter.readout.weight.copy_(torch.tensor([[-1.0, 0.0, 0.0]]))
    return adapter


def ids(hits: list) -> list:
    return [hit["corpus_id"] for hit in hits]


def scores(hits: list) -> list[float]:
    return [hit["score"] for hit in hits]


@pytest.fixture(scope="module")
def encoder(tiny_bert: Path) -> SentenceTransformer:
    return SentenceTransformer(str(tiny_bert), device="cpu")


@pytest.fixture(scope="module")
def retriever(tiny_bert: Path) -> Retriever:
    return Retriever(make_model(tiny_bert, lambda_=0.5)).index(CORPUS)


# -------------------------------------------------------------------- searching


def test_search_equals_brute_force(encoder: SentenceTransformer) -> None:
    found = Retriever(encoder).index(CORPUS).search(QUERIES, top_k=4)
    cosines = encode(encoder, QUERIES, task="query") @ encode(encoder, TEXTS, task="document").T
    best = np.argsort(-cosines, axis=1, kind="stable")[:, :4]
    assert [ids(hits) for hits in found] == [[list(CORPUS)[row] for row in rows] for rows in best]
    assert_allclose([scores(hits) for hits in found], np.take_along_axis(cosines, best, axis=1), atol=1e-6)


def test_search_returns_what_semantic_search_does(encoder: SentenceTransformer) -> None:
    found = Retriever(encoder).index(TEXTS).search(QUERIES, top_k=3)
    expected = util.semantic_search(encoder.encode_query(QUERIES), encoder.encode_document(TEXTS), top_k=3)
    assert [[list(hit) for hit in hits] for hits in found] == [[["corpus_id", "score"]] * 3] * 3
    assert [list(map(int, ids(hits))) for hits in found] == [ids(hits) for hits in expected]
    assert_allclose([scores(h) for h in found], [scores(h) for h in expected], atol=1e-6)
    assert type(found[0][0]["score"]) is float


def test_one_query_is_a_list_of_one_and_a_dictionary_keeps_its_ids(retriever: Retriever) -> None:
    many = retriever.search(QUERIES)
    assert ids(retriever.search(QUERIES[1])[0]) == ids(many[1])
    assert len(retriever.search(QUERIES[1])) == 1
    named = retriever.search({f"q{i}": query for i, query in enumerate(QUERIES)})
    assert list(named) == ["q0", "q1", "q2"]
    assert [ids(hits) for hits in named.values()] == [ids(hits) for hits in many]
    assert retriever.search([]) == []
    assert retriever.search({}) == {}


def test_top_k_beyond_the_corpus_gives_every_document(retriever: Retriever) -> None:
    for rerank in (False, True):
        hits = retriever.search(QUERIES[0], top_k=1000, depth=1000, rerank=rerank)[0]
        assert sorted(ids(hits)) == sorted(CORPUS)
    single = Retriever(retriever.encoder).index({"only": "find files"})
    assert ids(single.search(QUERIES[0], top_k=10)[0]) == ["only"]


def test_long_text_is_indexed_searched_and_ranked(retriever: Retriever) -> None:
    text = ("sort the lines " * 7000)[:100_000]
    assert len(text) == 100_000
    assert len(retriever.rank(text, [text, "find files"])) == 2
    retriever = Retriever(retriever.encoder).index({"long": text, "short": "find files"})
    assert set(ids(retriever.search(text)[0])) == {"long", "short"}
    assert retriever.document("long")["text"] == text


def test_index_replaces_the_one_before(encoder: SentenceTransformer) -> None:
    retriever = Retriever(encoder).index(CORPUS)
    retriever.index(["find files"])
    assert ids(retriever.search(QUERIES[0])[0]) == ["0"]
    assert retriever.documents.num_rows == 1


@pytest.mark.parametrize("document_map", [False, True])
@pytest.mark.parametrize("kind", ["hnsw", "ivf-flat"])
def test_approximate_index_finds_scores_and_loads_as_the_exact_one(
    encoder: SentenceTransformer, tmp_path: Path, kind: str, document_map: bool
) -> None:
    """Among so few documents it looks at all candidates, so nothing is missed."""
    adapter = make_adapter(lambda_=0.5, document_map=document_map)
    exact = Retriever(encoder, adapter).index(CORPUS, kind="flat")
    built = Retriever(encoder, adapter).index(CORPUS, kind=kind)
    assert isinstance(built.corpus_index.index, ApproximateIndex)
    built.save_pretrained(tmp_path / "model")
    loaded = Retriever.from_pretrained(tmp_path / "model", device="cpu")
    assert isinstance(loaded.corpus_index.index, ApproximateIndex)
    assert loaded.corpus_index.index.kind == kind
    loaded.save_pretrained(tmp_path / "model")  # over the files that it has mapped
    again = Retriever.from_pretrained(tmp_path / "model", device="cpu")
    for options in ({}, {"rerank": False}, {"top_k": 3, "probabilities": True}):
        expected = exact.search(QUERIES, **options)
        for retriever in (built, loaded, again):
            found = retriever.search(QUERIES, **options)
            assert [ids(hits) for hits in found] == [ids(hits) for hits in expected]
            assert_allclose([scores(h) for h in found], [scores(h) for h in expected], rtol=1e-5, atol=1e-5)


def test_kind_of_index_depends_on_the_number_of_documents(
    encoder: SentenceTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(Retriever(encoder).index(CORPUS).corpus_index.index, FlatIndex)
    monkeypatch.setattr("rrra_hf.indexes.choose.RULES", [(5, "flat", "few"), (None, "hnsw", "many")])
    assert isinstance(Retriever(encoder).index(CORPUS).corpus_index.index, ApproximateIndex)
    with pytest.raises(ValueError, match=r"kind must be one of auto, flat, hnsw, .*, got 'tree'"):
        Retriever(encoder).index(CORPUS, kind="tree")


@pytest.mark.parametrize("name", ["candidates.faiss", "embeddings.arrow", "current.json"])
def test_damaged_approximate_index_is_refused(
    encoder: SentenceTransformer, tmp_path: Path, name: str
) -> None:
    Retriever(encoder).index(CORPUS, kind="hnsw").save_pretrained(tmp_path / "model")
    (path,) = (tmp_path / "model" / "index").rglob(name)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match="damaged"):
        Retriever.from_pretrained(tmp_path / "model", device="cpu")


def test_search_works_across_blocks(retriever: Retriever, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = retriever.search(QUERIES, probabilities=True)
    monkeypatch.setattr("rrra_hf.retrieval.retriever.BLOCK_SIZE", 2)
    for pairs in (1, 4, 7):
        monkeypatch.setattr("rrra_hf.retrieval.reranking.PAIRS", pairs)
        found = Retriever(retriever.encoder).index(CORPUS).search(QUERIES, probabilities=True)
        assert [ids(hits) for hits in found] == [ids(hits) for hits in expected]
        for key in ("score", "probability"):
            assert_allclose(
                [[hit[key] for hit in hits] for hits in found],
                [[hit[key] for hit in hits] for hits in expected],
                rtol=1e-5,
                atol=1e-5,
            )


# -------------------------------------------------------------------- reranking


def test_adapter_reorders_the_first_depth_and_leaves_the_rest() -> None:
    # Cosines with "copy file": 1, 1/sqrt(2), 1/2, 0.
    corpus = {"a": "copy file", "b": "copy", "c": "copy sort", "d": "list"}
    cosines = [1.0, 0.5**0.5, 0.5, 0.0]
    retriever = Retriever(vocabulary_encoder(), opposing_adapter(lambda_=3.0)).index(corpus)
    assert ids(retriever.search("copy file", rerank=False)[0]) == ["a", "b", "c", "d"]
    # The score is cos + 3 * -cos.
    hits = retriever.search("copy file")[0]
    assert ids(hits) == ["d", "c", "b", "a"]
    assert_allclose(scores(hits), [-2 * cosine for cosine in cosines[::-1]], atol=1e-6)
    # What is below top_k is reranked too.
    assert ids(retriever.search("copy file", top_k=1, depth=3)[0]) == ["c"]
    hits = retriever.search("copy file", depth=2)[0]
    assert ids(hits) == ["b", "a", "c", "d"]
    assert_allclose(scores(hits), [-2 * cosines[1], -2 * cosines[0], *cosines[2:]], atol=1e-6)


def test_probability_is_the_sigmoid_of_the_logit() -> None:
    retriever = Retriever(vocabulary_encoder(), opposing_adapter(lambda_=3.0)).index(["copy file", "copy"])
    for rerank in (False, True):
        hits = retriever.search("copy file", rerank=rerank, probabilities=True)[0]
        found = {hit["corpus_id"]: hit["probability"] for hit in hits}
        assert found == pytest.approx({"0": 1 / (1 + np.exp(1)), "1": 1 / (1 + np.exp(0.5**0.5))})


@pytest.mark.parametrize("scoring", ["log_odds", "product"])
def test_lambda_of_zero_keeps_the_ranking(tiny_bert: Path, scoring: str) -> None:
    corpus = TEXTS + TEXTS[::-1]  # with ties
    retriever = Retriever(make_model(tiny_bert, scoring=scoring)).index(corpus)
    for found, expected in zip(
        retriever.search(QUERIES, top_k=12), retriever.search(QUERIES, top_k=12, rerank=False), strict=True
    ):
        assert ids(found) == ids(expected)


def test_untrained_adapter_changes_no_ranking(tiny_bert: Path, encoder: SentenceTransformer) -> None:
    model = RRRAModel.from_encoder(tiny_bert, adapter={"hidden_size": 8, "lambda_": 1.0})
    expected = Retriever(encoder).index(CORPUS).search(QUERIES)
    for retriever in (Retriever(model), Retriever(encoder, model.adapter)):
        assert [ids(h) for h in retriever.index(CORPUS).search(QUERIES)] == [ids(h) for h in expected]


def test_trained_adapter_changes_the_ranking(retriever: Retriever) -> None:
    found, plain = retriever.search(QUERIES), retriever.search(QUERIES, rerank=False)
    assert [ids(hits) for hits in found] != [ids(hits) for hits in plain]
    assert all(scores(hits) == sorted(scores(hits), reverse=True) for hits in found)


def test_dropout_is_off(tiny_bert: Path) -> None:
    model = make_model(tiny_bert, lambda_=0.5, dropout=0.5)
    retriever = Retriever(model).index(CORPUS)
    embeddings = encode(retriever.encoder, QUERIES, task="query")
    model.train()
    first = retriever.search_embeddings(embeddings)
    model.train()
    assert retriever.search_embeddings(embeddings) == first


def test_search_of_embeddings_equals_search_of_their_queries(retriever: Retriever) -> None:
    embeddings = encode(retriever.encoder, QUERIES, task="query")
    for options in ({}, {"rerank": False}, {"top_k": 2, "depth": 3, "probabilities": True}):
        assert retriever.search_embeddings(embeddings, **options) == retriever.search(QUERIES, **options)


def test_maps_are_applied_once(tiny_bert: Path, encoder: SentenceTransformer, tmp_path: Path) -> None:
    model = RRRAModel.from_encoder(
        tiny_bert, adapter={"hidden_size": 8, "query_map": True, "document_map": True}
    )
    adapter = make_adapter(query_map=True, document_map=True, lambda_=0.5)
    model.adapter.load_state_dict(adapter.state_dict())
    model.adapter.config.lambda_ = 0.5
    given = Retriever(encoder, adapter).index(CORPUS)
    queries = adapter.map_queries(encode(encoder, QUERIES, task="query"))
    documents = adapter.map_documents(encode(encoder, TEXTS, task="document"))
    hits = given.search(QUERIES, rerank=False)
    expected = -np.sort(-(queries @ documents.T), axis=1)
    assert_allclose([scores(h) for h in hits], expected, atol=1e-5)

    own = Retriever(model).index(CORPUS)
    own.save_pretrained(tmp_path / "own")
    given.save_pretrained(tmp_path / "given")
    loaded = [Retriever.from_pretrained(tmp_path / name, device="cpu") for name in ("own", "given")]
    for retriever in (own, *loaded):
        for rerank in (False, True):
            found, wanted = retriever.search(QUERIES, rerank=rerank), given.search(QUERIES, rerank=rerank)
            assert [ids(h) for h in found] == [ids(h) for h in wanted]
            assert_allclose([scores(h) for h in found], [scores(h) for h in wanted], atol=1e-4)


# -------------------------------------------------------------------- ranking


def test_rank_is_a_search_over_the_documents_given(retriever: Retriever) -> None:
    for query in QUERIES:
        hits = retriever.search(query, top_k=len(CORPUS))[0]
        ranked = retriever.rank(query, TEXTS, return_documents=True)
        assert [list(CORPUS)[document["corpus_id"]] for document in ranked] == ids(hits)
        assert_allclose(scores(ranked), scores(hits), atol=1e-4)
        assert [document["text"] for document in ranked] == [TEXTS[d["corpus_id"]] for d in ranked]
        assert [list(document) for document in ranked] == [["corpus_id", "score", "text"]] * len(TEXTS)


def test_rank_needs_no_index_and_cuts_at_top_k(tiny_bert: Path, encoder: SentenceTransformer) -> None:
    retriever = Retriever(encoder)
    ranked = retriever.rank(QUERIES[0], TEXTS)
    assert retriever.rank(QUERIES[0], TEXTS, top_k=2) == ranked[:2]
    assert retriever.rank(QUERIES[0], TEXTS, top_k=100) == ranked
    assert retriever.rank(QUERIES[0], ["find files"])[0]["corpus_id"] == 0
    assert retriever.rank(QUERIES[0], []) == []
    assert list(ranked[0]) == ["corpus_id", "score"]
    assert scores(ranked) == sorted(scores(ranked), reverse=True)


# -------------------------------------------------------------------- corpora


def test_every_kind_of_corpus_gives_the_same_table() -> None:
    columns = {
        "id": list(CORPUS),
        "title": [d["title"] if isinstance(d, dict) else "" for d in CORPUS.values()],
        "text": [d["text"] if isinstance(d, dict) else d for d in CORPUS.values()],
    }
    dataset = Dataset.from_dict(columns)
    collection = Collection("tiny", dataset, Dataset.from_dict({"id": [], "text": []}), {})
    table = document_table(CORPUS)
    assert table.to_pydict() == columns
    for corpus in (dataset, collection, Dataset.from_dict({**columns, "more": columns["id"]})):
        assert document_table(corpus) == table
    assert document_texts(table) == collection.document_texts == TEXTS
    assert document_table(["a", "b"]).to_pydict() == {"id": ["0", "1"], "title": ["", ""], "text": ["a", "b"]}
    untitled = dataset.remove_columns("title")
    assert document_table(untitled)["title"].to_pylist() == [""] * 6
    empty_titles = Dataset.from_dict({**columns, "title": [None] * 6})
    assert document_table(empty_titles)["title"].to_pylist() == [""] * 6


@pytest.mark.parametrize(
    ("corpus", "message"),
    [
        ([], "corpus must have documents, got none"),
        ({}, "corpus must have documents, got none"),
        (Dataset.from_dict({"id": [], "text": []}), "corpus must have documents, got none"),
        (Dataset.from_dict({"_id": ["a"], "text": ["b"]}), r"columns id and text, got \['_id', 'text'\]"),
        (Dataset.from_dict({"id": ["a", "a"], "text": ["b", "c"]}), "unique ids, 1 repeat, the first is 'a'"),
        (Dataset.from_dict({"id": [1], "text": ["b"]}), "strings as id, got int at position 0"),
        (["a", None], "strings as text, got NoneType at position 1"),
        ([{"text": "a"}], "strings as text, got dict at position 0"),
        ({"a": {"title": 3, "text": "b"}}, "strings as title, got int at position 0"),
        ({"a": "b", "c": " "}, "the document 'c' has none"),
        ({"a": {"title": ""}}, "the document 'a' has none"),
        ("find files", "got str"),
        (7, "got int"),
    ],
)
def test_malformed_corpus_is_refused(encoder: SentenceTransformer, corpus: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Retriever(encoder).index(corpus)


def test_embeddings_are_cached(encoder: SentenceTransformer, tmp_path: Path) -> None:
    first = Retriever(encoder).index(CORPUS, cache_dir=tmp_path)
    assert list(tmp_path.rglob("embeddings.arrow"))
    second = Retriever(encoder).index(CORPUS, cache_dir=tmp_path)
    assert second.search(QUERIES) == first.search(QUERIES) == Retriever(encoder).index(CORPUS).search(QUERIES)


# -------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda r: r.search("a", top_k=0), "top_k must be at least 1, got 0"),
        (lambda r: r.search("a", depth=0), "depth must be at least 1, got 0"),
        (lambda r: r.search(["a", " "]), "queries must not be empty, query 1 is"),
        (lambda r: r.search({"x": "a", "y": ""}), "queries must not be empty, query 'y' is"),
        (lambda r: r.search(""), "queries must not be empty, query 0 is"),
        (lambda r: r.search(["a", 7]), "queries must be strings, got int for query 1"),
        (lambda r: r.rank("", ["a"]), "queries must not be empty"),
        (lambda r: r.rank("a", ["b", ""]), "the document '1' has none"),
        (lambda r: r.rank("a", ["b"], top_k=0), "top_k must be at least 1 or None, got 0"),
        (lambda r: r.search_embeddings(np.full((2, 32), np.nan)), "query_embeddings must be finite: 2 of 2"),
        (lambda r: r.search_embeddings(np.ones((2, 31))), "query_embeddings must have dimension 32, got 31"),
        (lambda r: r.search_embeddings(np.ones(32)), r"query_embeddings must be numbers of shape \(n, dim\)"),
        (lambda r: r.search_embeddings(np.ones((1, 32)), top_k=0), "top_k must be at least 1"),
    ],
)
def test_illegal_values_are_refused(
    retriever: Retriever, call: Callable[[Retriever], object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        call(retriever)


def test_unknown_document_is_refused(retriever: Retriever) -> None:
    assert retriever.document("mv") == {"id": "mv", "title": "", "text": CORPUS["mv"]}
    with pytest.raises(KeyError, match="No document 'nope'"):
        retriever.document("nope")


def test_search_without_an_index_is_refused(encoder: SentenceTransformer) -> None:
    for call in (
        lambda r: r.search("a"),
        lambda r: r.search([]),
        lambda r: r.search_embeddings(np.ones((1, 32))),
        lambda r: r.documents,
        lambda r: r.document("a"),
    ):
        with pytest.raises(ValueError, match=r"no index yet: call index\(corpus\) first"):
            call(Retriever(encoder))


def test_adapter_that_does_not_fit_is_refused(tiny_bert: Path, encoder: SentenceTransformer) -> None:
    with pytest.raises(ValueError, match="adapter must be of dimension 32, got 31"):
        Retriever(encoder, make_adapter(dim=31))
    model = make_model(tiny_bert)
    for made in (model, model.to_sentence_transformer()):
        with pytest.raises(ValueError, match="must not be given with an RRRAModel"):
            Retriever(made, make_adapter())
    with pytest.raises(ValueError, match="probabilities need an adapter"):
        Retriever(encoder).index(CORPUS).search("a", probabilities=True)


def test_nan_weights_are_refused(tiny_bert: Path) -> None:
    model = make_model(tiny_bert, lambda_=0.5)
    retriever = Retriever(model).index(CORPUS)
    with torch.no_grad():
        model.adapter.readout.weight.fill_(torch.nan)
    with pytest.raises(ValueError, match="adapter gave NaN"):
        retriever.search("find files")
    with torch.no_grad():
        next(model.encoder.parameters()).fill_(torch.nan)
    with pytest.raises(ValueError, match="model gave NaN"):
        retriever.search("find files")
    before = retriever.documents
    with pytest.raises(ValueError, match="model gave NaN"):
        retriever.index(["a"])
    assert retriever.documents is before


# -------------------------------------------------------------------- saving and loading


def test_saved_retriever_searches_as_before(retriever: Retriever, tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "model"
    expected = retriever.search(QUERIES, probabilities=True)
    retriever.save_pretrained(folder)
    loaded = Retriever.from_pretrained(folder, device="cpu")
    assert loaded.search(QUERIES, probabilities=True) == expected
    assert loaded.documents == retriever.documents
    assert loaded.document("cp") == {"id": "cp", **CORPUS["cp"]}
    assert [path.name for path in folder.parent.iterdir()] == ["model"]
    # and again, over the folder it came from
    loaded.save_pretrained(folder)
    assert Retriever.from_pretrained(folder, device="cpu").search(QUERIES, probabilities=True) == expected


def test_saved_folder_opens_with_every_loader(retriever: Retriever, tmp_path: Path) -> None:
    retriever.save_pretrained(tmp_path / "model")
    expected = encode(retriever.encoder, QUERIES, task="query")
    opened = SentenceTransformer(str(tmp_path / "model"), device="cpu")
    assert_array_equal(encode(opened, QUERIES, task="query"), expected)
    for load in (RRRAModel.from_pretrained, AutoModel.from_pretrained):
        model = load(tmp_path / "model")
        assert_array_equal(encode(model.to_sentence_transformer(), QUERIES, task="query"), expected)
        assert model.adapter.config.lambda_ == 0.5


def test_adapter_of_another_encoder_is_kept_beside_it(encoder: SentenceTransformer, tmp_path: Path) -> None:
    retriever = Retriever(encoder, make_adapter(lambda_=0.5)).index(CORPUS)
    retriever.save_pretrained(tmp_path / "model")
    loaded = Retriever.from_pretrained(tmp_path / "model", device="cpu")
    assert loaded.search(QUERIES) == retriever.search(QUERIES)
    RetrieverAdapter.from_pretrained(tmp_path / "model" / "adapter")
    # Saved without it, the folder no longer has it.
    Retriever(encoder).save_pretrained(tmp_path / "model")
    plain = Retriever.from_pretrained(tmp_path / "model", device="cpu")
    assert plain.adapter is None
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
    assert loaded.search(QUERIES, rerank=False) == retriever.search(QUERIES, rerank=False)
    assert loaded.search(QUERIES) != retriever.search(QUERIES)


def test_prompts_set_by_hand_are_kept(tiny_bert: Path, tmp_path: Path) -> None:
    encoder = SentenceTransformer(str(tiny_bert), device="cpu", prompts={"query": "find the "})
    retriever = Retriever(encoder).index(CORPUS)
    retriever.save_pretrained(tmp_path / "model")
    loaded = Retriever.from_pretrained(tmp_path / "model", device="cpu")
    assert loaded.search(QUERIES) == retriever.search(QUERIES)
    assert loaded.search(QUERIES) != Retriever.from_pretrained(tiny_bert).index(CORPUS).search(QUERIES)


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
    Retriever(encoder).index(TEXTS[:2]).corpus_index.index.save(folder / "vectors.faiss")
    with pytest.raises(ValueError, match=r"vectors\.faiss holds 2 embeddings of dimension 32, not 6 of 32"):
        Retriever.from_pretrained(tmp_path / "model", device="cpu")
    (folder / "vectors.faiss").write_bytes(vectors)
    pq.write_table(document_table(TEXTS[::-1]), folder / "documents.parquet")
    with pytest.raises(ValueError, match=r"documents\.parquet holds other documents than were indexed"):
        Retriever.from_pretrained(tmp_path / "model", device="cpu")
    pq.write_table(pa.table({"id": ["a"]}), folder / "documents.parquet")
    with pytest.raises(ValueError, match=r"documents\.parquet is missing or damaged"):
        Retriever.from_pretrained(tmp_path / "model", device="cpu")
    (folder / "documents.parquet").write_bytes(documents)
    meta = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps({**meta, "format_version": 1}))
    with pytest.raises(ValueError, match=r"meta\.json .* format version 1, this package reads 2"):
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


# -------------------------------------------------------------------- evaluating


def make_collection(**changes: object) -> Collection:
    corpus = {
        "id": ["a", "b", "c", "d"],
        "title": [""] * 4,
        "text": ["copy file", "copy", "copy sort", "list"],
    }
    queries = {"id": ["q1", "q2", "unjudged"], "text": ["copy file", "list", "sort"]}
    settings = {
        "name": "tiny",
        "corpus": Dataset.from_dict(corpus),
        "queries": Dataset.from_dict(queries),
        "qrels_by_split": {"test": {"q1": {"c": 1}, "q2": {"d": 1}, "unjudged": {}}},
        **changes,
    }
    return Collection(**settings)


def test_evaluation_by_hand() -> None:
    collection = make_collection()
    retriever = Retriever(vocabulary_encoder(), opposing_adapter(lambda_=3.0)).index(collection)
    quality, milliseconds = evaluate(retriever, collection, ["MRR@10", "R@1"])
    # q1: a b c d before, d c b a after; q2: d a b c before; after, the ties a b c come first.
    assert quality["encoder"].query_ids == ["q1", "q2"]
    assert quality["encoder"].per_query["MRR@10"].tolist() == pytest.approx([1 / 3, 1.0])
    assert quality["adapter"].per_query["MRR@10"].tolist() == pytest.approx([1 / 2, 1 / 4])
    assert quality["encoder"].mean["R@1"] == 0.5
    assert quality["adapter"].mean["R@1"] == 0.0
    assert set(milliseconds) == {"encode", "search", "rerank"}
    assert all(value > 0 for value in milliseconds.values())


def test_evaluation_agrees_with_search(retriever: Retriever) -> None:
    collection = make_collection()
    retriever = Retriever(retriever.encoder).index(collection)
    quality, _ = evaluate(retriever, collection, ["MRR@10"], depth=2)
    hits = retriever.search({"q1": "copy file", "q2": "list"}, depth=2)
    expected = [1 / (1 + ids(hits["q1"]).index("c")), 1 / (1 + ids(hits["q2"]).index("d"))]
    assert quality["adapter"].per_query["MRR@10"].tolist() == pytest.approx(expected)


def test_evaluation_without_an_adapter_measures_the_encoder_alone() -> None:
    collection = make_collection()
    quality, milliseconds = evaluate(Retriever(vocabulary_encoder()).index(collection), collection)
    assert list(quality) == ["encoder"]
    assert set(milliseconds) == {"encode", "search"}


def test_evaluation_retrieves_as_deep_as_a_measure_looks() -> None:
    collection = make_collection()
    retriever = Retriever(vocabulary_encoder(), opposing_adapter(lambda_=3.0)).index(collection)
    quality, _ = evaluate(retriever, collection, ["R@3", "MRR@1"], depth=1)
    assert quality["adapter"].per_query["R@3"].tolist() == [1.0, 1.0]


def test_evaluation_of_another_corpus_is_refused() -> None:
    retriever = Retriever(vocabulary_encoder())
    with pytest.raises(ValueError, match="no index yet"):
        evaluate(retriever, make_collection())
    other = {"a": "copy file", "b": "copy", "c": "copy sort", "x": "list"}
    for corpus in ({"a": "copy"}, other):
        with pytest.raises(ValueError, match=r"index is of another corpus .*tiny"):
            evaluate(retriever.index(corpus), make_collection())


def test_evaluation_refuses_what_it_cannot_measure() -> None:
    collection = make_collection(qrels_by_split={"test": {}})
    retriever = Retriever(vocabulary_encoder()).index(collection)
    with pytest.raises(ValueError, match="tiny has no query with a relevant document"):
        evaluate(retriever, collection)
    with pytest.raises(ValueError, match="measure must be one such as"):
        evaluate(retriever, make_collection(), ["quality"])
    with pytest.raises(ValueError, match="depth must be at least 1"):
        evaluate(retriever, make_collection(), depth=0)

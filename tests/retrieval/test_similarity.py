"""Encoders that compare by dot product or distance are refused, unless the cosine ranks the same."""

from __future__ import annotations

from pathlib import Path

import pytest
from sentence_transformers import SentenceTransformer

from retriever_models import CORPUS, QUERY
from rrra_hf.candidates import mine
from rrra_hf.embeddings import encode
from rrra_hf.retrieval import Retriever
from tiny import add_side_files, save_encoder, word_collection

DOT = r"must compare by cosine, .* by 'dot' and its embeddings differ in length"


def save(folder: Path, *, normalize: bool, similarity: str) -> str:
    save_encoder(folder, "bert")
    pooling = {"pooling_mode_mean_tokens": True}
    return str(add_side_files(folder, pooling, normalize, similarity_fn_name=similarity))


def test_a_dot_product_encoder_is_refused_at_every_door(tmp_path: Path) -> None:
    """They were searched by cosines without a word, and their setting was lost."""
    encoder = SentenceTransformer(save(tmp_path / "dot", normalize=False, similarity="dot"), device="cpu")
    with pytest.raises(ValueError, match=DOT):
        Retriever(encoder)
    with pytest.raises(ValueError, match=DOT):
        Retriever.from_pretrained(tmp_path / "dot")
    with pytest.raises(ValueError, match=DOT):
        encode(encoder, [QUERY], task="query")
    with pytest.raises(ValueError, match=DOT):
        mine(word_collection(20, train=10), encoder)
    # What the message says to do, by those who know that they want it.
    encoder.similarity_fn_name = "cosine"
    assert Retriever(encoder).index(CORPUS).search(QUERY)[0]


@pytest.mark.parametrize("similarity", ["dot", "euclidean", "manhattan"])
def test_embeddings_of_length_1_are_ranked_the_same(tmp_path: Path, similarity: str) -> None:
    folder = save(tmp_path / "unit", normalize=True, similarity=similarity)
    encoder = SentenceTransformer(folder, device="cpu")
    if similarity == "manhattan":
        with pytest.raises(ValueError, match="'manhattan'"):
            Retriever(encoder)
        return
    retriever = Retriever(encoder, adapter=None).index(CORPUS)
    found = [hit["corpus_id"] for hit in retriever.search(QUERY, len(CORPUS))[0]]
    documents = {
        key: text if isinstance(text, str) else f"{text['title']} {text['text']}"
        for key, text in CORPUS.items()
    }
    query, others = encoder.encode_query(QUERY), encoder.encode_document(list(documents.values()))
    order = encoder.similarity(query, others)[0].argsort(descending=True)
    assert found == [list(documents)[place] for place in order]
    retriever.save_pretrained(tmp_path / "saved")
    kept = SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    assert kept.similarity_fn_name == similarity


def test_a_shortened_embedding_has_no_length_of_1(tmp_path: Path) -> None:
    folder = save(tmp_path / "short", normalize=True, similarity="dot")
    encoder = SentenceTransformer(folder, device="cpu", truncate_dim=8)
    with pytest.raises(ValueError, match=DOT):
        Retriever(encoder)


def test_a_model_by_cosine_needs_no_normalize(tmp_path: Path) -> None:
    folder = save(tmp_path / "cosine", normalize=False, similarity="cosine")
    assert Retriever.from_pretrained(folder).index(CORPUS).search(QUERY)[0]

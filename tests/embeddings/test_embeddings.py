"""Encoding, its cache, and the fingerprints that the cache is keyed by."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Router
from sentence_transformers.sentence_transformer.modules import BoW

from encoding import TEXTS, WORDS
from rrra_hf.embeddings import encode
from rrra_hf.embeddings.forward import Forward, batches_by_length

# ---------------------------------------------------------------- encode


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("shard_size", [1, 7, 100])
def test_rows_are_in_the_order_of_the_texts(
    model: SentenceTransformer, tmp_path: Path, cached: bool, shard_size: int
) -> None:
    result = encode(
        model, TEXTS, task="document", cache_dir=tmp_path if cached else None, shard_size=shard_size
    )
    assert result.dtype == np.float32
    assert_allclose(result, model.encode_document(TEXTS), atol=1e-6)
    assert_allclose(np.linalg.norm(result, axis=1), 1, atol=1e-6)


def test_prompts_and_routes_are_those_of_the_task(model: SentenceTransformer, tmp_path: Path) -> None:
    model.prompts = {"query": "query old ", "document": "passage "}
    query_map = Dense(32, 32, bias=False, activation_function=torch.nn.Identity())
    document_map = Dense(32, 32, bias=False, activation_function=torch.nn.Identity())
    model.add_module("3", Router({"query": [query_map], "document": [document_map]}))
    queries = encode(model, TEXTS, task="query", cache_dir=tmp_path)
    documents = encode(model, TEXTS, task="document", cache_dir=tmp_path)
    assert_allclose(queries, model.encode_query(TEXTS, normalize_embeddings=True), atol=1e-6)
    assert_allclose(documents, model.encode_document(TEXTS, normalize_embeddings=True), atol=1e-6)
    assert np.abs(queries - documents).max() > 0.01


def test_rows_are_normalised_though_the_model_does_not(model: SentenceTransformer) -> None:
    del model[2]
    assert_allclose(np.linalg.norm(encode(model, TEXTS, task="query"), axis=1), 1, atol=1e-6)


def test_long_texts_are_truncated_by_the_model(model: SentenceTransformer, tmp_path: Path) -> None:
    result = encode(model, ["copy " * 20_000, "copy " * 100, ""], task="document", cache_dir=tmp_path)
    assert_allclose(result[0], result[1], atol=1e-6)
    assert np.isfinite(result).all()


def test_no_progress_bar_off_a_terminal_and_one_bar_if_wanted(
    model: SentenceTransformer, capsys: pytest.CaptureFixture[str]
) -> None:
    encode(model, TEXTS, task="query", shard_size=8)
    assert capsys.readouterr() == ("", "")
    encode(model, TEXTS, task="query", shard_size=8, show_progress_bar=True)
    printed = capsys.readouterr().err
    assert "40/40" in printed and "Batches" not in printed
    encode(model, TEXTS, task="query", shard_size=8, show_progress_bar=False)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("texts", "options", "message"),
    [
        ([], {}, "texts must not be empty"),
        ("copy", {}, "got one string"),
        (["copy", None], {}, "got NoneType at position 1"),
        (["copy", "sort", 3.0], {}, "got float at position 2"),
        (["copy", "so\ud800rt"], {}, "text 1 must be valid Unicode, got a lone surrogate at character 3"),
        (["copy"], {"task": "passage"}, "task must be 'query' or 'document', got 'passage'"),
        (["copy"], {"batch_size": 0}, "batch_size must be at least 1, got 0"),
        (["copy"], {"shard_size": -1}, "shard_size must be at least 1, got -1"),
    ],
)
def test_bad_arguments_are_named(
    model: SentenceTransformer, texts: list[str], options: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        encode(model, texts, **{"task": "query", **options})


def test_nan_from_the_model_is_an_error_that_counts_rows_and_is_not_cached(
    model: SentenceTransformer, tmp_path: Path
) -> None:
    # One word's embedding is damaged, so only the texts with that word are.
    word = model.tokenizer.get_vocab()["sort"]
    with torch.no_grad():
        model[0].model.embeddings.word_embeddings.weight[word] = float("nan")
    texts = ["copy", "sort", "list", "sort text", "find"]
    with pytest.raises(ValueError, match=r"NaN or infinite values for 2 of 5 texts .* at position 1"):
        encode(model, texts, task="document", cache_dir=tmp_path)
    assert not list(tmp_path.rglob("*.arrow"))


# ---------------------------------------------------------------- batches


@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=30), st.integers(1, 9), st.none() | st.integers(1, 90)
)
def test_batches_hold_each_text_once_and_keep_to_their_budgets(
    lengths: list[int], batch_size: int, batch_tokens: int | None
) -> None:
    batches = batches_by_length(np.array(lengths), batch_size, batch_tokens)
    assert sorted(np.concatenate(batches)) == list(range(len(lengths)))
    in_order = [lengths[position] for batch in batches for position in batch]
    assert in_order == sorted(lengths, reverse=True)
    for batch in batches:
        assert len(batch) <= batch_size
        padded = len(batch) * max(lengths[position] for position in batch)
        assert len(batch) == 1 or batch_tokens is None or padded <= batch_tokens


def test_texts_are_batched_by_tokens_and_not_padded_beyond_the_longest(
    model: SentenceTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # One token each, unknown, of any length in characters.
    texts = ["x" * 30, "list copy find files", "y" * 20, "sort text", "z"]
    batches = Forward(model, "document", batch_size=3)._batches(texts)
    assert [batch.positions.tolist() for batch in batches] == [[1, 3, 0], [2, 4]]
    assert [tuple(batch.features["input_ids"].shape) for batch in batches] == [(3, 6), (2, 3)]
    monkeypatch.setattr("rrra_hf.embeddings.forward.CPU_BATCH_TOKENS", 8)
    few_tokens = Forward(model, "document", batch_size=3)._batches(texts)
    assert [batch.positions.tolist() for batch in few_tokens] == [[1], [3, 0], [2, 4]]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("model_type", ["bert", "qwen3"])
def test_threads_and_padding_on_either_side_change_no_embedding(
    encoder_folder: Callable[[str], Path], threads: int, model_type: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rrra_hf.embeddings.forward.CPU_BATCH_TOKENS", 24)
    model = SentenceTransformer(str(encoder_folder(model_type)), device="cpu")
    expected = model.encode_document(TEXTS, normalize_embeddings=True)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        found = encode(model, TEXTS, task="document", batch_size=4, shard_size=16)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert_allclose(found, expected, atol=1e-6)


def test_models_without_tokens_to_count_are_encoded(tmp_path: Path) -> None:
    model = SentenceTransformer(modules=[BoW(vocab=WORDS)], device="cpu")
    texts = [*TEXTS, "copy copy copy", "list"]
    expected = model.encode_document(texts, normalize_embeddings=True)
    assert_allclose(encode(model, texts, task="document", batch_size=4), expected, atol=1e-6)
    assert_allclose(encode(model, texts, task="document", cache_dir=tmp_path), expected, atol=1e-6)


@pytest.mark.parametrize("task", ["query", "document"])
def test_prompts_are_chosen_as_sentence_transformers_chooses_them(
    model: SentenceTransformer, task: str
) -> None:
    own = model.encode_query if task == "query" else model.encode_document
    for prompts, default in (
        ({"passage": "passage ", "query": "query "}, None),
        ({"corpus": "old ", "other": "new "}, "other"),
        ({"other": "new "}, "other"),
        ({}, None),
    ):
        model.prompts, model.default_prompt_name = prompts, default
        expected = own(TEXTS, normalize_embeddings=True)
        assert_allclose(encode(model, TEXTS, task=task), expected, atol=1e-6)


def test_dimensions_are_truncated_before_they_are_normalised(model: SentenceTransformer) -> None:
    model.truncate_dim = 8
    expected = model.encode_query(TEXTS, normalize_embeddings=True)
    assert_allclose(encode(model, TEXTS, task="query"), expected, atol=1e-6)

"""Encoding, its cache, and the fingerprints that the cache is keyed by."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from peft import LoraConfig
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Router
from sentence_transformers.sentence_transformer.modules import BoW

from launching import launch
from rrra_hf import RRRAModel
from rrra_hf.embeddings import (
    check_embeddings,
    encode,
    encoder_fingerprint,
    encoding_error,
    load_embeddings,
    save_embeddings,
    texts_fingerprint,
)
from rrra_hf.embeddings.cache import Cache
from rrra_hf.embeddings.forward import Forward, _cut

WORDS = ["list", "copy", "find", "files", "folder", "sort", "text", "line"]
TEXTS = [" ".join(WORDS[i % 8 : i % 8 + 1 + i % 5]) + f" {WORDS[i // 8]}" for i in range(40)]


@pytest.fixture
def model(tiny_bert: Path) -> SentenceTransformer:
    return SentenceTransformer(str(tiny_bert), device="cpu")


def count_texts(
    model: SentenceTransformer, monkeypatch: pytest.MonkeyPatch, fail_after: int = 10**9
) -> list[str]:
    """Record the texts that are really encoded; raise when more than `fail_after` would be."""
    encoded: list[str] = []
    original = model.forward

    def record(features: dict[str, torch.Tensor], **options: object) -> dict[str, torch.Tensor]:
        if len(encoded) + len(features["input_ids"]) > fail_after:
            raise KeyboardInterrupt
        encoded.extend(model.tokenizer.batch_decode(features["input_ids"], skip_special_tokens=True))
        return original(features, **options)

    monkeypatch.setattr(model, "forward", record)
    return encoded


def cache_folder(cache_dir: Path) -> Path:
    (folder,) = cache_dir.iterdir()
    return folder


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


def test_cached_embeddings_are_mapped_and_not_encoded_again(
    model: SentenceTransformer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = encode(model, TEXTS, task="document", cache_dir=tmp_path, shard_size=8)
    encoded = count_texts(model, monkeypatch)
    second = encode(model, TEXTS, task="document", cache_dir=tmp_path, shard_size=16, batch_size=3)
    assert encoded == []
    assert not second.flags.owndata and not second.flags.writeable
    assert_array_equal(first, second)
    folder = cache_folder(tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == ["embeddings.arrow", "meta.json"]
    assert json.loads((folder / "meta.json").read_text()) == {
        "encoder": encoder_fingerprint(model),
        "task": "document",
        "texts": texts_fingerprint(TEXTS),
        "count": 40,
        "dim": 32,
    }


def test_an_interrupted_run_goes_on_with_the_next_shard(
    model: SentenceTransformer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = count_texts(model, monkeypatch, fail_after=24)
    with pytest.raises(KeyboardInterrupt):
        encode(model, TEXTS, task="document", cache_dir=tmp_path, shard_size=8)
    assert len(before) == 24
    monkeypatch.undo()
    after = count_texts(model, monkeypatch)
    result = encode(model, TEXTS, task="document", cache_dir=tmp_path, shard_size=8)
    assert len(after) == 16
    assert sorted(before + after) == sorted(TEXTS)
    assert_allclose(result, encode(model, TEXTS, task="document"), atol=1e-6)


def test_a_damaged_shard_is_encoded_again(
    model: SentenceTransformer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    count_texts(model, monkeypatch, fail_after=24)
    with pytest.raises(KeyboardInterrupt):
        encode(model, TEXTS, task="document", cache_dir=tmp_path, shard_size=8)
    truncated, short, _ = sorted(cache_folder(tmp_path).glob("shard-*.arrow"))
    truncated.write_bytes(truncated.read_bytes()[:-100])
    save_embeddings(short, np.zeros((3, 32)))
    monkeypatch.undo()
    encoded = count_texts(model, monkeypatch)
    with caplog.at_level(logging.WARNING):
        result = encode(model, TEXTS, task="document", cache_dir=tmp_path, shard_size=8)
    assert len(encoded) == 32
    assert str(truncated) in caplog.text and f"{short} holds 3 rows, not 8" in caplog.text
    assert_allclose(result, encode(model, TEXTS, task="document"), atol=1e-6)


def truncate(folder: Path) -> None:
    path = folder / "embeddings.arrow"
    path.write_bytes(path.read_bytes()[:2000])


def lose_rows(folder: Path) -> None:
    save_embeddings(folder / "embeddings.arrow", np.zeros((39, 32)))


def lose_columns(folder: Path) -> None:
    save_embeddings(folder / "embeddings.arrow", np.zeros((40, 31)))


def lose_meta(folder: Path) -> None:
    (folder / "meta.json").unlink()


def garble_meta(folder: Path) -> None:
    (folder / "meta.json").write_text("[1]")


@pytest.mark.parametrize("damage", [truncate, lose_rows, lose_columns, lose_meta, garble_meta])
def test_a_damaged_cache_is_noticed_and_mended(
    model: SentenceTransformer,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    damage: Callable[[Path], None],
) -> None:
    expected = encode(model, TEXTS, task="document")
    encode(model, TEXTS, task="document", cache_dir=tmp_path)
    damage(cache_folder(tmp_path))
    with caplog.at_level(logging.WARNING):
        assert_allclose(encode(model, TEXTS, task="document", cache_dir=tmp_path), expected, atol=1e-6)
    assert "damaged" in caplog.text
    caplog.clear()
    encode(model, TEXTS, task="document", cache_dir=tmp_path)
    assert caplog.text == ""


def test_the_cache_is_not_used_for_another_weight_prompt_text_or_task(
    model: SentenceTransformer, tmp_path: Path
) -> None:
    def encode_cached(texts: list[str], task: str = "document") -> np.ndarray:
        result = encode(model, texts, task=task, cache_dir=tmp_path)
        direct = model.encode_document(texts) if task == "document" else model.encode_query(texts)
        assert_allclose(result, direct, atol=1e-6)
        return result

    first = encode_cached(TEXTS)
    encode_cached([*TEXTS[:-1], "sort"])
    encode_cached(TEXTS[::-1])
    encode_cached(TEXTS, task="query")
    model.prompts["document"] = "passage "
    encode_cached(TEXTS)
    with torch.no_grad():
        model[0].model.encoder.layer[0].attention.self.value.weight[0] += 3
    changed = encode_cached(TEXTS)
    assert np.abs(first - changed).max() > 1e-3
    assert len(list(tmp_path.iterdir())) == 6


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
        (["copy"], {"task": "passage"}, "task must be 'query' or 'document', got 'passage'"),
        (["copy"], {"batch_size": 0}, "batch_size must be at least 1, got 0"),
        (["copy"], {"batch_tokens": 0}, "batch_tokens must be at least 1, got 0"),
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
    batches = _cut(np.array(lengths), batch_size, batch_tokens)
    assert sorted(np.concatenate(batches)) == list(range(len(lengths)))
    in_order = [lengths[position] for batch in batches for position in batch]
    assert in_order == sorted(lengths, reverse=True)
    for batch in batches:
        assert len(batch) <= batch_size
        padded = len(batch) * max(lengths[position] for position in batch)
        assert len(batch) == 1 or batch_tokens is None or padded <= batch_tokens


def test_texts_are_batched_by_tokens_and_not_padded_beyond_the_longest(model: SentenceTransformer) -> None:
    # One token each, unknown, of any length in characters.
    texts = ["x" * 30, "list copy find files", "y" * 20, "sort text", "z"]
    batches = Forward(model, "document", batch_size=3)._batches(texts)
    assert [batch.positions.tolist() for batch in batches] == [[1, 3, 0], [2, 4]]
    assert [tuple(batch.features["input_ids"].shape) for batch in batches] == [(3, 6), (2, 3)]
    few_tokens = Forward(model, "document", batch_size=3, batch_tokens=8)._batches(texts)
    assert [batch.positions.tolist() for batch in few_tokens] == [[1], [3, 0], [2, 4]]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("model_type", ["bert", "qwen3"])
def test_threads_and_padding_on_either_side_change_no_embedding(
    encoder_folder: Callable[[str], Path], threads: int, model_type: str
) -> None:
    model = SentenceTransformer(str(encoder_folder(model_type)), device="cpu")
    expected = model.encode_document(TEXTS, normalize_embeddings=True)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        found = encode(model, TEXTS, task="document", batch_size=4, batch_tokens=24, shard_size=16)
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


# ---------------------------------------------------------------- texts met before, and several processes


def test_where_ten_texts_changed_ten_are_encoded(
    model: SentenceTransformer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = [f"{text} {word}" for text in TEXTS for word in ("old", "new", "query")]
    encode(model, many, task="document", cache_dir=tmp_path, shard_size=16)
    changed = [f"{text} passage" if row % 12 == 5 else text for row, text in enumerate(many)][::-1]
    encoded = count_texts(model, monkeypatch)
    found = encode(model, changed, task="document", cache_dir=tmp_path, shard_size=16)
    assert len(encoded) == 10 and all(text.endswith("passage") for text in encoded)
    assert_allclose(found, encode(model, changed, task="document"), atol=1e-6)


def test_shards_of_an_interrupted_run_serve_other_texts_too(
    model: SentenceTransformer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count_texts(model, monkeypatch, fail_after=24)
    with pytest.raises(KeyboardInterrupt):
        encode(model, TEXTS, task="document", cache_dir=tmp_path, shard_size=8)
    monkeypatch.undo()
    other = [*TEXTS[:-1], "old"]
    encoded = count_texts(model, monkeypatch)
    found = encode(model, other, task="document", cache_dir=tmp_path)
    assert len(encoded) <= 17
    assert_allclose(found, encode(model, other, task="document"), atol=1e-6)


def test_equal_texts_are_encoded_once(
    model: SentenceTransformer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded = count_texts(model, monkeypatch)
    found = encode(model, ["copy", "sort", "copy", "copy"], task="query", cache_dir=tmp_path)
    assert sorted(encoded) == ["copy", "sort"]
    assert_array_equal(found[[2, 3]], found[[0, 0]])


def test_damaged_files_of_other_texts_are_passed_over(model: SentenceTransformer, tmp_path: Path) -> None:
    encode(model, TEXTS, task="document", cache_dir=tmp_path)
    truncate(cache_folder(tmp_path))
    found = encode(model, TEXTS[:5], task="document", cache_dir=tmp_path)
    assert_allclose(found, encode(model, TEXTS[:5], task="document"), atol=1e-6)


def test_a_shard_that_nobody_finished_is_encoded_at_last(
    model: SentenceTransformer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As if another process had claimed all shards, and died.
    monkeypatch.setattr(Cache, "_encode_unclaimed", lambda *arguments: None)
    found = encode(model, TEXTS, task="document", cache_dir=tmp_path, shard_size=8)
    assert_allclose(found, encode(model, TEXTS, task="document"), atol=1e-6)


SCRIPT = """
import sys
from pathlib import Path
import numpy as np
from rrra_hf.training import joined_processes
from rrra_hf.embeddings import encode, save_embeddings
from rrra_hf.candidates import mine_embeddings
from sentence_transformers import SentenceTransformer

encoder, folder = sys.argv[1], Path(sys.argv[2])
words = "list copy find files folder sort text line".split()
texts = [f"{a} {b}" for a in words[:4] for b in words[4:]]
positives = [[row] for row in range(16)]
with joined_processes() as processes:
    model = SentenceTransformer(encoder, device="cpu")
    found = encode(model, texts, task="document", cache_dir=folder / "cache", shard_size=4)
    pool = mine_embeddings(found, found, positives, depth=5, block_size=3, folder=folder / "pool")
    assert pool.candidates.shape == (16, 5)
    save_embeddings(folder / f"{processes.index}-of-{processes.count}.arrow", found)
"""


@pytest.mark.slow
def test_launched_processes_give_the_bits_of_one(tiny_bert: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = launch(script, tiny_bert, tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    model = SentenceTransformer(str(tiny_bert), device="cpu")
    texts = [f"{a} {b}" for a in WORDS[:4] for b in WORDS[4:]]
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        expected = encode(model, texts, task="document", shard_size=4)
    finally:
        torch.set_num_threads(before)
    for index in range(2):
        assert_array_equal(load_embeddings(tmp_path / f"{index}-of-2.arrow"), expected)


# ---------------------------------------------------------------- other backends and precisions


def test_the_error_of_another_encoder_is_measured(model: SentenceTransformer, tiny_bert: Path) -> None:
    same = encoding_error(model, model, TEXTS, task="query")
    assert same.greatest == 0 and same.same_nearest == 1 and same.lowest_cosine == pytest.approx(1)
    half = SentenceTransformer(str(tiny_bert), device="cpu").to(torch.bfloat16)
    error = encoding_error(half, model, TEXTS, task="query")
    difference = np.abs(encode(half, TEXTS, task="query") - encode(model, TEXTS, task="query")).max()
    assert error.greatest == difference
    assert 1e-4 < difference < 0.1
    assert 0.98 < error.lowest_cosine < 1


def test_encoders_that_cannot_be_compared_are_refused(model: SentenceTransformer, tiny_bert: Path) -> None:
    with pytest.raises(ValueError, match="texts must be two or more, got 1"):
        encoding_error(model, model, ["copy"], task="query")
    short = SentenceTransformer(str(tiny_bert), device="cpu", truncate_dim=8)
    with pytest.raises(ValueError, match="reference's dimension 32, got 8"):
        encoding_error(short, model, TEXTS, task="query")


# ---------------------------------------------------------------- fingerprints


def test_the_fingerprint_survives_use_and_saving_and_loading(
    model: SentenceTransformer, tmp_path: Path
) -> None:
    model.prompts["query"] = "query "
    first = encoder_fingerprint(model)
    assert len(first) == 16 and int(first, 16) >= 0
    model.encode(["copy files", "sort"])
    assert encoder_fingerprint(model) == first
    model.save_pretrained(str(tmp_path / "elsewhere"))
    assert encoder_fingerprint(SentenceTransformer(str(tmp_path / "elsewhere"), device="cpu")) == first


def change_weight(model: SentenceTransformer) -> None:
    with torch.no_grad():
        model[0].model.embeddings.LayerNorm.bias[3] += 1e-6


def change_precision(model: SentenceTransformer) -> None:
    model.to(torch.bfloat16)


def change_prompt(model: SentenceTransformer) -> None:
    model.prompts["query"] = "query "


def change_default_prompt(model: SentenceTransformer) -> None:
    model.default_prompt_name = "query"


def change_length(model: SentenceTransformer) -> None:
    model.max_seq_length = 16


def change_pooling(model: SentenceTransformer) -> None:
    model[1].pooling_mode = "cls"


def change_module(model: SentenceTransformer) -> None:
    del model[2]


def change_dimension(model: SentenceTransformer) -> None:
    model.truncate_dim = 8


def change_heads(model: SentenceTransformer) -> None:
    model[0].model.config.num_attention_heads = 4


def change_tokenizer(model: SentenceTransformer) -> None:
    model.tokenizer.add_tokens(["herring"])


def change_truncation_side(model: SentenceTransformer) -> None:
    model.tokenizer.truncation_side = "left"


@pytest.mark.parametrize(
    "change",
    [
        change_weight,
        change_precision,
        change_prompt,
        change_default_prompt,
        change_length,
        change_pooling,
        change_module,
        change_dimension,
        change_heads,
        change_tokenizer,
        change_truncation_side,
    ],
)
def test_what_decides_an_embedding_changes_the_fingerprint(
    model: SentenceTransformer, change: Callable[[SentenceTransformer], None]
) -> None:
    before = encoder_fingerprint(model)
    change(model)
    assert encoder_fingerprint(model) != before


def test_the_strength_of_lora_changes_the_fingerprint(tiny_bert: Path) -> None:
    prints = set()
    for alpha in (8, 16):
        torch.manual_seed(0)
        model = SentenceTransformer(str(tiny_bert), device="cpu")
        model.add_adapter(LoraConfig(r=2, lora_alpha=alpha, target_modules=["query"]))
        prints.add(encoder_fingerprint(model))
    assert len(prints) == 2


def test_a_model_with_an_adapter_is_fingerprinted_by_its_encoder_and_maps(
    tiny_bert: Path, tmp_path: Path
) -> None:
    bundle = RRRAModel.from_encoder(tiny_bert, lora=True, adapter={"query_map": True})
    model = bundle.to_sentence_transformer()
    before = encoder_fingerprint(model)
    bundle.save_pretrained(tmp_path)
    assert encoder_fingerprint(SentenceTransformer(str(tmp_path), device="cpu")) == before
    assert encoder_fingerprint(RRRAModel.from_pretrained(tmp_path).to_sentence_transformer()) == before
    with torch.no_grad():
        bundle.adapter.readout.bias += 1
    bundle.config.adapter["lambda_"] = 0.5
    assert encoder_fingerprint(model) == before
    with torch.no_grad():
        bundle.adapter.query_map.weight += 1
    assert encoder_fingerprint(model) != before


def test_another_backend_is_refused(model: SentenceTransformer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "get_backend", lambda: "onnx")
    with pytest.raises(ValueError, match=r"torch backend .* got 'onnx'"):
        encoder_fingerprint(model)


TEXT_LISTS = st.lists(st.text(max_size=4), max_size=4)


@given(TEXT_LISTS, TEXT_LISTS)
def test_texts_have_equal_fingerprints_if_and_only_if_equal(first: list[str], second: list[str]) -> None:
    assert (texts_fingerprint(first) == texts_fingerprint(second)) == (first == second)


@given(TEXT_LISTS.map("".join), st.integers(0, 16), st.integers(0, 16))
def test_moving_a_boundary_between_texts_changes_the_fingerprint(text: str, a: int, b: int) -> None:
    first, second = [text[:a], text[a:]], [text[:b], text[b:]]
    assert (texts_fingerprint(first) == texts_fingerprint(second)) == (first == second)


# ---------------------------------------------------------------- files and checks


@given(rows=st.integers(0, 5), dim=st.integers(1, 5), seed=st.integers(0, 9))
def test_saved_embeddings_load_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, rows: int, dim: int, seed: int
) -> None:
    embeddings = np.random.default_rng(seed).standard_normal((rows, dim)).astype(np.float32)
    path = tmp_path_factory.mktemp("files") / "deeper" / "embeddings.arrow"
    save_embeddings(path, embeddings)
    loaded = load_embeddings(path)
    assert loaded.shape == (rows, dim) and loaded.dtype == np.float32 and not loaded.flags.writeable
    assert_array_equal(loaded, embeddings)
    assert [file.name for file in path.parent.iterdir()] == ["embeddings.arrow"]


def test_a_failed_save_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_embeddings(tmp_path / "e.arrow", np.ones((2, 2)))

    def fail(self: object, batch: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(pa.RecordBatchFileWriter, "write_batch", fail)
    with pytest.raises(OSError, match="disk full"):
        save_embeddings(tmp_path / "e.arrow", np.zeros((3, 3)))
    assert [path.name for path in tmp_path.iterdir()] == ["e.arrow"]
    assert_array_equal(load_embeddings(tmp_path / "e.arrow"), np.ones((2, 2)))


def test_only_a_matrix_can_be_saved(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"shape \(n, dim\), got \(3,\)"):
        save_embeddings(tmp_path / "e.arrow", np.ones(3))


def test_a_missing_or_foreign_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.arrow"):
        load_embeddings(tmp_path / "none.arrow")
    (tmp_path / "text.arrow").write_text("no Arrow")
    with pytest.raises(ValueError, match=r"text\.arrow is damaged or holds no embeddings"):
        load_embeddings(tmp_path / "text.arrow")
    for values in ([1.0], [[1.0]]):
        table = pa.table({"embedding": pa.array(values)})
        with pa.ipc.new_file(str(tmp_path / "other.arrow"), table.schema) as writer:
            writer.write_table(table)
        with pytest.raises(ValueError, match=r"other\.arrow .* column has type"):
            load_embeddings(tmp_path / "other.arrow")


@pytest.mark.parametrize("kept", [0, 10, 400, 900, 1300])
def test_a_truncated_file_is_named(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "e.arrow"
    save_embeddings(path, np.ones((16, 16)))
    assert path.stat().st_size > 1300
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"e\.arrow is damaged"):
        load_embeddings(path)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.ones(3), r"queries must be numbers of shape \(n, dim\), got float64 \(3,\)"),
        (np.array([["a"]]), "queries must be numbers"),
        (np.ones((0, 3)), "queries must not be empty"),
        (np.ones((2, 4)), "queries must have dimension 3, got 4"),
        (np.array([[0, 0, 0], [0, np.nan, 0], [np.inf, 0, 0]]), "2 of 3 rows .* the first is row 1"),
        (np.full((1, 3), 1e300), "1 of 1 rows"),
    ],
)
def test_bad_embeddings_are_refused_by_name(array: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_embeddings(array, "queries", dim=3)


def test_rows_are_counted_across_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rrra_hf.embeddings.checks.BLOCK_SIZE", 2)
    array = np.ones((7, 2))
    array[[3, 6]] = np.nan
    with pytest.raises(ValueError, match=r"2 of 7 rows .* the first is row 3"):
        check_embeddings(array, "documents")

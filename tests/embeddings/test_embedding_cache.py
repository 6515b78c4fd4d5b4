"""What is cached is not encoded again, and what is damaged is."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sentence_transformers import SentenceTransformer

import forked
from alike import assert_alike
from encoding import TEXTS, WORDS, cache_folder, count_texts, truncate
from rrra_hf.candidates import mine_embeddings
from rrra_hf.embeddings import (
    encode,
    encoder_fingerprint,
    load_embeddings,
    save_embeddings,
    texts_fingerprint,
)
from rrra_hf.embeddings.cache import Cache
from rrra_hf.training.processes import joined_processes


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
    assert str(truncated) in caplog.text and f"{short} has 3 rows instead of 8" in caplog.text
    assert_allclose(result, encode(model, TEXTS, task="document"), atol=1e-6)


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


WORD_PAIRS = [f"{a} {b}" for a in WORDS[:4] for b in WORDS[4:]]


def encode_and_mine(encoder: Path, folder: Path) -> None:
    positives = [[row] for row in range(16)]
    with joined_processes() as processes:
        model = SentenceTransformer(str(encoder), device="cpu")
        found = encode(model, WORD_PAIRS, task="document", cache_dir=folder / "cache", shard_size=4)
        pool = mine_embeddings(found, found, positives, depth=5, block_size=3, folder=folder / "pool")
        assert pool.candidates.shape == (16, 5)
        save_embeddings(folder / f"{processes.index}-of-{processes.count}.arrow", found)


@pytest.mark.slow
def test_launched_processes_give_the_bits_of_one(tiny_bert: Path, tmp_path: Path) -> None:
    done = forked.run(encode_and_mine, tiny_bert, tmp_path, processes=2)
    assert done.statuses == [0, 0], done.err
    model = SentenceTransformer(str(tiny_bert), device="cpu")
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        expected = encode(model, WORD_PAIRS, task="document", shard_size=4)
    finally:
        torch.set_num_threads(before)
    for index in range(2):
        assert_alike(load_embeddings(tmp_path / f"{index}-of-2.arrow"), expected)

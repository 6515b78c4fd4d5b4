"""The residual adapter against closed forms, its promises, and its files."""

from __future__ import annotations

import json
import math
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from alike import assert_alike
from rrra_hf import AdapterConfig, RetrieverAdapter, RRRAModel
from rrra_hf.models.residual_rrra import ResidualReader

DIM = 6


def residual(**settings: object) -> dict[str, object]:
    return {"kind": "residual", "hidden_size": 5, **settings}


def make(num_classes: int = 1, scoring: str = "log_odds", **config: object) -> RetrieverAdapter:
    """Make a residual adapter with all weights away from their starting point."""
    torch.manual_seed(0)
    reader = residual(num_classes=num_classes, scoring=scoring)
    adapter = RetrieverAdapter(AdapterConfig(embedding_dim=DIM, reader=reader, **config))
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.normal_(0, 0.5)
    return adapter.eval()


def embeddings(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


# -------------------------------------------------------------------- starting point


@pytest.mark.parametrize("num_classes", [1, 4])
def test_unfitted_reader_leaves_documents_where_they_are(num_classes: int) -> None:
    reader = ResidualReader(DIM, tau=0.05, num_classes=num_classes)
    q, c = torch.randn(7, 1, DIM), torch.randn(7, 3, DIM)
    assert torch.equal(reader.adapt(q, c).adapted, F.normalize(c, dim=-1))


@pytest.mark.parametrize("num_classes", [1, 4])
def test_unfitted_reader_follows_the_cosine(num_classes: int) -> None:
    reader = ResidualReader(DIM, tau=0.1, num_classes=num_classes)
    q, c = torch.randn(7, 1, DIM), torch.randn(7, 3, DIM)
    expected = torch.cosine_similarity(q, c, dim=-1) / 0.1
    torch.testing.assert_close(reader(q, c), expected, rtol=1e-4, atol=1e-5)


# Rounded: vectors shorter than 1e-12 can't be normalised, and have no direction to rank by.
finite = st.floats(-10, 10, width=32).map(lambda x: np.float32(round(x, 6)))


@settings(max_examples=60, deadline=None)
@given(
    queries=arrays(np.float32, (2, DIM), elements=finite),
    candidates=arrays(np.float32, (2, 9, DIM), elements=finite),
    num_classes=st.sampled_from([1, 4]),
    scoring=st.sampled_from(["log_odds", "product"]),
)
def test_unfitted_adapter_changes_no_ranking(
    queries: np.ndarray, candidates: np.ndarray, num_classes: int, scoring: str
) -> None:
    """Ties of float32 apart: what reranking turns around was nearer than rounding can tell."""
    reader = residual(num_classes=num_classes, scoring=scoring)
    config = AdapterConfig(embedding_dim=DIM, lambda_=0.5, reader=reader)
    adapter = RetrieverAdapter(config).eval()
    q, c = (F.normalize(torch.from_numpy(x), dim=-1) for x in (queries, candidates))
    cosines = (q[:, None] * c).sum(-1).numpy()
    order = np.argsort(-adapter.rerank(queries, candidates), axis=1, kind="stable")
    reranked = np.take_along_axis(cosines, order, axis=1)
    assert (np.diff(reranked, axis=1) <= 1e-6).all()


def test_weight_zero_leaves_the_order_of_the_given_scores() -> None:
    adapter = make(lambda_=0.0)
    scores = embeddings(2, 9, seed=3)
    reranked = adapter.rerank(embeddings(2, DIM), embeddings(2, 9, DIM), scores)
    assert (np.argsort(-reranked, kind="stable") == np.argsort(-scores, kind="stable")).all()


def test_unfitted_maps_only_normalise() -> None:
    adapter = RetrieverAdapter(AdapterConfig(embedding_dim=DIM, query_map=True, document_map=True))
    x = embeddings(3, DIM)
    expected = x / np.linalg.norm(x, axis=1, keepdims=True)
    np.testing.assert_allclose(adapter.map_queries(x), expected, rtol=1e-6)
    np.testing.assert_allclose(adapter.map_documents(x), expected, rtol=1e-6)


# -------------------------------------------------------------------- closed forms


def test_factored_first_layer_is_the_concatenated_one() -> None:
    """W [q - c, q * c, q + c] with W = [A, P, B]: (A + B) q + (B - A) c + P (q * c)."""
    reader = make().reader
    a, p, b = torch.randn(3, 5, DIM)
    with torch.no_grad():
        reader.query_layer.weight.copy_(a + b)
        reader.document_layer.weight.copy_(b - a)
        reader.product_layer.weight.copy_(p)
    q, c = F.normalize(torch.randn(2, 4, DIM), dim=-1)
    first = torch.cat([q - c, q * c, q + c], dim=-1) @ torch.cat([a, p, b], dim=1).T + reader.query_layer.bias
    expected = c + reader.output_layer(F.gelu(first))
    torch.testing.assert_close(reader.adapt(q, c).adapted, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("num_classes", [1, 4])
def test_reranking_reads_with_one_product_what_forward_reads_with_two(num_classes: int) -> None:
    adapter = make(num_classes=num_classes, temperature=2.0)
    q, c = torch.randn(2, DIM), torch.randn(2, 3, DIM)
    reading = adapter.read(q, c)
    torch.testing.assert_close(reading.relevance, adapter(q[:, None], c))
    assert torch.equal(reading.ranking, reading.relevance)


def test_readout_is_a_linear_map_of_three_cosines() -> None:
    adapter = make(temperature=2.0)
    q, c = torch.randn(2, 4, DIM)
    a, class_logits, log_odds = adapter.reader.adapt(q, c)
    cosines = [torch.cosine_similarity(x, y, dim=-1) for x, y in ((q, a), (a, c), (q, c))]
    expected = torch.stack(cosines, -1) @ adapter.reader.readout.weight[0] + adapter.reader.readout.bias
    torch.testing.assert_close(class_logits.squeeze(-1), expected)
    torch.testing.assert_close(log_odds, expected)
    torch.testing.assert_close(adapter(q, c), expected / 2)


def test_four_classes_give_the_log_odds_of_the_labelled_two() -> None:
    adapter = make(num_classes=4, temperature=3.0)
    q, c = torch.randn(4, DIM), torch.randn(4, DIM)
    p = adapter.reader.adapt(q, c).class_logits.softmax(-1)
    expected = ((p[:, 0] + p[:, 1]) / (p[:, 2] + p[:, 3])).log() / 3
    torch.testing.assert_close(adapter(q, c), expected)


@pytest.mark.parametrize("num_classes", [1, 4])
def test_shifted_log_odds_differ_by_the_shift(num_classes: int) -> None:
    reader = make(num_classes=num_classes).reader
    q, c = torch.randn(4, DIM), torch.randn(4, DIM)
    before = reader(q, c)
    reader.shift_log_odds(1.5)
    torch.testing.assert_close(reader(q, c), before + 1.5)


def test_probability_is_the_sigmoid_of_the_log_odds() -> None:
    adapter = make(temperature=0.5)
    queries, candidates = embeddings(2, DIM), embeddings(2, 3, DIM)
    log_odds = adapter(torch.from_numpy(queries)[:, None], torch.from_numpy(candidates))
    p = adapter.probability(queries, candidates)
    np.testing.assert_allclose(p, 1 / (1 + np.exp(-log_odds.detach().numpy())), rtol=1e-5)


def test_scores_are_combined_as_the_formulas_say() -> None:
    cosines, ranking = torch.tensor([0.5, -1.0]), torch.tensor([math.log(3), 0.0])
    log_odds = make(lambda_=2.0, tau=0.1)
    expected = torch.tensor([5 + 2 * math.log(3), -10.0])
    torch.testing.assert_close(log_odds.combine(cosines, ranking), expected)
    expected = torch.tensor([5 + 0.5 * math.log(3), -10.0])
    torch.testing.assert_close(log_odds.combine(cosines, ranking, lambda_=0.5), expected)
    product = make(lambda_=2.0, scoring="product")
    torch.testing.assert_close(product.combine(cosines, ranking), torch.tensor([0.75 * 0.75**2, 0.0]))
    torch.testing.assert_close(product.combine(cosines, ranking, lambda_=0.0), torch.tensor([0.75, 0.0]))


def test_rerank_computes_the_cosines_it_is_not_given() -> None:
    adapter = make(lambda_=0.3)
    queries, candidates = embeddings(2, DIM), embeddings(2, 3, DIM, seed=1)
    unit = [x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (queries, candidates)]
    scores = np.einsum("nd,nkd->nk", *unit)
    expected = adapter.rerank(queries, candidates, scores)
    np.testing.assert_allclose(adapter.rerank(queries, candidates), expected, rtol=1e-5)
    np.testing.assert_allclose(adapter.rerank(3 * queries, 5 * candidates), expected, rtol=1e-4, atol=1e-5)


def test_maps_are_linear_then_normalised() -> None:
    adapter = make(query_map=True)
    x = embeddings(3, DIM)
    expected = x @ adapter.query_map.weight.detach().numpy().T
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(adapter.map_queries(x), expected, rtol=1e-5, atol=1e-6)
    unmapped = x / np.linalg.norm(x, axis=1, keepdims=True)
    np.testing.assert_allclose(adapter.map_documents(x), unmapped, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("zero", ["query", "document", "both"])
def test_zero_vectors_give_finite_outputs_and_gradients(zero: str) -> None:
    reader = make().reader
    q = torch.zeros(2, DIM) if zero != "document" else torch.randn(2, DIM)
    c = torch.zeros(2, DIM) if zero != "query" else torch.randn(2, DIM)
    output = reader.adapt(q.requires_grad_(), c.requires_grad_())
    (output.log_odds.sum() + output.adapted.sum()).backward()
    assert torch.isfinite(output.log_odds).all()
    for x in (q, c, *reader.parameters()):
        assert torch.isfinite(x.grad).all()


def test_adapted_document_at_the_origin_gives_finite_gradients() -> None:
    adapter = RetrieverAdapter(AdapterConfig(embedding_dim=DIM, reader=residual()))
    c = F.normalize(torch.randn(1, DIM), dim=-1)
    with torch.no_grad():
        adapter.reader.output_layer.bias.copy_(-c[0])
    adapter(torch.randn(1, DIM), c).sum().backward()
    assert torch.isfinite(adapter.reader.output_layer.weight.grad).all()


# -------------------------------------------------------------------- types


def test_numpy_gives_numpy_and_torch_gives_torch() -> None:
    adapter = make(query_map=True)
    queries, candidates = embeddings(2, DIM), embeddings(2, 3, DIM)
    for method in (adapter.rerank, adapter.probability):
        from_numpy = method(queries, candidates)
        from_torch = method(torch.from_numpy(queries), torch.from_numpy(candidates))
        assert isinstance(from_numpy, np.ndarray)
        assert isinstance(from_torch, torch.Tensor)
        np.testing.assert_array_equal(from_numpy, from_torch.detach().numpy())
    assert isinstance(adapter.map_queries(queries), np.ndarray)
    assert isinstance(adapter.map_queries(torch.from_numpy(queries)), torch.Tensor)


def test_memory_maps_and_other_precisions_are_taken(tmp_path: Path) -> None:
    adapter = make(lambda_=0.3)
    queries, candidates = embeddings(2, DIM), embeddings(2, 3, DIM)
    queries.tofile(tmp_path / "q")
    mapped = np.memmap(tmp_path / "q", dtype=np.float32, mode="r", shape=(2, DIM))
    expected = adapter.rerank(queries, candidates)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(adapter.rerank(mapped, candidates), expected)
    wide = adapter.rerank(queries.astype(np.float64), candidates.astype(np.float64))
    np.testing.assert_array_equal(wide, expected)


def test_no_query_is_no_error() -> None:
    assert make().rerank(embeddings(0, DIM), embeddings(0, 3, DIM)).shape == (0, 3)
    assert make().rerank(embeddings(2, DIM), embeddings(2, 0, DIM)).shape == (2, 0)


# -------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("queries", "candidates", "match"),
    [
        ((2, DIM + 1), (2, 3, DIM), r"queries must have dimension 6, got 7"),
        ((2, DIM), (2, 3, DIM - 1), r"candidates must have dimension 6, got 5"),
        ((DIM,), (2, 3, DIM), r"queries must have 2 dimensions, got shape \(6,\)"),
        ((2, DIM), (2, DIM), r"candidates must have 3 dimensions, got shape \(2, 6\)"),
        ((2, DIM), (3, 3, DIM), r"queries and candidates must be of one length, got 2 and 3"),
    ],
)
def test_wrong_shapes_are_named(queries: tuple[int, ...], candidates: tuple[int, ...], match: str) -> None:
    for method in (make().rerank, make().probability):
        with pytest.raises(ValueError, match=match):
            method(embeddings(*queries), embeddings(*candidates))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_are_counted(bad: float) -> None:
    queries, candidates = embeddings(2, DIM), embeddings(2, 3, DIM)
    candidates[1, 2, :2] = bad
    with pytest.raises(ValueError, match=r"candidates must be finite, got 2 NaN or infinite values"):
        make().rerank(queries, candidates)
    with pytest.raises(ValueError, match="scores must be finite, got 6"):
        make().rerank(queries, embeddings(2, 3, DIM), np.full((2, 3), bad))


def test_scores_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"scores must be \(2, 3\) as candidates are, got \(2, 4\)"):
        make().rerank(embeddings(2, DIM), embeddings(2, 3, DIM), embeddings(2, 4))


@pytest.mark.parametrize("maps", [False, True])
def test_maps_refuse_another_dimension(maps: bool) -> None:
    adapter = make(query_map=maps, document_map=maps)
    with pytest.raises(ValueError, match=r"queries must have dimension 6, got 7"):
        adapter.map_queries(embeddings(2, DIM + 1))
    with pytest.raises(ValueError, match=r"documents must have dimension 6, got 5"):
        adapter.map_documents(embeddings(2, DIM - 1))


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"embedding_dim": 0}, "embedding_dim must be at least 1, got 0"),
        ({"tau": 0.0}, r"tau must be positive, got 0\.0"),
        ({"temperature": float("nan")}, "temperature must be positive, got nan"),
        ({"lambda_": -0.1}, r"lambda_ must not be negative, got -0\.1"),
        ({"reader": {}}, r"reader must be a dictionary with a kind, got \{\}"),
        ({"reader": "residual"}, "reader must be a dictionary with a kind, got 'residual'"),
    ],
)
def test_illegal_settings_are_named(values: dict[str, object], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        AdapterConfig(**{"embedding_dim": DIM, **values})


@pytest.mark.parametrize(
    ("reader", "match"),
    [
        ({"kind": "linear"}, "reader must be of a kind among features, residual, features_v2, got 'linear'"),
        (residual(hidden_size=0), "hidden_size must be at least 1, got 0"),
        (residual(num_classes=2), "num_classes must be 1 or 4, got 2"),
        (residual(scoring="sum"), "scoring must be one of log_odds, product, got 'sum'"),
        (residual(names=["memory"]), "setting that the kind 'residual' doesn't know: .*names"),
        (
            {"kind": "features", "hidden_size": 5},
            "setting that the kind 'features' doesn't know: .*hidden_size",
        ),
    ],
)
def test_illegal_settings_of_a_reader_are_named(reader: dict[str, object], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        RetrieverAdapter(AdapterConfig(embedding_dim=DIM, reader=reader))


# -------------------------------------------------------------------- files


@pytest.mark.parametrize("config", [{}, {"scoring": "product", "num_classes": 4, "query_map": True}])
def test_adapter_survives_its_folder(config: dict[str, object], tmp_path: Path) -> None:
    adapter = make(lambda_=0.25, temperature=1.5, fit={"queries": 7}, **config)
    adapter.save_pretrained(tmp_path / "a" / "b")
    loaded = RetrieverAdapter.from_pretrained(tmp_path / "a" / "b")
    assert loaded.config == adapter.config
    assert not loaded.training
    assert all(torch.equal(v, loaded.state_dict()[k]) for k, v in adapter.state_dict().items())
    assert sorted(p.name for p in (tmp_path / "a/b").iterdir()) == ["config.json", "model.safetensors"]
    x = embeddings(2, DIM), embeddings(2, 3, DIM)
    assert_alike(loaded.rerank(*x), adapter.rerank(*x))


def test_adapter_does_not_overwrite_another_model(tiny_bert: Path, tmp_path: Path) -> None:
    before = (tiny_bert / "model.safetensors").read_bytes()
    with pytest.raises(ValueError, match="holds a model of type 'bert'; save the adapter elsewhere"):
        make().save_pretrained(tiny_bert)
    assert (tiny_bert / "model.safetensors").read_bytes() == before
    RRRAModel.from_encoder(tiny_bert).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="holds a model of type 'rrra'"):
        make().save_pretrained(tmp_path)


def test_folders_without_an_adapter_are_refused(tiny_bert: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds a model of type 'bert', not an adapter"):
        RetrieverAdapter.from_pretrained(tiny_bert)
    with pytest.raises(FileNotFoundError, match=r"has no config\.json"):
        RetrieverAdapter.from_pretrained(tmp_path)
    make().save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no model\.safetensors"):
        RetrieverAdapter.from_pretrained(tmp_path)


@pytest.mark.parametrize("size", [0, 5, -1])
def test_damaged_weights_are_refused_by_file(size: int, tmp_path: Path) -> None:
    make().save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged"):
        RetrieverAdapter.from_pretrained(tmp_path)


def test_missing_weights_and_unknown_settings_are_named(tmp_path: Path) -> None:
    make().save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["reader.readout.bias"]
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"lacks the adapter weights reader\.readout\.bias"):
        RetrieverAdapter.from_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "depth": 2}))
    with pytest.raises(
        ValueError, match=r"config\.json of .* can't be used: Unknown adapter settings \['depth'\]"
    ):
        RetrieverAdapter.from_pretrained(tmp_path)

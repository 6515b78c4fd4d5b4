"""Where weights come from beside the dataset, and what is known to be no negative."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import MatryoshkaLoss
from sentence_transformers.util import cos_sim
from torch import Tensor
from torch.nn import functional as F

from loss_options import ALL, SYMMETRIC
from rrra_hf import RRRAModel
from rrra_hf.candidates import CandidatePool
from rrra_hf.losses import CachedRRRALoss, RRRALoss
from rrra_hf.losses.duplicates import text_ids
from rrra_hf.losses.weights import adapter_log_odds
from rrra_hf.models.adapter_rrra import RetrieverAdapter
from rrra_hf.models.configuration_rrra import AdapterConfig

BATCH, NEGATIVES, DIM, SCALE = 4, 2, 32, 20.0
TEXTS = [
    ["how do i list files", "copy a file", "sort text", "old query"],
    ["list files", "copy file to folder", "sort line of text", "new query"],
    ["find files", "list files in folder", "copy text", "old passage"],
    ["old query of a line", "new passage", "old text", "find the old query in the text"],
]


@pytest.fixture
def model(tiny_bert: Path) -> SentenceTransformer:
    """An encoder with an adapter that isn't at its start, without dropout."""
    made = RRRAModel.from_encoder(tiny_bert)
    made.adapter = RetrieverAdapter(AdapterConfig(embedding_dim=DIM, reader={"kind": "residual"}))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in made.adapter.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return made.to_sentence_transformer().eval()


def make_embeddings() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(BATCH, DIM, generator=generator).requires_grad_() for _ in range(2 + NEGATIVES)]


def make_pool(**changes: Any) -> CandidatePool:
    """Query i has the positive 3 i and the candidates 3 i + 1, 3 i + 2; query 0 also query 1's negatives."""
    return CandidatePool(
        **{
            "query_ids": [f"q{i}" for i in range(BATCH)],
            "document_ids": [f"d{i}" for i in range(3 * BATCH)],
            "positives": [np.array([3 * i]) for i in range(BATCH)],
            "candidates": np.array(
                [[1, 2, 4, 5], *([3 * i + 1, 3 * i + 2, -1, -1] for i in range(1, BATCH))]
            ),
            "scores": np.array([[0.0] * 4, *([[0.0, 0.0, -np.inf, -np.inf]] * (BATCH - 1))]),
            "probability": np.array(
                [[0.1, 0.5, 0.9, 1.0], *([0.2 * i, 0.3 * i, np.nan, np.nan] for i in range(1, BATCH))]
            ),
            **changes,
        }
    )


def pool_rows() -> Tensor:
    rows = torch.arange(BATCH)
    return torch.stack([rows, 3 * rows, 3 * rows + 1, 3 * rows + 2], dim=1)


def pool_probabilities() -> Tensor:
    return torch.tensor([[0.1, 0.5], *([0.2 * i, 0.3 * i] for i in range(1, BATCH))])


def value_of(loss: RRRALoss, labels: Tensor | None) -> Tensor:
    return loss.compute_loss_from_embeddings(make_embeddings(), labels)


def masses() -> Tensor:
    """The terms of the softmax, `(batch, documents)`."""
    queries, *columns = make_embeddings()
    return (cos_sim(queries, torch.cat(columns)) * SCALE).exp().detach()


def loss_of(masses: Tensor) -> Tensor:
    return (masses.sum(dim=1) / masses.diagonal()).log().mean()


# -------------------------------------------------------------------- from a pool


def test_with_a_pool_suspects_are_dropped_unless_another_use_is_asked_for() -> None:
    losses = [RRRALoss(None, pool=make_pool(), **given) for given in ({}, {"targets": "drop"})]
    torch.testing.assert_close(*(value_of(loss, pool_rows()) for loss in losses), rtol=0, atol=0)
    assert RRRALoss(None).targets == "weights"


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.5])
def test_a_pool_weighs_as_the_dataset_with_its_weights(gamma: float) -> None:
    weights = (1 - pool_probabilities()) ** gamma
    expected = value_of(RRRALoss(None), weights)
    loss = RRRALoss(None, pool=make_pool(), targets="weights", gamma=gamma)
    torch.testing.assert_close(value_of(loss, pool_rows()), expected)


@pytest.mark.parametrize("source", ["pool", "adapter"])
def test_known_negatives_weigh_one(model: SentenceTransformer, source: str) -> None:
    known = [np.array([3 * i + 1, 3 * i + 2]) for i in range(BATCH)]
    loss = RRRALoss(model, pool=make_pool(negatives=known), targets="weights", source=source)
    assert_close = torch.testing.assert_close
    assert_close(value_of(loss, pool_rows()), value_of(RRRALoss(None), torch.ones(BATCH, NEGATIVES)))


def test_documents_that_are_left_out_for_a_query_are_masked() -> None:
    # Document 6, the positive of query 2, is query 0 itself.
    nothing = np.empty(0, dtype=int)
    pool = make_pool(excluded=[np.array([6]), *[nothing] * (BATCH - 1)])
    labelled = make_pool(positives=[np.array([0, 6]), np.array([3]), np.array([6]), np.array([9])])
    values = [value_of(RRRALoss(None, pool=given), pool_rows()) for given in (pool, labelled)]
    torch.testing.assert_close(*values)


def test_labelled_documents_of_others_are_masked() -> None:
    # Document 6 is query 2's own positive in the batch, and labelled for query 0, too.
    pool = make_pool(positives=[np.array([0, 6]), np.array([3]), np.array([6]), np.array([9])])
    terms = masses()
    for column in range(NEGATIVES):
        for i in range(BATCH):
            terms[i, (column + 1) * BATCH + i] *= 1 - pool_probabilities()[i, column]
    whole = loss_of(terms)
    terms[0, 2] = 0
    masked = RRRALoss(None, pool=pool, targets="weights")
    torch.testing.assert_close(value_of(masked, pool_rows()), loss_of(terms))
    unmasked = RRRALoss(None, pool=pool, targets="weights", mask_known_positives=False)
    torch.testing.assert_close(value_of(unmasked, pool_rows()), whole)


def test_a_loss_without_a_pool_refuses_one() -> None:
    with pytest.raises(ValueError, match="made without a pool"):
        RRRALoss(None).pool = make_pool()


def test_another_pool_can_be_set() -> None:
    loss = RRRALoss(None, pool=make_pool())
    before = value_of(loss, pool_rows())
    loss.pool = make_pool(probability=np.where(make_pool().candidates >= 0, 0.0, np.nan))
    after = value_of(loss, pool_rows())
    torch.testing.assert_close(after, value_of(RRRALoss(None), None))
    assert after > before


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (None, "needs integer labels.*got none"),
        (torch.ones(BATCH, NEGATIVES), r"integer labels.*got torch.float32 of shape \(4, 2\)"),
        (pool_rows()[:, :3], r"pool's rows of query, positive and negatives, \(4, 4\), got shape \(4, 3\)"),
        (pool_rows() + 4, "4 queries and 12 documents, got 8 others, the first is 4"),
        (pool_rows() - 1, "4 queries and 12 documents, got 2 others, the first is -1"),
    ],
)
def test_labels_that_are_no_rows_of_the_pool_are_refused(labels: Tensor | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        value_of(RRRALoss(None, pool=make_pool()), labels)


def test_a_pool_without_any_candidate_weighs_nothing() -> None:
    nobody = np.full((BATCH, 1), -1)
    pool = make_pool(candidates=nobody, scores=nobody * np.inf, probability=nobody * np.nan)
    torch.testing.assert_close(
        value_of(RRRALoss(None, pool=pool), pool_rows()), value_of(RRRALoss(None), None)
    )


def test_a_pool_without_probabilities_is_refused() -> None:
    with pytest.raises(ValueError, match="pool must have probabilities"):
        RRRALoss(None, pool=make_pool(probability=None))


# -------------------------------------------------------------------- from the adapter


def adapter_probabilities(model: SentenceTransformer) -> Tensor:
    """The adapter's probability for each query and document of the batch."""
    queries, *columns = (e.detach() for e in make_embeddings())
    candidates = torch.cat(columns).expand(BATCH, -1, -1)
    adapter = RRRAModel.from_sentence_transformer(model).adapter
    return adapter.probability(queries, candidates)


def own_probabilities(model: SentenceTransformer) -> Tensor:
    everything = adapter_probabilities(model)
    columns = [everything[:, (j + 1) * BATCH : (j + 2) * BATCH].diagonal() for j in range(NEGATIVES)]
    return torch.stack(columns, dim=1)


def test_weights_of_the_adapter_are_of_its_probabilities(model: SentenceTransformer) -> None:
    weights = (1 - own_probabilities(model)) ** 2
    assert weights.std() > 0.01
    loss = RRRALoss(model, source="adapter", gamma=2.0)
    torch.testing.assert_close(value_of(loss, None), value_of(RRRALoss(model), weights))


def test_a_pool_may_label_and_the_adapter_weigh(model: SentenceTransformer) -> None:
    # Document 6 is query 2's own positive in the batch, and labelled for query 0, too.
    pool = make_pool(positives=[np.array([0, 6]), np.array([3]), np.array([6]), np.array([9])])
    terms = masses()
    for column in range(NEGATIVES):
        for i in range(BATCH):
            terms[i, (column + 1) * BATCH + i] *= 1 - own_probabilities(model)[i, column]
    terms[0, 2] = 0
    loss = RRRALoss(model, pool=pool, targets="weights", source="adapter")
    torch.testing.assert_close(value_of(loss, pool_rows()), loss_of(terms))


@pytest.mark.parametrize("adapter_weight", [0.0, 0.5])
def test_only_its_own_loss_trains_the_adapter(model: SentenceTransformer, adapter_weight: float) -> None:
    value_of(RRRALoss(model, source="adapter", adapter_weight=adapter_weight), None).backward()
    gradients = [p.grad for p in RRRAModel.from_sentence_transformer(model).adapter.parameters()]
    reached = any(gradient is not None and gradient.abs().sum() > 0 for gradient in gradients)
    assert reached == (adapter_weight > 0)


def test_an_adapter_that_is_certain_leaves_everything_finite(model: SentenceTransformer) -> None:
    adapter = RRRAModel.from_sentence_transformer(model).adapter
    for bias in (-1e4, 1e4):
        with torch.no_grad():
            adapter.reader.readout.bias.fill_(bias)
        embeddings = make_embeddings()
        loss = RRRALoss(model, source="adapter", gamma=3.0, adapter_weight=0.5)
        value = loss.compute_loss_from_embeddings(embeddings, None)
        value.backward()
        assert value.isfinite()
        assert all(e.grad is not None and e.grad.isfinite().all() for e in embeddings)


def test_the_adapters_own_loss_is_added(model: SentenceTransformer) -> None:
    queries, *columns = (e.detach() for e in make_embeddings())
    adapter = RRRAModel.from_sentence_transformer(model).adapter
    documents = [torch.stack([*columns[0], *(column[i] for column in columns[1:])]) for i in range(BATCH)]
    logits = adapter(queries[:, None], torch.stack(documents))
    adapters = F.cross_entropy(logits, torch.arange(BATCH))
    expected = value_of(RRRALoss(model), None) + 0.25 * adapters
    loss = value_of(RRRALoss(model, adapter_weight=0.25), None)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert all(p.grad is not None for p in adapter.reader.readout.parameters())


def test_under_bfloat16_the_adapter_keeps_its_precision(model: SentenceTransformer) -> None:
    adapter = RRRAModel.from_sentence_transformer(model).adapter
    queries, documents = torch.randn(3, 1, DIM).bfloat16(), torch.randn(1, 5, DIM).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        log_odds = adapter_log_odds(adapter, queries, documents)
    assert torch.equal(log_odds, adapter(queries.float(), documents.float()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gamma": -1.0, "source": "adapter"}, "gamma must be a number of at least 0, got -1.0"),
        ({"gamma": float("nan")}, "gamma must be a number of at least 0, got nan"),
        ({"adapter_weight": -0.5}, "adapter_weight must be a number of at least 0, got -0.5"),
        ({"gamma": 2.0}, "gamma needs targets='weights' and .* got 2.0 with .* source='dataset'"),
        ({"source": "pool"}, "source must be 'dataset' or 'adapter' without a pool .* got 'pool'"),
        ({"source": "dataset", "pool": make_pool()}, "'pool' or 'adapter' with a pool .* got 'dataset'"),
        ({"targets": "hard"}, "targets must be one of weights, drop, .* got 'hard'"),
        (
            {"targets": "distill", "source": "adapter"},
            "must be 'dataset' without a pool and targets='distill'",
        ),
        ({"targets": "distill", "pool": make_pool()}, "pool must have ranking_scores"),
        ({"targets": "drop", "threshold": 1.0}, r"threshold must be in \[0, 1\), got 1.0"),
        ({"targets": "distill", "teacher_temperature": 0.0}, "teacher_temperature must be positive, got 0.0"),
        ({"directions": ("doc_to_query",)}, "'query_to_doc' direction is required"),
        ({"directions": ALL, "partition_mode": "per_direction"}, "partition_mode='per_direction'"),
        ({"hardness_mode": "all"}, "hardness_mode must be one of"),
    ],
)
@pytest.mark.parametrize("loss", [RRRALoss, CachedRRRALoss])
def test_illegal_settings_are_refused(
    loss: Any, model: SentenceTransformer, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        loss(model, **options)


@pytest.mark.parametrize("options", [{"source": "adapter"}, {"adapter_weight": 0.1}])
def test_an_encoder_without_an_adapter_is_refused(tiny_bert: Path, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="model must hold an RRRAModel"):
        RRRALoss(SentenceTransformer(str(tiny_bert), device="cpu"), **options)


def test_a_frozen_adapter_cannot_be_trained(model: SentenceTransformer) -> None:
    RRRAModel.from_sentence_transformer(model).adapter.requires_grad_(False)
    RRRALoss(model, source="adapter")
    with pytest.raises(ValueError, match="which is frozen"):
        RRRALoss(model, adapter_weight=0.1)


def test_weights_of_the_adapter_and_of_the_dataset_exclude_each_other(model: SentenceTransformer) -> None:
    with pytest.raises(ValueError, match="remove the dataset's column of labels"):
        value_of(RRRALoss(model, source="adapter"), torch.ones(BATCH, NEGATIVES))


# -------------------------------------------------------------------- known positives by their text


def features_of(model: SentenceTransformer, texts: list[list[str]]) -> list[dict[str, Tensor]]:
    return [model.preprocess(column) for column in texts]


def masked_loss(model: SentenceTransformer, texts: list[list[str]], mask: Tensor) -> Tensor:
    """The in-batch loss without the documents at the masked places."""
    with torch.no_grad():
        queries, *columns = (model(features)["sentence_embedding"] for features in features_of(model, texts))
    terms = (cos_sim(queries, torch.cat(columns)) * SCALE).exp()
    return loss_of(terms.masked_fill(mask, 0))


@pytest.mark.parametrize("make", [RRRALoss, lambda model: CachedRRRALoss(model, mini_batch_size=3)])
def test_copies_and_positives_of_the_same_query_are_masked(model: SentenceTransformer, make: Any) -> None:
    texts = [list(column) for column in TEXTS]
    texts[0][3] = texts[0][0]  # rows 0 and 3 are of the same query
    texts[2][1] = texts[1][2]  # row 2's positive is row 1's negative
    texts[3][2] = texts[2][0]  # row 0's first negative is row 2's second
    texts[3][0] = texts[1][0]  # row 0 has its own positive as a negative
    mask = torch.zeros(BATCH, 3 * BATCH, dtype=torch.bool)
    for row, column, other in [
        (0, 0, 3), (3, 0, 0),  # each other's positives
        (2, 1, 1), (1, 0, 2),  # a copy of row 2's positive, which is itself a copy of row 1's negative
        (0, 2, 2), (2, 1, 0),  # copies of each other's negatives
        (0, 2, 0), (3, 2, 0),  # a copy of row 0's positive among its own negatives
    ]:  # fmt: skip
        mask[row, column * BATCH + other] = True
    value = make(model)(features_of(model, texts), None)
    torch.testing.assert_close(value, masked_loss(model, texts, mask), rtol=1e-5, atol=1e-5)


def test_without_copies_nothing_is_masked(model: SentenceTransformer) -> None:
    features = features_of(model, TEXTS)
    unmasked = RRRALoss(model, mask_known_positives=False)(features, None)
    assert torch.equal(RRRALoss(model)(features, None), unmasked)


def test_masks_hold_in_all_directions(model: SentenceTransformer) -> None:
    # Four times the same row: there is no negative at all.
    texts = [[column[0]] * BATCH for column in TEXTS[:2]]
    value = RRRALoss(model, directions=ALL)(features_of(model, texts), None)
    # The positive pair is there twice, from query to document and back.
    torch.testing.assert_close(value, torch.tensor(2.0).log(), rtol=0, atol=1e-5)
    symmetric = RRRALoss(model, directions=SYMMETRIC, partition_mode="per_direction")
    torch.testing.assert_close(
        symmetric(features_of(model, texts), None), torch.tensor(0.0), rtol=0, atol=1e-5
    )


tokens = st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=5), min_size=2, max_size=8)


@settings(max_examples=60, deadline=None)
@given(tokens, st.integers(0, 3), st.booleans())
def test_ids_are_equal_exactly_where_texts_are(texts: list[list[int]], more: int, left: bool) -> None:
    length = max(map(len, texts)) + more
    padded, mask = [], []
    for text in texts:
        padding = [9] * (length - len(text))
        padded.append(padding + text if left else text + padding)
        mask.append([0] * len(padding) + [1] * len(text) if left else [1] * len(text) + [0] * len(padding))
    ids = text_ids([{"input_ids": torch.tensor(padded), "attention_mask": torch.tensor(mask)}])
    lengths = torch.tensor([0, *map(len, texts)]).cumsum(0).int()
    flat = {
        "input_ids": torch.tensor([[token for text in texts for token in text]]),
        "cu_seq_lens_q": lengths,
    }
    assert ids is not None
    assert torch.equal(ids, text_ids([flat]))  # type: ignore[arg-type]
    same = [[a == b for b in texts] for a in texts]
    assert (ids == ids.T).tolist() == same


def test_what_is_no_text_has_no_ids() -> None:
    assert text_ids([{"pixel_values": torch.zeros(2, 3)}]) is None
    assert text_ids([{"input_ids": torch.tensor([1, 2, 3]), "offsets": torch.tensor([0, 2])}]) is None


# -------------------------------------------------------------------- cached, and inside other losses

SOURCES: list[dict[str, Any]] = [
    {},
    {"directions": ALL},
    {"source": "adapter", "gamma": 2.0},
    {"source": "adapter", "adapter_weight": 0.5},
    {
        "adapter_weight": 0.5,
        "directions": SYMMETRIC,
        "partition_mode": "per_direction",
    },
    {"pool": make_pool(), "targets": "weights", "gamma": 2.0, "directions": SYMMETRIC},
    {"pool": make_pool(), "source": "adapter", "adapter_weight": 0.5},
]


@pytest.mark.parametrize("options", SOURCES)
@pytest.mark.parametrize("mini_batch_size", [1, 3, 8])
def test_cached_equals_plain_in_all_gradients(
    model: SentenceTransformer, options: dict[str, Any], mini_batch_size: int
) -> None:
    features, labels = features_of(model, TEXTS), pool_rows() if "pool" in options else None
    results = []
    for loss in (
        RRRALoss(model, **options),
        CachedRRRALoss(model, mini_batch_size=mini_batch_size, **options),
    ):
        model.zero_grad()
        # A loss that is scaled, as by gradient accumulation, and twice, as there.
        for _ in range(2):
            value = loss(features, labels)
            (value / 2).backward()
        grads = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        results.append(
            (value.detach(), {name: grad for name, grad in grads.items() if grad.abs().sum() > 1e-6})
        )
    # Gradients of what all tokens share are sums of large ones that cancel.
    torch.testing.assert_close(results[1], results[0], rtol=1e-4, atol=5e-5)


@pytest.mark.parametrize(
    "make", [RRRALoss, lambda model, **options: CachedRRRALoss(model, mini_batch_size=3, **options)]
)
@pytest.mark.parametrize(
    ("options", "labels"),
    [({}, (1 - pool_probabilities())), ({"pool": make_pool()}, pool_rows())],
)
def test_in_matryoshka_each_dimension_is_weighted(
    model: SentenceTransformer, make: Any, options: dict[str, Any], labels: Tensor
) -> None:
    value = MatryoshkaLoss(model, make(model, **options), [32, 8], [1.0, 0.5])(
        features_of(model, TEXTS), labels
    )
    with torch.no_grad():
        whole = [model(features)["sentence_embedding"] for features in features_of(model, TEXTS)]
    parts = [
        RRRALoss(model, **options).compute_loss_from_embeddings([e[:, :dim] for e in whole], labels)
        for dim in (32, 8)
    ]
    torch.testing.assert_close(value, parts[0] + 0.5 * parts[1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("make", [RRRALoss, CachedRRRALoss])
@pytest.mark.parametrize("options", [{"source": "adapter"}, {"adapter_weight": 0.1}])
def test_in_matryoshka_an_adapter_is_refused(
    model: SentenceTransformer, make: Any, options: dict[str, Any]
) -> None:
    loss = MatryoshkaLoss(model, make(model, **options), [32, 8])
    with pytest.raises(ValueError, match=r"reads embeddings of dimension 32, got 8.*MatryoshkaLoss"):
        loss(features_of(model, TEXTS), None)

"""Fitting the paper's adapter, a residual network over the two embeddings."""

from __future__ import annotations

import copy
import logging
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm.auto import tqdm

from ..candidates import DocumentFeatures, mine_embeddings
from ..candidates.labelled import LabelledQueries, gather, shuffled_batches
from ..candidates.reading import Judged, judge_candidates
from ..candidates.retrieved import RetrievedCandidates
from ..indexes import WordIndex
from ..models.adapter_rrra import RetrieverAdapter
from ..models.configuration_rrra import AdapterConfig
from ..models.residual_rrra import ResidualOutput, ResidualReader
from .arguments import ResidualFitArguments
from .calibration import calibrate
from .data import FitData, hold_out_development
from .maps import ChosenMaps, Maps, choose_maps
from .residual_candidates import Candidates, CandidateSampler
from .residual_objectives import four_class_loss, listwise_loss, pointwise_loss, segment_loss
from .strength import choose_strength, quality_by_strength

logger = logging.getLogger(__name__)


def fit_residual(
    data: FitData,
    arguments: ResidualFitArguments,
    chosen: ChosenMaps | None = None,
    make_reader: type[ResidualReader] = ResidualReader,
) -> RetrieverAdapter:
    """Fit maps, if asked for, then the network; calibrate it and choose its strength.

    Args:
        data: What to fit on.
        arguments: Settings.
        chosen: What `choose_maps` returned for these arguments; None to call it.
        make_reader: Class of the network, for ablations.
    """
    data = hold_out_development(data, arguments.development_fraction, arguments.seed)
    maps = None if arguments.maps == "none" else (chosen or choose_maps(data, arguments)).maps
    if maps is not None:
        data = _mapped(maps, data, arguments)
    assert data.development is not None
    retrieved = RetrievedCandidates.retrieve(data.development, data.documents, arguments.depth)
    adapter = fit_network(data, retrieved, arguments, make_reader)
    features = DocumentFeatures.of(adapter.reader, [data.documents], None)
    calibrate(adapter, retrieved, data.documents, features)
    choose_strength(adapter, retrieved, data.documents, features)
    if maps is not None:
        maps.install(adapter)
    return adapter


def cross_fit_residual(
    training: LabelledQueries,
    candidates: np.ndarray,
    documents: np.ndarray,
    words: WordIndex | None,
    development: LabelledQueries | None,
    arguments: ResidualFitArguments,
    folds: int,
    adapter: RetrieverAdapter | None,
) -> Judged:
    """Return the probability of each candidate, by an adapter that was fitted on the other folds.

    Args:
        training: The queries.
        candidates: Rows of each query's candidates, `(n, depth)`, -1 where there are none left.
        documents: Embeddings of the documents, `(m, dim)`.
        words: Not used: the network reads no words.
        development: Development queries; None to hold out some queries of each fit.
        arguments: Settings.
        folds: Number of folds.
        adapter: Must be None: each fold has an adapter of its own.

    Returns:
        The probabilities. There are no ranking scores.

    Raises:
        ValueError: If an adapter is given.
    """
    if adapter is not None:
        raise ValueError("adapter can't be given with ResidualFitArguments, which fit one for each fold.")
    probabilities = np.empty(candidates.shape, dtype=np.float32)
    dealt = np.random.default_rng(arguments.seed).permutation(len(training.positives)) % folds
    for fold in range(folds):
        part, others = np.flatnonzero(dealt == fold), np.flatnonzero(dealt != fold)
        taught = FitData(training.select(others), candidates[others], documents, development)
        adapter = fit_residual(taught, arguments)
        judged = judge_candidates(adapter, training.embeddings[part], candidates[part], documents)
        probabilities[part] = judged.probability
        logger.info("Cross-fitted fold %d of %d", fold + 1, folds)
    return Judged(probabilities, None)


def fit_network(
    data: FitData,
    development: RetrievedCandidates,
    arguments: ResidualFitArguments,
    make_reader: type[ResidualReader] = ResidualReader,
) -> RetrieverAdapter:
    """Train the network, and return it as it was when the development queries were ranked best.

    Args:
        data: What to fit on, mapped.
        development: What is retrieved for the development queries.
        arguments: Settings.
        make_reader: Class of the network.
    """
    rng = np.random.default_rng(arguments.seed)
    dim = data.documents.shape[1]
    settings: dict[str, Any] = {
        "hidden_size": arguments.hidden_size,
        "num_classes": 4 if arguments.objective == "four_class" else 1,
        "scoring": arguments.scoring,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(arguments.seed)
        reader = make_reader(dim, arguments.tau, **settings)
        config = AdapterConfig(embedding_dim=dim, tau=arguments.tau, reader={"kind": "residual", **settings})
        return _train(RetrieverAdapter(config, reader), reader, data, development, arguments, rng)


def _mapped(maps: Maps, data: FitData, arguments: ResidualFitArguments) -> FitData:
    """Return the data as the maps see it, with candidates mined anew."""
    assert data.development is not None
    documents = maps.map_documents(data.documents)
    training, development = (
        queries._replace(embeddings=maps.map_queries(queries.embeddings), words=None)
        for queries in (data.training, data.development)
    )
    mined = mine_embeddings(
        training.embeddings,
        documents,
        training.positives,
        depth=arguments.depth,
        excluded=training.excluded,
    )
    return FitData(training, mined.candidates, documents, development)


def _train(
    adapter: RetrieverAdapter,
    reader: ResidualReader,
    data: FitData,
    development: RetrievedCandidates,
    arguments: ResidualFitArguments,
    rng: np.random.Generator,
) -> RetrieverAdapter:
    documents = data.documents
    sampler = CandidateSampler(data.training, data.candidates, len(documents), arguments.mined_negatives, rng)
    cutoffs = _cutoffs(data)
    if arguments.objective != "listwise":
        _centre(reader, cutoffs)
    optimizer = torch.optim.AdamW(
        reader.parameters(), lr=arguments.learning_rate, weight_decay=arguments.weight_decay
    )
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, arguments.max_steps)
    batches = shuffled_batches(len(data.candidates), arguments.batch_size, rng)
    features = DocumentFeatures.of(reader, [documents], None)
    best, best_quality, since_best = copy.deepcopy(reader.state_dict()), -1.0, 0
    for step in tqdm(range(1, arguments.max_steps + 1), desc="Fitting adapter", leave=False, disable=None):
        batch = next(batches)
        adapter.train()
        loss = _step_loss(reader, data, sampler.draw(batch), batch, cutoffs, arguments)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % arguments.eval_steps and step < arguments.max_steps:
            continue
        quality = quality_by_strength(adapter, development, documents, features).mean(axis=1).max()
        logger.info("Step %d: loss %.4f, development nDCG@10 %.4f", step, loss.item(), quality)
        since_best += 1
        if quality > best_quality:
            best, best_quality, since_best = copy.deepcopy(reader.state_dict()), quality, 0
        if since_best >= arguments.patience:
            break
    reader.load_state_dict(best)
    return adapter.eval()


@torch.no_grad()
def _centre(reader: ResidualReader, cutoffs: Tensor) -> None:
    """Start a pointwise readout at even odds where the candidates' cosines end.

    With a bias of zero every cosine would mean certainty, and learning the level of this encoder's cosines
    would take all the steps.
    """
    reader.readout.bias.copy_(-reader.readout.weight[:, 0] * cutoffs.mean())


def _step_loss(
    reader: ResidualReader,
    data: FitData,
    drawn: Candidates,
    batch: np.ndarray,
    cutoffs: Tensor,
    arguments: ResidualFitArguments,
) -> Tensor:
    q = F.normalize(gather(data.training.embeddings, batch), dim=-1)[:, None]
    own_c = F.normalize(gather(data.documents, drawn.own), dim=-1)
    shared_c = F.normalize(gather(data.documents, drawn.shared), dim=-1)[None]
    own, shared = reader.adapt(q, own_c), reader.adapt(q, shared_c)
    output = ResidualOutput(
        own.adapted, *(torch.cat(pair, dim=1) for pair in zip(own[1:], shared[1:], strict=True))
    )
    cosines = torch.cat([(q * own_c).sum(-1), (q * shared_c).sum(-1)], dim=1)
    loss = _objective(output, drawn, cosines >= cutoffs[batch, None], arguments.objective)
    if arguments.segment_weight:
        loss = loss + arguments.segment_weight * segment_loss(own.adapted, q, own_c)
    return loss


def _objective(output: ResidualOutput, drawn: Candidates, retrieved: Tensor, objective: str) -> Tensor:
    if objective == "listwise":
        return listwise_loss(output.log_odds, drawn.labels, drawn.mask)
    if objective == "bce":
        return pointwise_loss(output.log_odds, drawn.labels, drawn.mask)
    return four_class_loss(output.class_logits, drawn.labels, retrieved, drawn.mask)


def _cutoffs(data: FitData) -> Tensor:
    """Return the cosine of each query's last candidate, `(n,)`: documents above it count as retrieved."""
    queries, mined = data.training.embeddings, data.candidates
    last = mined[np.arange(len(mined)), np.maximum((mined >= 0).sum(axis=1) - 1, 0)]
    return F.cosine_similarity(gather(queries, np.arange(len(queries))), gather(data.documents, last), dim=-1)

"""Model cards: what they say is what a folder records, and their snippets run as printed."""

from __future__ import annotations

import builtins
import json
import re
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import ModelCard
from huggingface_hub.repocard import metadata_load, metadata_save
from huggingface_hub.repocard_data import eval_results_to_model_index, model_index_to_eval_results
from sentence_transformers import SentenceTransformer

from cards import PNG, PRESETS, card_of, check_bins, config_of, copy, forget, written
from command_line import rrra
from retriever_models import RESIDUAL, make_adapter
from rrra_hf import Retriever, RetrieverAdapter, RRRAModel
from rrra_hf.evaluation import reliability_bins
from rrra_hf.hub import model_card
from rrra_hf.hub.citations import CITATIONS
from rrra_hf.hub.layout import CARD_NAME, EVALUATION_NAME, PLOT_NAME
from rrra_hf.hub.saved import read_evaluations
from rrra_hf.retrieval import evaluate, evaluate_saved
from tiny import word_collection

# -------------------------------------------------------------------- figures


@pytest.mark.parametrize("preset", PRESETS)
def test_a_saved_model_measures_as_its_retriever_does(fitted, collection, preset):
    [figures] = read_evaluations(fitted(preset))
    retriever = Retriever.from_pretrained(fitted(preset)).index(collection)
    quality = evaluate(retriever, collection.split("test")).quality
    measured = figures["quality"]["all"]
    searched = "maps" if "maps" in measured else "encoder"
    assert list(quality) == [searched, "adapter"]
    for system in quality:
        assert measured[system] == pytest.approx(quality[system].mean)
    assert (figures["collection"], figures["split"], figures["documents"]) == ("words", "test", 30)
    assert figures["queries"]["all"] == 20


def test_the_encoder_is_measured_without_the_adapters_maps(fitted, collection, tiny_bert):
    [figures] = read_evaluations(fitted("features"))
    assert list(figures["quality"]["all"]) == ["encoder", "maps", "adapter"]
    bare = Retriever(SentenceTransformer(str(tiny_bert), device="cpu"), adapter=None).index(collection)
    expected = evaluate(bare, collection.split("test")).quality["encoder"].mean
    assert figures["quality"]["all"]["encoder"] == pytest.approx(expected)


def test_groups_of_seen_and_unseen_make_up_all(tiny_bert, tmp_path):
    collection = word_collection(50, train=10, test=50)
    model = RRRAModel.from_encoder(tiny_bert, adapter={"reader": RESIDUAL, "lambda_": 0.5})
    model.save_pretrained(tmp_path / "model")
    figures = evaluate_saved(tmp_path / "model", collection)
    queries, quality = figures["queries"], figures["quality"]
    assert queries["seen"] + queries["unseen"] == queries["all"] == 50
    for measure, mean in quality["all"]["encoder"].items():
        parts = [queries[group] * quality[group]["encoder"][measure] for group in ("seen", "unseen")]
        assert sum(parts) / 50 == pytest.approx(mean)


def test_detection_and_calibration_are_of_the_documents_found(fitted):
    [figures] = read_evaluations(fitted("residual"))
    # Each query has one relevant document among all thirty, which are all found.
    assert figures["detection"]["pairs"] == 600
    assert figures["detection"]["base_rate"] == pytest.approx(1 / 30)
    check_bins(figures["calibration"]["reliability"], pairs=600, relevant=20)


def test_a_retriever_with_an_adapter_of_its_own_is_measured(tiny_bert, collection, tmp_path):
    encoder = SentenceTransformer(str(tiny_bert), device="cpu")
    Retriever(encoder, make_adapter(lambda_=0.5)).save_pretrained(tmp_path / "retriever")
    figures = evaluate_saved(tmp_path / "retriever", collection)
    expected = evaluate(
        Retriever(encoder, make_adapter(lambda_=0.5)).index(collection), collection.split("test")
    )
    assert figures["quality"]["all"]["adapter"] == pytest.approx(expected.quality["adapter"].mean)


def test_figures_replace_those_of_the_same_split_alone(fitted, collection, tmp_path):
    folder = copy(fitted("residual"), tmp_path)
    for split in ("dev", "test", "dev"):
        evaluate_saved(folder, collection, split)
    assert [figures["split"] for figures in read_evaluations(folder)] == ["test", "dev"]


def test_an_adapter_alone_can_not_be_measured(collection, tmp_path):
    make_adapter().save_pretrained(tmp_path / "adapter")
    with pytest.raises(ValueError, match="folder must hold a model with its encoder and an adapter"):
        evaluate_saved(tmp_path / "adapter", collection)


def test_bins_of_equal_width_leave_out_what_is_empty():
    bins = reliability_bins(
        np.array([[0.05, 1.0], [0.19, 0.15]]), np.array([[0, 1], [0, 1]]), bins=10, equal_width=True
    )
    np.testing.assert_allclose(bins.mean_probability, [0.05, 0.17, 1.0])
    assert bins.share.tolist() == [0.0, 0.5, 1.0]
    assert bins.num_pairs.tolist() == [1, 2, 1]


# -------------------------------------------------------------------- what a fit records


def test_a_fit_records_its_data_and_its_bins(fitted):
    fit = config_of(fitted("residual"))["fit"]
    assert fit["data"] == {"queries": 40, "pairs": 40, "documents": 30, "collection": "words"}
    found = round(sum(np.multiply(*(fit["development"]["reliability"][k] for k in ("share", "pairs")))))
    check_bins(fit["development"]["reliability"], pairs=150, relevant=found)
    assert 0 < found <= 15


# -------------------------------------------------------------------- the card


@pytest.mark.parametrize("preset", PRESETS)
def test_every_figure_of_a_card_is_in_its_folder(fitted, preset):
    card = card_of(fitted(preset))
    [figures] = read_evaluations(fitted(preset))
    fit = config_of(fitted(preset))["fit"]
    known = [
        value for group in figures["quality"].values() for row in group.values() for value in row.values()
    ]
    known += [100 * figures["detection"]["base_rate"]]
    known += [value for value in figures["calibration"].values() if isinstance(value, float)]
    for score in figures["detection"]["scores"].values():
        known += [score["average_precision"], *score["interval"], score["auroc"]]
    for kind in ("unseen", "development", "calibration"):
        known += fit.get(kind, {}).get("nDCG@10", {}).values()
        known += [fit[kind]["expected_calibration_error"]] if "reliability" in fit.get(kind, {}) else []
    text = card.partition("## Evaluation")[2].partition("## Training")[0]
    shown = re.findall(r"(?<![\w.])\d+\.\d+", text)
    assert len(shown) > 15
    for number in shown:
        places = len(number.partition(".")[2])
        assert any(f"{value:.{places}f}" == number for value in known), number


@pytest.mark.parametrize("preset", PRESETS)
def test_metadata_goes_through_the_hubs_own_functions_unchanged(fitted, preset, tmp_path):
    card = ModelCard(card_of(fitted(preset), "me/words"))
    [figures] = read_evaluations(fitted(preset))
    path = tmp_path / CARD_NAME
    card.save(path)
    metadata = metadata_load(path)
    name, results = model_index_to_eval_results(metadata["model-index"])
    assert name == "words"
    assert eval_results_to_model_index(name, results) == metadata["model-index"]
    found = {result.metric_name: result.metric_value for result in results}
    quality = figures["quality"]["all"]
    assert found["nDCG@10, encoder alone"] == round(quality["encoder"]["nDCG@10"], 4)
    assert found["nDCG@10, with the adapter"] == round(quality["adapter"]["nDCG@10"], 4)
    assert {result.dataset_name for result in results} == {"words"}
    assert set(metadata["metrics"]) == {result.metric_type for result in results}
    metadata_save(path, metadata)
    assert ModelCard.load(path).data.to_dict() == card.data.to_dict()
    assert metadata["tags"][:2] == ["sentence-transformers", "sentence-similarity"]


@pytest.mark.slow
def test_card_of_a_trained_model(trained):
    card = card_of(trained)
    record = config_of(trained)["fit"]["training"]
    assert "`lora_alpha=32`, `r=16`" in card
    compared = record["stages"]["comparison"]
    assert compared["sentence"] in card
    figures = {name: compared["development"][name]["adapter"]["nDCG@10"] for name in ("frozen", "stage1")}
    assert f"| as it came | adapter | {figures['frozen']:.3f} |" in card
    assert f"| stage 1: in-batch negatives | adapter | {figures['stage1']:.3f} |" in card
    assert "* `num_negatives`: 2\n" in card
    assert "hu2022lora" in card and "chernozhukov2018double" in card
    assert "as in the base model" not in card
    # An interrupted run is to end with the same folder.
    assert "seconds" not in json.dumps(record)


@pytest.mark.slow
def test_merged_lora_is_a_finetuned_model(trained, tmp_path):
    model = RRRAModel.from_pretrained(trained).merge_lora()
    model.config.base_model_name = "me/base"
    model.save_pretrained(tmp_path / "merged")
    card = ModelCard(card_of(tmp_path / "merged"))
    assert (card.data.base_model, card.data.base_model_relation) == ("me/base", "finetune")
    assert "**LoRA:** merged into the weights" in card.text
    assert "[me/base](https://huggingface.co/me/base)" in card.text


@pytest.mark.slow
def test_methods_used_are_cited_and_no_others(fitted, trained):
    cited = {
        name: {key for key, entry in CITATIONS.items() if entry in card_of(folder)}
        for name, folder in {
            "residual": fitted("residual"),
            "features": fitted("features"),
            "trained": trained,
        }.items()
    }
    fit = {"rrra", "sentence-bert", "platt", "calibration"}
    assert cited["residual"] == fit
    assert cited["features"] == fit | {"infonce", "in-batch", "bm25"}
    assert cited["trained"] == fit | {"infonce", "in-batch", "lora", "cross-fitting"}


def test_bibtex_entries_have_names_of_their_own_and_balanced_braces():
    keys = [re.match(r"@\w+\{(\w+),\n", entry)[1] for entry in CITATIONS.values()]
    assert len(set(keys)) == len(keys)
    assert all(entry.count("{") == entry.count("}") for entry in CITATIONS.values())


@pytest.mark.parametrize("preset", PRESETS)
def test_old_folders_get_a_card_without_what_they_do_not_record(fitted, preset, tmp_path):
    folder = copy(fitted(preset), tmp_path)
    forget(folder, "data")
    card = written(folder)
    assert "## Evaluation" not in card and "training queries with" not in card
    heading = {"residual": "## Development queries", "features": "## Queries of the choice"}[preset]
    assert heading in card
    forget(folder)
    (folder / PLOT_NAME).unlink(missing_ok=True)
    card = written(folder)
    assert heading not in card and "## Training" not in card
    assert not (folder / PLOT_NAME).exists()
    assert "model-index" not in card
    assert all("\n\n\n" not in text for text in card.split("```")[::2])


def test_figures_of_queries_that_were_tuned_on_are_called_that(fitted, collection, tmp_path):
    folder = copy(fitted("residual"), tmp_path)
    assert "fitted or tuned on these queries" not in card_of(folder)
    evaluate_saved(folder, collection, "dev")
    assert card_of(folder).count("fitted or tuned on these queries") == 1


def test_an_adapter_that_was_never_fitted_is_none_of_a_model(tiny_bert, tmp_path):
    model = RRRAModel.from_encoder(tiny_bert, adapter={"reader": RESIDUAL})
    model.save_pretrained(tmp_path / "fresh")
    assert "**Adapter:**" not in card_of(tmp_path / "fresh")
    model.adapter.save_pretrained(tmp_path / "alone")
    assert "the adapter changes no ranking" in card_of(tmp_path / "alone")


def test_cards_say_that_an_adapter_comes_trained(tiny_bert, tmp_path):
    RRRAModel.from_encoder(tiny_bert).save_pretrained(tmp_path / "model")
    RetrieverAdapter.pretrained().save_pretrained(tmp_path / "adapter")
    Retriever(SentenceTransformer(str(tiny_bert), device="cpu")).save_pretrained(tmp_path / "retriever")
    for name in ("model", "adapter", "retriever"):
        card = card_of(tmp_path / name)
        assert "The adapter is the one that comes with rrra-hf." in card
        assert "reads features (cosine, " in card and "The adapter needs no labels." in card
        assert "training queries" not in card and "None" not in card
    assert "any number of dimensions" in card_of(tmp_path / "adapter")


def test_hub_names_become_metadata(fitted, tmp_path):
    folder = copy(fitted("residual"), tmp_path)
    config = json.loads((folder / "config.json").read_text())
    config["base_model_name"] = "sentence-transformers/all-MiniLM-L6-v2"
    config["adapter"]["fit"]["data"]["collection"] = "me/pairs"
    (folder / "config.json").write_text(json.dumps(config))
    data = ModelCard(card_of(folder)).data
    assert data.base_model == "sentence-transformers/all-MiniLM-L6-v2"
    assert (data.base_model_relation, data.datasets) == ("adapter", ["me/pairs"])
    ours = ModelCard(card_of(fitted("residual"))).data
    assert ours.get("base_model") is None and ours.get("datasets") is None


@pytest.mark.parametrize("content", [None, {"model_type": "bert"}])
def test_other_folders_are_refused(tmp_path, content):
    if content:
        (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="holds no RRRAModel, RetrieverAdapter or Retriever"):
        card_of(tmp_path)


@pytest.mark.parametrize("name", ["config.json", EVALUATION_NAME])
def test_a_damaged_file_is_named(fitted, tmp_path, name):
    folder = copy(fitted("residual"), tmp_path)
    (folder / name).write_text("{")
    with pytest.raises(ValueError, match=f"{name} is damaged"):
        card_of(folder)


def test_a_damaged_adapter_is_named(tmp_path):
    make_adapter().save_pretrained(tmp_path / "adapter")
    config = config_of(tmp_path / "adapter")
    (tmp_path / "adapter/config.json").write_text(json.dumps({**config, "embedding_dim": 0}))
    with pytest.raises(
        ValueError, match=r"adapter's configuration .* is damaged: embedding_dim must be at least 1"
    ):
        card_of(tmp_path / "adapter")


# -------------------------------------------------------------------- the plot


def test_the_reliability_plot_is_beside_the_card(fitted, tmp_path):
    pytest.importorskip("matplotlib")
    folder = copy(fitted("residual"), tmp_path)
    made = model_card(folder)
    assert f"]({PLOT_NAME})" in made.text and not (folder / PLOT_NAME).exists()
    assert f"]({PLOT_NAME})" in written(folder)
    drawn = (folder / PLOT_NAME).read_bytes()
    assert drawn.startswith(PNG) and drawn == made.plot
    written(folder)
    assert (folder / PLOT_NAME).read_bytes() == drawn
    (folder / EVALUATION_NAME).unlink()
    written(folder)
    assert (folder / PLOT_NAME).read_bytes() != drawn  # that of the development queries


def test_without_matplotlib_the_plot_is_left_out(fitted, tmp_path, monkeypatch):
    folder = copy(fitted("residual"), tmp_path)
    original = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    assert PLOT_NAME not in written(folder)
    assert not (folder / PLOT_NAME).exists()


# -------------------------------------------------------------------- the command


def test_the_command_measures_and_writes_the_card(fitted, collection, tmp_path):
    collection.save(tmp_path / "words")
    folder = copy(fitted("residual"), tmp_path / "models")
    before = read_evaluations(folder)
    (folder / EVALUATION_NAME).unlink()
    found = rrra("card", folder, tmp_path / "words", "--repo-id", "me/words", "--json")
    assert found.status == 0, found.err
    assert found.json["card"] == str(folder / CARD_NAME)
    assert read_evaluations(folder) == [found.json["evaluation"]]
    measured = found.json["evaluation"]["quality"]["all"]["adapter"]
    assert measured == pytest.approx(before[0]["quality"]["all"]["adapter"])
    assert 'from_pretrained("me/words")' in (folder / CARD_NAME).read_text()
    again = rrra("card", folder, tmp_path / "words", "--split", "dev")
    assert "words, dev: 15 queries" in again.out
    assert rrra("card", folder).out == f"card: {folder / CARD_NAME}\n"


def test_the_command_says_what_is_no_model(tmp_path):
    failed = rrra("card", tmp_path)
    assert failed.status == 1
    assert "holds no RRRAModel" in failed.message


# -------------------------------------------------------------------- reference models


def test_cards_of_the_reference_models_carry_what_the_hub_reads():
    cards = sorted((Path(__file__).parents[2] / "model_cards").glob("*/README.md"))
    assert len(cards) == 3
    for path in cards:
        data = ModelCard.load(path).data
        assert data.base_model == "sentence-transformers/all-MiniLM-L6-v2"
        assert data.model_name == path.parent.name
        assert {result.dataset_split for result in data.eval_results} == {"test"}
        assert (path.parent / PLOT_NAME).read_bytes().startswith(PNG)

"""Three stages make one model; interrupted anywhere, a run ends as if it had not been."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.data_collator import SentenceTransformerDataCollator

from alike import assert_alike
from rrra_hf import RRRAModel
from rrra_hf.candidates import CandidatePool
from rrra_hf.embeddings import embed_collection
from rrra_hf.training import TrainArguments, train
from rrra_hf.training.run_folder import RunFolder
from rrra_hf.training.train_data import with_development
from train_runs import ARGUMENTS, FIT, keep, make_collection, outcome


@pytest.fixture(scope="module")
def run(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with LoRA, which keeps the encoder of stage 3."""
    folder = tmp_path_factory.mktemp("train") / "run"
    with pytest.MonkeyPatch.context() as patch:
        keep(patch, "stage3")
        train(make_collection(), tiny_bert, folder, ARGUMENTS)
    return folder


# ---------------------------------------------------------------- what a run leaves


def test_a_run_makes_a_model_that_every_loader_opens(run: Path) -> None:
    model = RRRAModel.from_pretrained(run / "model")
    texts = ["list files", "copy old text"]
    expected = model.to_sentence_transformer().encode(texts)
    assert_allclose(SentenceTransformer(str(run / "model"), device="cpu").encode(texts), expected, atol=1e-6)
    assert model.config.lora
    assert "development" in model.adapter.config.fit
    assert (run / "training.svg").exists()


def test_the_encoder_learns_in_both_stages(run: Path, tiny_bert: Path) -> None:
    stage1, stage3 = (load_file(run / stage / "model/model.safetensors") for stage in ("stage1", "stage3"))
    lora = [name for name in stage1 if "lora_B" in name]
    assert lora
    # lora_B starts from zero.
    assert all(stage1[name].abs().sum() > 0 for name in lora)
    assert all(not torch.equal(stage1[name], stage3[name]) for name in lora)
    frozen = [name for name in stage1 if "lora_" not in name]
    assert all(torch.equal(stage1[name], stage3[name]) for name in frozen)


def test_the_loss_falls(run: Path) -> None:
    history = json.loads((run / "stage1/history.json").read_text())
    assert [entry["step"] for entry in history] == list(range(1, 15))
    losses = [entry["loss"] for entry in history]
    assert np.mean(losses[-4:]) < np.mean(losses[:4])


def test_the_encoder_that_is_kept_has_an_adapter_of_its_own(run: Path) -> None:
    results = json.loads((run / "results.json").read_text())
    assert results["final"]["encoder"] == "stage3"
    expected, final = (load_file(run / place / "model.safetensors") for place in ("stage3/model", "model"))
    encoder = [name for name in final if not name.startswith("adapter.")]
    assert encoder
    assert all(torch.equal(final[name], expected[name]) for name in encoder)
    record = json.loads((run / "model/config.json").read_text())["adapter"]["fit"]["training"]["stages"]
    assert record["comparison"]["development"] == results["comparison"]["development"]


def test_what_outscores_the_positives_is_set_aside(run: Path, tiny_bert: Path, tmp_path: Path) -> None:
    arguments = replace(ARGUMENTS, drop_above_positive=True, stage3_max_steps=2, refresh_steps=1)
    train(make_collection(), tiny_bert, tmp_path / "run", arguments)
    plain, changed = (CandidatePool.load(folder / "stage2/pool") for folder in (run, tmp_path / "run"))
    training = with_development(make_collection(), ARGUMENTS.development_fraction, 0).split("train")
    encoder = SentenceTransformer(str(run / "stage1/model"), device="cpu")
    queries, documents, _ = embed_collection(training, encoder)
    best = [max(documents[rows] @ query) for query, rows in zip(queries, plain.positives, strict=True)]
    above = plain.scores > np.array(best)[:, None]
    assert 0 < above.mean() < 1
    assert_array_equal(changed.candidates, plain.candidates)
    expected = np.where(above, 1.0, plain.probability)
    assert_array_equal(changed.probability, expected)


def test_results_tell_quality_and_time_of_each_stage(run: Path) -> None:
    results = json.loads((run / "results.json").read_text())
    assert list(results) == ["stage1", "stage2", "stage3", "comparison", "final"]
    for stage, parts in results.items():
        assert parts == json.loads((run / stage / "results.json").read_text())
        assert parts["seconds"] > 0
    compared = results["comparison"]["development"]
    assert compared.pop("queries") == 9
    assert list(compared) == ["frozen", "stage1", "stage3"]
    for systems in compared.values():
        assert all(set(figures) == {"nDCG@10", "R@1", "R@100"} for figures in systems.values())
        assert "adapter" in systems
    for stage in ("stage1", "stage3"):
        assert results[stage]["development"] == {"queries": 9, "encoder": compared[stage]["encoder"]}


def test_the_log_and_results_tell_how_many_negatives_are_suspects(run: Path) -> None:
    pool = CandidatePool.load(run / "stage2/pool")
    results = json.loads((run / "results.json").read_text())["stage2"]
    assert results["suspects"] == pytest.approx(np.mean(pool.probability > 0.5))
    history = json.loads((run / "stage3/history.json").read_text())
    for name, of_pool in (
        ("suspects", pool.probability > 0.5),
        ("false_negative_probability", pool.probability),
    ):
        logged = [entry[name] for entry in history]
        assert len(logged) == 14
        # All candidates are as likely to be drawn.
        assert np.mean(logged) == pytest.approx(of_pool.mean(), abs=0.1)


def test_the_pool_has_probabilities_and_knows_its_encoder(run: Path) -> None:
    pool = CandidatePool.load(run / "stage2/pool")
    assert len(pool) == 51
    assert pool.probability is not None
    assert np.isfinite(pool.probability).all()
    assert pool.fingerprint["encoder"]


def test_nothing_half_written_and_no_checkpoint_is_left(run: Path) -> None:
    files = [path for path in run.rglob("*") if path.is_file()]
    assert not [path for path in files if path.name.startswith(".") or path.suffix in (".pt", ".pth", ".bin")]
    assert not list(run.rglob("checkpoints"))


# ---------------------------------------------------------------- the same again


def test_equal_seeds_make_equal_models(
    run: Path, tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(monkeypatch, "stage3")
    train(make_collection(), tiny_bert, tmp_path / "again", ARGUMENTS)
    assert_alike(outcome(tmp_path / "again"), outcome(run))
    assert (tmp_path / "again/training.svg").read_bytes() == (run / "training.svg").read_bytes()


def test_a_finished_run_is_only_read(run: Path, tiny_bert: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*.safetensors")}
    model = train(make_collection(), tiny_bert, run, ARGUMENTS)
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*.safetensors")} == before
    assert torch.equal(
        model.adapter.reader.readout.weight,
        load_file(run / "model/model.safetensors")["adapter.reader.readout.weight"],
    )


def test_other_settings_in_the_same_folder_are_refused(run: Path, tiny_bert: Path) -> None:
    changed = replace(ARGUMENTS, folds=4, fit=replace(FIT, depth=9))
    with pytest.raises(
        ValueError, match=r"arguments\.fit\.depth was 10, now 9; arguments\.folds was \d, now 4"
    ):
        train(make_collection(), tiny_bert, run, changed)
    with pytest.raises(ValueError, match=r"collection\.qrels was .*another output_dir"):
        train(make_collection(development=True), tiny_bert, run, ARGUMENTS)


def test_another_encoder_in_the_same_folder_is_refused(run: Path, tiny_bert: Path, tmp_path: Path) -> None:
    other = RRRAModel.from_encoder(tiny_bert)
    with torch.no_grad():
        other.get_input_embeddings().weight.mul_(1.1)
    other.encoder.save_pretrained(tmp_path / "other")
    other.tokenizer.save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match=r"encoder was .*, now"):
        train(make_collection(), tmp_path / "other", run, ARGUMENTS)


def test_foreign_folders_are_refused(tiny_bert: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(ValueError, match=r"isn't empty and has no arguments.json of a training run"):
        train(make_collection(), tiny_bert, tmp_path, ARGUMENTS)
    with pytest.raises(NotADirectoryError, match=r"thesis.txt is a file"):
        train(make_collection(), tiny_bert, tmp_path / "thesis.txt", ARGUMENTS)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_damaged_settings_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "arguments.json").write_text("{")
    with pytest.raises(ValueError, match=r"arguments.json is damaged"):
        RunFolder(tmp_path, {})


def test_what_a_killed_run_left_half_written_is_removed(tmp_path: Path) -> None:
    RunFolder(tmp_path, {})
    leftovers = [
        ".model.0123abcd.tmp/config.json",
        "stage1/.model.0123abcd.tmp/part/.config.json.0123abcd.tmp",
        "embeddings/a/.b.arrow.0123abcd.tmp",
    ]
    for leftover in [*leftovers, ".gitignore", "stage1/.notes/mine.txt", "stage1/history.json"]:
        (tmp_path / leftover).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / leftover).write_text("")
    RunFolder(tmp_path, {})
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {
        "arguments.json",
        ".gitignore",
        "mine.txt",
        "history.json",
    }


# ---------------------------------------------------------------- variants


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        replace(
            ARGUMENTS,
            mode="full",
            learning_rate=1e-4,
            stage1_max_steps=2,
            stage3_max_steps=3,
            gradient_checkpointing=True,
            fit=replace(FIT, maps="both"),
        ),
        replace(
            ARGUMENTS,
            lora={"r": 2, "target_modules": ["query"]},
            stage1_max_steps=2,
            stage3_max_steps=3,
            bf16=True,
            max_seq_length=8,
            fit=replace(FIT, maps="query"),
        ),
    ],
    ids=["full", "lora"],
)
def test_variants(
    tiny_bert: Path,
    tmp_path: Path,
    arguments: TrainArguments,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    keep(monkeypatch, "stage1")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    model = train(make_collection(development=True), tiny_bert, tmp_path / "run", arguments)
    results = json.loads((tmp_path / "run/results.json").read_text())
    assert (results["stage1"]["steps"], results["stage3"]["steps"]) == (2, 3)
    assert ("many times slower than in float32" in caplog.text) == arguments.bf16
    assert results["comparison"]["development"]["queries"] == 10
    assert (model.adapter.document_map is not None) == (arguments.fit.maps == "both")
    assert model.config.max_seq_length == (arguments.max_seq_length or 32)
    if arguments.mode == "full":
        kept = load_file(tmp_path / "run/stage1/model/model.safetensors")
        final = load_file(tmp_path / "run/model/model.safetensors")
        assert all(torch.equal(final[name], kept[name]) for name in kept if name.startswith("encoder."))


def test_prompts_are_trained_with(tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(tiny_bert, tmp_path / "prompted")
    (tmp_path / "prompted/config_sentence_transformers.json").write_text(
        json.dumps({"prompts": {"query": "query: ", "document": "passage: "}})
    )
    batches = []
    collate = SentenceTransformerDataCollator.__call__

    def watched(self: SentenceTransformerDataCollator, rows: list[dict[str, Any]]) -> dict[str, Any]:
        batches.append(collate(self, rows))
        return batches[-1]

    monkeypatch.setattr(SentenceTransformerDataCollator, "__call__", watched)
    arguments = replace(ARGUMENTS, stage1_max_steps=1, stage3_max_steps=1)
    train(make_collection(), tmp_path / "prompted", tmp_path / "run", arguments)
    word = RRRAModel.from_pretrained(tmp_path / "run/model").tokenizer.convert_tokens_to_ids
    columns = ["query", "positive", *(f"negative_{i}" for i in range(1, 5))]
    # The first word of each text, after the [CLS] token.
    assert {
        (column, first)
        for batch in batches
        for column in columns
        if f"{column}_input_ids" in batch
        for first in batch[f"{column}_input_ids"][:, 1].tolist()
    } == {(column, word("query" if column == "query" else "passage")) for column in columns}


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{"refresh_steps": 2}, {"refresh_epochs": 1}], ids=["steps", "epochs"])
def test_refreshes_change_stage_3_and_leave_no_files(
    tiny_bert: Path, tmp_path: Path, changes: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="rrra_hf.training.refresh")
    # A refresh fits no maps, unlike stage 2 and the final fit.
    arguments = replace(ARGUMENTS, fit=replace(FIT, maps="query"), stage1_max_steps=2, **changes)
    train(make_collection(), tiny_bert, tmp_path / "run", arguments)
    steps = [message.split(":")[0] for message in caplog.messages if message.startswith("Refresh")]
    every = changes.get("refresh_steps", 7)
    assert steps == [f"Refresh at step {step}" for step in range(every, 14, every)]
    assert not list((tmp_path / "run").rglob("*refresh*"))


def test_train_says_nothing_but_to_the_log(
    tiny_bert: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="rrra_hf")
    arguments = replace(ARGUMENTS, stage1_max_steps=1, stage3_max_steps=1)
    train(make_collection(), tiny_bert, tmp_path / "run", arguments)
    captured = capfd.readouterr()
    assert captured.out == ""
    assert "%|" not in captured.err
    assert "stage3 of" in caplog.text

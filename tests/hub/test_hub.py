"""Sharing on the Hub, with its real client and a Hub on this machine."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from sentence_transformers import SentenceTransformer

from alike import assert_alike
from command_line import rrra
from hub_server import READER, Blob, HubServer
from retriever_models import CORPUS, QUERY, make_adapter, make_retriever
from rrra_hf import RetrieverAdapter, RRRAModel
from rrra_hf.hub import push_folder, repository_files
from rrra_hf.retrieval import Retriever
from sharing import CODE, MODEL, embed, embed_with_all_loaders

# -------------------------------------------------------------------- what is uploaded


def test_a_repository_gets_what_loaders_and_readers_know(tmp_path: Path) -> None:
    names = ["config.json", "model.safetensors", "README.md", "evaluation.json", "modeling_rrra.py"]
    names += ["1_Pooling/config.json", "adapter/config.json", ".eval_results/a.yaml", "reliability.png"]
    others = ["optimizer.pt", ".secret.json", "checkpoint-1/model.safetensors", "embeddings/a.arrow"]
    for name in (*names, "index/meta.json", *others):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text("{}")
    (tmp_path / "modules.json").write_text(json.dumps([{"path": ""}, {"path": "1_Pooling"}]))
    expected = {*names, "modules.json"}
    assert {file.name for file in repository_files(tmp_path)} == expected
    assert {file.name for file in repository_files(tmp_path, with_index=True)} == {
        *expected,
        "index/meta.json",
    }


def test_a_folder_without_a_model_is_not_uploaded(hub: HubServer, tmp_path: Path) -> None:
    with pytest.raises(NotADirectoryError, match="folder must be a folder, got nowhere"):
        push_folder("nowhere", MODEL)
    with pytest.raises(
        FileNotFoundError, match=r"holds no model: it has neither config\.json nor modules\.json"
    ):
        push_folder(tmp_path, MODEL)
    make_adapter().save_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError, match="has no index"):
        push_folder(tmp_path, MODEL, with_index=True)
    assert not hub.requests


def test_a_model_arrives_in_one_commit_and_opens_with_all_loaders(
    hub: HubServer, lora_model: RRRAModel
) -> None:
    commit = lora_model.push_to_hub(MODEL, commit_message="first")
    assert commit == f"{hub.url}/{MODEL}/commit/{commit.oid}"
    assert hub.commits(MODEL) == ["first"]
    files = hub.files(MODEL)
    expected = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "modules.json"}
    expected |= {"sentence_bert_config.json", "config_sentence_transformers.json", "1_Pooling/config.json"}
    assert set(files) == expected | CODE | {"README.md"}
    assert MODEL in files["README.md"].decode()
    for embeddings in embed_with_all_loaders(MODEL):
        assert_alike(embeddings, embed(lora_model))


def test_a_card_and_results_that_are_there_are_kept(
    hub: HubServer, lora_model: RRRAModel, tmp_path: Path
) -> None:
    for form in ("full", "lora"):
        folder = tmp_path / form
        lora_model.save_pretrained(folder)
        (folder / "README.md").write_text("my own words")
        (folder / "reliability.png").write_text("picture")
        assert rrra("push", folder, f"me/{form}", "--form", form).status == 0
        assert hub.files(f"me/{form}")["README.md"] == b"my own words"
        assert hub.files(f"me/{form}")["reliability.png"] == b"picture"


def test_an_unchanged_model_makes_no_second_commit(hub: HubServer, plain_model: RRRAModel) -> None:
    first = plain_model.push_to_hub(MODEL)
    sent = hub.paths("PUT")
    assert plain_model.push_to_hub(MODEL).oid == first.oid
    assert hub.commits(MODEL) == ["Upload model"]
    assert hub.paths("PUT") == sent


def test_what_is_of_another_model_goes_in_the_same_commit(
    hub: HubServer, plain_model: RRRAModel, tiny_bert: Path
) -> None:
    retriever = make_retriever(tiny_bert).index(CORPUS)
    retriever.push_to_hub(MODEL, with_index=True)
    repository = hub.repositories[MODEL]
    repository.add("main", {**repository.at("main").files, "notes.csv": Blob(b"mine", False)}, "notes")
    plain_model.push_to_hub(MODEL, max_shard_size="30kB")
    names = set(hub.files(MODEL))
    assert hub.commits(MODEL) == ["Upload retriever", "notes", "Upload model"]
    assert "notes.csv" in names and "model.safetensors.index.json" in names
    assert not [name for name in names if name.startswith("index/") or name == "model.safetensors"]
    assert_alike(embed(RRRAModel.from_pretrained(MODEL)), embed(plain_model))


# -------------------------------------------------------------------- adapters and retrievers


def test_an_adapter_is_shared_alone_and_opens_at_a_revision(hub: HubServer) -> None:
    first, second = make_adapter(1), make_adapter(2)
    commit = first.push_to_hub(MODEL)
    second.push_to_hub(MODEL)
    assert set(hub.files(MODEL)) == {"config.json", "model.safetensors", "README.md"}
    for adapter, options in ((second, {}), (first, {"revision": commit.oid})):
        loaded = RetrieverAdapter.from_pretrained(MODEL, **options)
        assert all(torch.equal(w, loaded.state_dict()[n]) for n, w in adapter.state_dict().items())


@pytest.mark.parametrize("shard", ["5GB", "30kB"])
def test_the_adapter_of_a_model_opens_alone(hub: HubServer, plain_model: RRRAModel, shard: str) -> None:
    plain_model.push_to_hub(MODEL, max_shard_size=shard)
    loaded = RetrieverAdapter.from_pretrained(MODEL)
    assert all(torch.equal(w, loaded.state_dict()[n]) for n, w in plain_model.adapter.state_dict().items())


def test_a_retriever_brings_its_index_if_wanted(hub: HubServer, tiny_bert: Path) -> None:
    retriever = make_retriever(tiny_bert).index(CORPUS)
    retriever.push_to_hub("me/without")
    assert not [name for name in hub.files("me/without") if name.startswith("index/")]
    commit = retriever.push_to_hub(MODEL, with_index=True)
    loaded = Retriever.from_pretrained(MODEL, revision=commit.oid)
    assert_alike(loaded.search(QUERY), retriever.search(QUERY))
    with pytest.raises(FileNotFoundError, match="has no index"):
        make_retriever(tiny_bert).push_to_hub(MODEL, with_index=True)


def test_a_retriever_shares_its_index_with_lora_weights_but_not_with_merged_ones(
    hub: HubServer, lora_model: RRRAModel
) -> None:
    retriever = Retriever(lora_model).index(CORPUS)
    retriever.push_to_hub(MODEL, with_index=True, form="lora")
    assert_alike(Retriever.from_pretrained(MODEL).search(QUERY), retriever.search(QUERY))
    with pytest.raises(ValueError, match="with_index can't go with form='merged'"):
        retriever.push_to_hub(MODEL, with_index=True, form="merged")


def test_a_retriever_of_any_encoder_brings_its_adapter(hub: HubServer, tiny_bert: Path) -> None:
    encoder = SentenceTransformer(str(tiny_bert), device="cpu")
    retriever = Retriever(encoder, make_adapter(lambda_=0.5)).index(CORPUS)
    retriever.push_to_hub(MODEL, with_index=True)
    assert {"adapter/config.json", "adapter/model.safetensors"} <= set(hub.files(MODEL))
    assert_alike(Retriever.from_pretrained(MODEL).search(QUERY), retriever.search(QUERY))


def test_an_index_brings_its_words(hub: HubServer, tiny_bert: Path) -> None:
    retriever = Retriever(SentenceTransformer(str(tiny_bert), device="cpu")).index(CORPUS)
    retriever.push_to_hub(MODEL, with_index=True)
    assert {"index/words/words.json", "index/words/word_weights.npy"} <= set(hub.files(MODEL))
    loaded = Retriever.from_pretrained(MODEL)
    assert loaded.is_hybrid()
    assert_alike(loaded.search(QUERY), retriever.search(QUERY))
    # Another model's upload leaves none of them behind.
    retriever.push_to_hub(MODEL)
    assert not [name for name in hub.files(MODEL) if name.startswith("index/")]


def test_a_retriever_opens_from_the_cache_without_a_connection(
    hub: HubServer, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    retriever = make_retriever(tiny_bert).index(CORPUS)
    retriever.push_to_hub(MODEL, with_index=True)
    Retriever.from_pretrained(MODEL)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert_alike(Retriever.from_pretrained(MODEL).search(QUERY), retriever.search(QUERY))


# -------------------------------------------------------------------- private, branch, pull request


def test_private_makes_a_private_repository_and_refuses_a_public_one(hub: HubServer) -> None:
    make_adapter().push_to_hub(MODEL, private=True)
    assert hub.repositories[MODEL].private
    make_adapter(1).push_to_hub(MODEL, private=True)
    hub.create("me/public")
    with pytest.raises(ValueError, match="private was requested, but me/public exists and is public"):
        make_adapter().push_to_hub("me/public", private=True)
    assert not hub.files("me/public")


def test_a_branch_and_a_pull_request_leave_main_alone(hub: HubServer) -> None:
    make_adapter(0).push_to_hub(MODEL)
    before = hub.files(MODEL)
    make_adapter(1).push_to_hub(MODEL, revision="next")
    commit = make_adapter(2).push_to_hub(MODEL, create_pr=True)
    assert commit.pr_url == f"{hub.url}/{MODEL}/discussions/1"
    assert hub.files(MODEL) == before
    for seed, revision in ((1, "next"), (2, "refs/pr/1")):
        loaded = RetrieverAdapter.from_pretrained(MODEL, revision=revision)
        assert torch.equal(loaded.reader.readout.weight, make_adapter(seed).reader.readout.weight)
    make_adapter(3).push_to_hub(MODEL, revision="next")
    assert len(hub.commits(MODEL)) == 4
    with pytest.raises(ValueError, match="revision can't go with create_pr"):
        make_adapter().push_to_hub(MODEL, revision="next", create_pr=True)


# -------------------------------------------------------------------- uploads that fail


@pytest.mark.parametrize(
    ("token", "reason"), [(READER, "don't have the rights"), (False, "Invalid username")]
)
def test_without_permission_nothing_is_uploaded(hub: HubServer, token: object, reason: str) -> None:
    with pytest.raises(
        PermissionError, match=rf"(?s)No permission to write to {MODEL} .*{reason}.*hf auth login"
    ):
        make_adapter().push_to_hub(MODEL, token=token)
    hub.create(MODEL)
    with pytest.raises(PermissionError, match="No permission"):
        make_adapter().push_to_hub(MODEL, token=token)
    assert not hub.objects and not hub.files(MODEL)


def test_an_upload_that_breaks_off_commits_nothing_and_goes_on_when_repeated(
    hub: HubServer, tiny_bert: Path, tmp_path: Path
) -> None:
    retriever = make_retriever(tiny_bert).index(CORPUS)
    retriever.save_pretrained(tmp_path / "saved")
    push = {"with_index": True, "commit_message": "whole"}
    hub.create(MODEL)
    weights = Blob((tmp_path / "saved/model.safetensors").read_bytes(), is_lfs=True).sha256
    hub.fail("PUT", weights, after=50_000)
    with pytest.raises(
        ConnectionError, match=rf"The upload to {MODEL} .*broke off \(.*Nothing was committed"
    ):
        push_folder(tmp_path / "saved", MODEL, **push)
    assert not hub.files(MODEL)
    arrived = set(hub.objects)
    assert arrived and weights not in arrived
    hub.faults.clear()
    hub.requests.clear()
    push_folder(tmp_path / "saved", MODEL, **push)
    assert hub.commits(MODEL) == ["whole"]
    assert hub.paths("PUT") == [f"/lfs/{weights}"]
    assert_alike(Retriever.from_pretrained(MODEL).search(QUERY), retriever.search(QUERY))


def test_a_commit_that_is_lost_is_made_by_the_next_call(hub: HubServer, plain_model: RRRAModel) -> None:
    hub.fail("POST", "/commit/main")
    with pytest.raises(ConnectionError, match="broke off"):
        plain_model.push_to_hub(MODEL)
    assert not hub.files(MODEL)
    sent = hub.paths("PUT")
    hub.faults.clear()
    plain_model.push_to_hub(MODEL)
    assert hub.paths("PUT") == sent
    assert_alike(embed(RRRAModel.from_pretrained(MODEL)), embed(plain_model))


def test_a_short_break_is_waited_for(hub: HubServer, plain_model: RRRAModel) -> None:
    hub.fail("PUT", "/lfs/", after=1000, times=2)
    plain_model.push_to_hub(MODEL)
    assert hub.commits(MODEL) == ["Upload model"]


def test_a_refusal_in_the_middle_is_passed_on(hub: HubServer) -> None:
    hub.fail("POST", "/commit/main", status=400)
    with pytest.raises(OSError, match="refused by the test"):
        make_adapter().push_to_hub(MODEL)
    assert not hub.files(MODEL)


def test_code_that_came_with_a_model_needs_the_package_to_upload(
    plain_model: RRRAModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rrra_hf.hub", None)
    with pytest.raises(ImportError, match="Install rrra-hf to upload the model"):
        plain_model.push_to_hub(MODEL)
    with pytest.raises(ImportError, match="Install rrra-hf to upload the adapter"):
        plain_model.adapter.push_to_hub(MODEL)

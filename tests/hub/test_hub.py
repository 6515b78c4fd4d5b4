"""Sharing on the Hub, with its real client and a Hub on this machine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import time
import venv
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from huggingface_hub import constants, file_download, hf_api
from huggingface_hub.utils import _http, close_session
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from transformers import AutoModel
from transformers.utils import hub as transformers_hub

from command_line import rrra
from hub_server import READER, WRITER, Blob, HubServer
from retriever_models import CORPUS, QUERY, make_adapter, make_retriever
from rrra_hf import RetrieverAdapter, RRRAModel
from rrra_hf.hub import push_folder, repository_files
from rrra_hf.models.download_rrra import check_downloads
from rrra_hf.retrieval import Retriever

TEXTS = ["how do i copy files", "sort the lines of a text"]
LORA = {"r": 2, "lora_alpha": 4}
BASE = "me/tiny-bert"
MODEL = "me/model"
CODE = {
    f"{name}_rrra.py"
    for name in ("adapter", "base", "configuration", "download", "features", "layout", "modeling")
}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A Hub, and this process's client talking to it as a user who may write.

    The client takes address and cache from the environment when it is imported, which was long ago: hence
    the changes of its constants. Processes that the tests start are given the environment variables.
    """
    with HubServer() as server:
        monkeypatch.setenv("HF_TOKEN", WRITER)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
        for name, value in {
            "ENDPOINT": server.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": server.url + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_URL_HOSTS": constants.HF_URL_HOSTS | {"127.0.0.1"},
            "HF_HUB_CACHE": str(tmp_path / "cache"),
            "HF_HUB_OFFLINE": False,
            "HF_HUB_DISABLE_XET": True,
        }.items():
            monkeypatch.setattr(constants, name, value)
        monkeypatch.setattr(hf_api.api, "endpoint", server.url)
        monkeypatch.setattr(transformers_hub, "_hf_api", None)
        without_waiting = SimpleNamespace(**{**vars(time), "sleep": lambda seconds: None})
        for module in (_http, file_download):
            monkeypatch.setattr(module, "time", without_waiting)
        close_session()
        yield server
        close_session()


@pytest.fixture
def lora_model(hub: HubServer, tiny_bert: Path) -> RRRAModel:
    """A model with LoRA whose base model is on the Hub."""
    put(hub, BASE, tiny_bert)
    model = RRRAModel.from_encoder(BASE, lora=LORA, adapter={"hidden_size": 8, "lambda_": 0.5})
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.2)
    model.adapter.load_state_dict(make_adapter().state_dict())
    return model


@pytest.fixture
def plain_model(tiny_bert: Path) -> RRRAModel:
    model = RRRAModel.from_encoder(tiny_bert, adapter={"hidden_size": 8})
    model.adapter.load_state_dict(make_adapter(seed=3).state_dict())
    return model


def put(hub: HubServer, repo_id: str, folder: Path) -> str:
    """Put a folder's files into a repository, and return the commit."""
    repository = hub.repositories.get(repo_id) or hub.create(repo_id)
    paths = [path for path in folder.rglob("*") if path.is_file()]
    files = {
        path.relative_to(folder).as_posix(): Blob(path.read_bytes(), path.suffix == ".safetensors")
        for path in paths
    }
    return repository.add("main", files, f"put {folder.name}").sha


def embed(model: RRRAModel) -> torch.Tensor:
    batch = model.tokenizer(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        return model(**batch).pooler_output


def embed_with_all_loaders(name: str, **options: object) -> list[torch.Tensor]:
    models = [loader.from_pretrained(name, **options).eval() for loader in (RRRAModel, AutoModel)]
    transformer = SentenceTransformer(name, device="cpu", **options)
    return [*map(embed, models), transformer.encode(TEXTS, convert_to_tensor=True)]


def cached(tmp_path: Path, pattern: str) -> list[Path]:
    return list((tmp_path / "cache").rglob(pattern))


def other_bytes(content: bytes) -> bytes:
    """Return content of the same size, of which the last byte differs."""
    return content[:-1] + bytes([content[-1] ^ 255])


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
        assert torch.equal(embeddings, embed(lora_model))


def test_a_card_and_results_that_are_there_are_kept(
    hub: HubServer, lora_model: RRRAModel, tmp_path: Path
) -> None:
    for form in ("full", "lora"):
        folder = tmp_path / form
        lora_model.save_pretrained(folder)
        (folder / "README.md").write_text("my own words")
        (folder / "reliability.png").write_text("picture")
        push_folder(folder, f"me/{form}", form=form)
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
    assert torch.equal(embed(RRRAModel.from_pretrained(MODEL)), embed(plain_model))


# -------------------------------------------------------------------- forms of the weights


def test_lora_weights_alone_are_loaded_with_the_base_model(
    hub: HubServer, lora_model: RRRAModel, tiny_bert: Path, tmp_path: Path
) -> None:
    lora_model.push_to_hub(MODEL, form="lora")
    assert lora_model.config.base_weights is None
    files = hub.files(MODEL)
    (tmp_path / "model.safetensors").write_bytes(files["model.safetensors"])
    names = set(load_file(tmp_path / "model.safetensors"))
    assert names == {
        name for name in lora_model.state_dict() if "lora_" in name or name.startswith("adapter.")
    }
    config = json.loads(files["config.json"])
    assert config["base_model_name"] == BASE
    assert config["base_model_revision"] == hub.repositories[BASE].at("main").sha
    # The base model goes on; the commit it was at is what counts.
    shutil.copytree(tiny_bert, tmp_path / "newer")
    spoil(tmp_path / "newer")
    put(hub, BASE, tmp_path / "newer")
    for embeddings in embed_with_all_loaders(MODEL):
        assert torch.equal(embeddings, embed(lora_model))


def spoil(folder: Path) -> None:
    """Change one weight of an encoder."""
    weights = load_file(folder / "model.safetensors")
    weights["embeddings.word_embeddings.weight"][0, 0] += 1
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def test_a_model_loaded_from_lora_weights_is_whole(
    hub: HubServer, lora_model: RRRAModel, tmp_path: Path
) -> None:
    lora_model.save_pretrained(tmp_path / "lora", form="lora")
    loaded, info = RRRAModel.from_pretrained(tmp_path / "lora", output_loading_info=True)
    assert not info["missing_keys"]
    trained = {name for name, parameter in loaded.named_parameters() if parameter.requires_grad}
    assert trained and all("lora_" in name or name.startswith("adapter.") for name in trained)
    loaded.save_pretrained(tmp_path / "full")
    hub.repositories.clear()
    assert torch.equal(embed(RRRAModel.from_pretrained(tmp_path / "full")), embed(lora_model))


def test_another_base_model_is_refused_and_the_right_one_may_be_elsewhere(
    hub: HubServer, lora_model: RRRAModel, tiny_bert: Path, tmp_path: Path
) -> None:
    lora_model.push_to_hub(MODEL, form="lora")
    loaded = RRRAModel.from_pretrained(MODEL, base_model_name=str(tiny_bert))
    assert torch.equal(embed(loaded), embed(lora_model))
    shutil.copytree(tiny_bert, tmp_path / "other")
    spoil(tmp_path / "other")
    with pytest.raises(ValueError, match=rf"other .* is not the base model of {MODEL}: its weights have"):
        RRRAModel.from_pretrained(MODEL, base_model_name=str(tmp_path / "other"))
    del hub.repositories[BASE]
    shutil.rmtree(tmp_path / "cache")
    with pytest.raises(
        OSError, match=rf"LoRA weights alone, and its base model {BASE} \(revision \w+\) can't be"
    ):
        RRRAModel.from_pretrained(MODEL)


def test_lora_weights_alone_need_lora_and_the_base_they_were_trained_on(
    hub: HubServer, lora_model: RRRAModel, plain_model: RRRAModel, tiny_bert: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="form='lora' needs a model with LoRA"):
        plain_model.push_to_hub(MODEL, form="lora")
    with pytest.raises(ValueError, match="form must be one of full, lora, merged, got 'half'"):
        plain_model.push_to_hub(MODEL, form="half")
    from_folder = RRRAModel.from_encoder(tiny_bert, lora=LORA)
    with pytest.raises(OSError, match=r"form='lora' needs the base model; set config\.base_model_name"):
        from_folder.push_to_hub(MODEL, form="lora")
    with torch.no_grad():
        lora_model.encoder.embeddings.word_embeddings.weight[0, 0] += 1
    with pytest.raises(ValueError, match=rf"under the LoRA are not those of {BASE}: 1 differ"):
        lora_model.push_to_hub(MODEL, form="lora")
    assert MODEL not in hub.repositories


def test_the_base_of_a_saved_model_can_be_named_at_upload(
    hub: HubServer, lora_model: RRRAModel, tmp_path: Path
) -> None:
    lora_model.config.base_model_name = "a-folder"
    lora_model.save_pretrained(tmp_path / "model")
    push_folder(tmp_path / "model", MODEL, form="lora", base_model=BASE)
    assert json.loads(hub.files(MODEL)["config.json"])["base_model_name"] == BASE
    with pytest.raises(ValueError, match="base_model belongs to form='lora', got form='full'"):
        push_folder(tmp_path / "model", MODEL, base_model=BASE)


def test_merged_weights_know_nothing_of_lora(hub: HubServer, lora_model: RRRAModel) -> None:
    lora_model.push_to_hub(MODEL, form="merged")
    assert json.loads(hub.files(MODEL)["config.json"])["lora"] is None
    assert lora_model.config.lora is not None
    for embeddings in embed_with_all_loaders(MODEL):
        torch.testing.assert_close(embeddings, embed(lora_model), atol=1e-6, rtol=0)


def test_forms_are_of_a_model_with_lora(hub: HubServer, plain_model: RRRAModel, tmp_path: Path) -> None:
    plain_model.save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match="form 'merged' needs an RRRAModel with LoRA"):
        push_folder(tmp_path / "model", MODEL, form="merged")
    with pytest.raises(ValueError, match="form must be one of full, lora, merged, got 'half'"):
        push_folder(tmp_path / "model", MODEL, form="half")


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
    assert loaded.search(QUERY) == retriever.search(QUERY)
    with pytest.raises(FileNotFoundError, match="has no index"):
        make_retriever(tiny_bert).push_to_hub(MODEL, with_index=True)


def test_a_retriever_shares_its_index_with_lora_weights_but_not_with_merged_ones(
    hub: HubServer, lora_model: RRRAModel
) -> None:
    retriever = Retriever(lora_model).index(CORPUS)
    retriever.push_to_hub(MODEL, with_index=True, form="lora")
    assert Retriever.from_pretrained(MODEL).search(QUERY) == retriever.search(QUERY)
    with pytest.raises(ValueError, match="with_index can't go with form='merged'"):
        retriever.push_to_hub(MODEL, with_index=True, form="merged")


def test_a_retriever_of_any_encoder_brings_its_adapter(hub: HubServer, tiny_bert: Path) -> None:
    encoder = SentenceTransformer(str(tiny_bert), device="cpu")
    retriever = Retriever(encoder, make_adapter(lambda_=0.5)).index(CORPUS)
    retriever.push_to_hub(MODEL, with_index=True)
    assert {"adapter/config.json", "adapter/model.safetensors"} <= set(hub.files(MODEL))
    assert Retriever.from_pretrained(MODEL).search(QUERY) == retriever.search(QUERY)


def test_a_retriever_opens_from_the_cache_without_a_connection(
    hub: HubServer, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    retriever = make_retriever(tiny_bert).index(CORPUS)
    retriever.push_to_hub(MODEL, with_index=True)
    Retriever.from_pretrained(MODEL)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert Retriever.from_pretrained(MODEL).search(QUERY) == retriever.search(QUERY)


# -------------------------------------------------------------------- private, branch, pull request


def test_private_makes_a_private_repository_and_refuses_a_public_one(hub: HubServer) -> None:
    make_adapter().push_to_hub(MODEL, private=True)
    assert hub.repositories[MODEL].private
    make_adapter(1).push_to_hub(MODEL, private=True)
    hub.create("me/public")
    with pytest.raises(ValueError, match="private was asked for, but me/public is there already and public"):
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
        assert torch.equal(loaded.query_layer.weight, make_adapter(seed).query_layer.weight)
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
    assert Retriever.from_pretrained(MODEL).search(QUERY) == retriever.search(QUERY)


def test_a_commit_that_is_lost_is_made_by_the_next_call(hub: HubServer, plain_model: RRRAModel) -> None:
    hub.fail("POST", "/commit/main")
    with pytest.raises(ConnectionError, match="broke off"):
        plain_model.push_to_hub(MODEL)
    assert not hub.files(MODEL)
    sent = hub.paths("PUT")
    hub.faults.clear()
    plain_model.push_to_hub(MODEL)
    assert hub.paths("PUT") == sent
    assert torch.equal(embed(RRRAModel.from_pretrained(MODEL)), embed(plain_model))


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


# -------------------------------------------------------------------- downloads that fail

LOADERS: dict[str, Callable[..., object]] = {
    "model": RRRAModel.from_pretrained,
    "sentence-transformers": SentenceTransformer,
    "adapter": RetrieverAdapter.from_pretrained,
    "retriever": Retriever.from_pretrained,
}


@pytest.fixture
def shared(hub: HubServer, tiny_bert: Path) -> Retriever:
    """A retriever that is on the Hub."""
    retriever = make_retriever(tiny_bert).index(CORPUS)
    retriever.push_to_hub(MODEL, with_index=True)
    return retriever


@pytest.mark.parametrize("loader", LOADERS)
def test_a_missing_repository_or_revision_is_named(hub: HubServer, shared: Retriever, loader: str) -> None:
    with pytest.raises(OSError, match="me/nothing"):
        LOADERS[loader]("me/nothing")
    with pytest.raises(OSError, match="no-such-branch"):
        LOADERS[loader](MODEL, revision="no-such-branch")


@pytest.mark.parametrize("loader", LOADERS)
def test_a_download_that_breaks_off_leaves_no_half_file(
    hub: HubServer, shared: Retriever, tmp_path: Path, loader: str
) -> None:
    hub.fail("GET", r"/cdn/.*/model\.safetensors", after=1000, times=1)
    hub.fail("GET", r"/cdn/.*/model\.safetensors")
    with pytest.raises(OSError, match=f"The download of {MODEL} broke off .*No half file was kept"):
        LOADERS[loader](MODEL)
    assert not cached(tmp_path, "model.safetensors")
    assert not cached(tmp_path, "*.incomplete")
    hub.faults.clear()
    LOADERS[loader](MODEL)
    assert cached(tmp_path, "model.safetensors")


def test_a_download_goes_on_where_it_broke_off(
    hub: HubServer, shared: Retriever, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 500)
    hub.fail("GET", r"/cdn/.*/model\.safetensors", after=1000, times=1)
    loaded = Retriever.from_pretrained(MODEL)
    ranges = [
        r.headers.get("Range") for r in hub.requests if r.path.endswith("safetensors") and "cdn" in r.path
    ]
    assert "bytes=1000-" in ranges
    assert loaded.search(QUERY) == shared.search(QUERY)


@pytest.mark.parametrize("loader", LOADERS)
def test_an_altered_download_is_refused_and_removed(
    hub: HubServer, shared: Retriever, tmp_path: Path, loader: str
) -> None:
    weights = hub.files(MODEL)["model.safetensors"]
    hub.tamper(MODEL, "model.safetensors", other_bytes(weights))
    with pytest.raises(
        ValueError, match=r"model\.safetensors is damaged: its content is not the one that the Hub"
    ):
        LOADERS[loader](MODEL)
    assert not cached(tmp_path, "model.safetensors")
    hub.tamper(MODEL, "model.safetensors", weights)
    LOADERS[loader](MODEL)


@pytest.mark.parametrize("name", ["index/vectors.faiss", "index/documents.parquet"])
def test_an_altered_index_is_refused_and_removed(
    hub: HubServer, shared: Retriever, tmp_path: Path, name: str
) -> None:
    content = hub.files(MODEL)[name]
    hub.tamper(MODEL, name, other_bytes(content))
    with pytest.raises(ValueError, match=f"{name} is damaged: its content is not the one"):
        Retriever.from_pretrained(MODEL)
    hub.tamper(MODEL, name, content)
    assert Retriever.from_pretrained(MODEL).search(QUERY) == shared.search(QUERY)


def test_a_download_of_another_size_is_refused(hub: HubServer, shared: Retriever, tmp_path: Path) -> None:
    weights = hub.files(MODEL)["model.safetensors"]
    for served in (weights[:-8], weights + b"and more"):
        hub.tamper(MODEL, "model.safetensors", served)
        with pytest.raises(OSError, match="Consistency check failed: file should be of size"):
            RRRAModel.from_pretrained(MODEL)
        assert not cached(tmp_path, "model.safetensors")


def test_a_base_model_that_was_altered_on_its_way_is_removed(
    hub: HubServer, lora_model: RRRAModel, tmp_path: Path
) -> None:
    lora_model.push_to_hub(MODEL, form="lora")
    shutil.rmtree(tmp_path / "cache")
    weights = hub.files(BASE)["model.safetensors"]
    hub.tamper(BASE, "model.safetensors", other_bytes(weights))
    with pytest.raises(
        ValueError, match=r"model\.safetensors is damaged: its content is not the one that the Hub"
    ):
        RRRAModel.from_pretrained(MODEL)
    hub.tamper(BASE, "model.safetensors", weights)
    assert torch.equal(embed(RRRAModel.from_pretrained(MODEL)), embed(lora_model))


def test_a_file_that_was_damaged_in_the_cache_is_removed(
    hub: HubServer, shared: Retriever, tmp_path: Path
) -> None:
    RRRAModel.from_pretrained(MODEL)
    content = cached(tmp_path, "model.safetensors")[0].resolve()
    content.write_bytes(b"\0" * content.stat().st_size)
    with pytest.raises(ValueError, match="is damaged: its content is not the one that the Hub declares"):
        RRRAModel.from_pretrained(MODEL)
    RRRAModel.from_pretrained(MODEL)


def test_small_files_are_checked_by_their_sum_in_git_and_others_not_at_all(tmp_path: Path) -> None:
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    for name, content in (
        ("257cc5642cb1a054f08cc83f2d943e56fd3ebe99", "foo\n"),
        ("0" * 40, "foo\n"),
        ("etag", "a"),
    ):
        (blobs / name).write_text(content)
    link = tmp_path / "config.json"
    for name in ("257cc5642cb1a054f08cc83f2d943e56fd3ebe99", "etag"):
        link.symlink_to(blobs / name)
        check_downloads([link])
        link.unlink()
    link.symlink_to(blobs / ("0" * 40))
    with pytest.raises(ValueError, match=r"config\.json is damaged"):
        check_downloads([link])
    assert not link.is_symlink() and not (blobs / ("0" * 40)).exists()


# -------------------------------------------------------------------- the command


def test_push_shows_files_and_sizes_before_it_uploads(
    hub: HubServer, lora_model: RRRAModel, tmp_path: Path
) -> None:
    lora_model.save_pretrained(tmp_path / "model")
    outcome = rrra(
        "push", tmp_path / "model", MODEL, "--form", "lora", "--private", "--commit-message", "hello"
    )
    assert outcome.status == 0, outcome.err
    size = len(hub.files(MODEL)["model.safetensors"])
    total = sum(map(len, hub.files(MODEL).values()))
    for text in (
        "model.safetensors",
        f"{size / 1000:.1f} kB",
        f"{total / 1000:.1f} kB",
        f"{len(hub.files(MODEL))} files",
    ):
        assert text in outcome.out
    assert f"commit: {hub.url}/{MODEL}/commit/" in outcome.out
    assert hub.repositories[MODEL].private and hub.commits(MODEL) == ["hello"]
    hub.fail("POST", "/commit/main", status=403)
    failed = rrra("push", tmp_path / "model", MODEL)
    assert failed.status == 1 and "model.safetensors" in failed.out and "No permission" in failed.message


def test_push_prints_json(hub: HubServer, tiny_bert: Path, tmp_path: Path) -> None:
    make_retriever(tiny_bert).index(CORPUS).save_pretrained(tmp_path / "retriever")
    hub.create(MODEL)
    outcome = rrra("push", tmp_path / "retriever", MODEL, "--with-index", "--create-pr", "--json")
    assert outcome.status == 0 and outcome.err == ""
    assert outcome.json["pull_request"] == f"{hub.url}/{MODEL}/discussions/1"
    assert outcome.json["commit"] == hub.repositories[MODEL].refs["refs/pr/1"]
    sizes = {name: len(content) for name, content in hub.files(MODEL, "refs/pr/1").items()}
    assert outcome.json["files"] == sizes and "index/vectors.faiss" in sizes


def test_push_tells_bad_arguments_from_failures(hub: HubServer, tmp_path: Path) -> None:
    make_adapter().save_pretrained(tmp_path / "adapter")
    bad = rrra("push", tmp_path / "adapter", MODEL, "--create-pr", "--revision", "next")
    assert bad.status == 2 and "--revision can't go with" in bad.message
    assert rrra("push", tmp_path / "adapter", MODEL, "--form", "half").status == 2
    failed = rrra("push", tmp_path / "nowhere", MODEL)
    assert failed.status == 1 and "folder must be a folder" in failed.message
    assert not hub.requests


# -------------------------------------------------------------------- fresh environments

OPEN = """
import json, sys
import torch
from transformers import AutoModel
from sentence_transformers import SentenceTransformer
repositories, texts = json.loads(sys.argv[1])

def embed(model):
    batch = model.tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        return model.eval()(**batch).pooler_output.tolist()

def opened(repository, revision, **options):
    model = AutoModel.from_pretrained(repository, revision=revision, **options)
    transformer = SentenceTransformer(repository, device="cpu", revision=revision, **options)
    return [embed(model), transformer.encode(texts).tolist()]
"""
REFUSED = """
for repository in repositories:
    try:
        AutoModel.from_pretrained(repository, trust_remote_code=False)
    except ValueError as error:
        assert "trust_remote_code=True" in str(error), error
    else:
        raise SystemExit("loaded without trust")
found = [opened(*repository, trust_remote_code=True) for repository in repositories.items()]
assert "rrra_hf" not in sys.modules
"""
WITH_PACKAGE = """
import rrra_hf
for (repository, revision), embeddings in zip(repositories.items(), found):
    embeddings += opened(repository, revision)
    embeddings.append(embed(rrra_hf.RRRAModel.from_pretrained(repository, revision=revision)))
    rrra_hf.RetrieverAdapter.from_pretrained(repository, revision=revision)
    rrra_hf.Retriever.from_pretrained(repository, revision=revision)
"""


def make_environment(folder: Path, *without: str) -> Path:
    """Make a virtual environment of everything that is installed here but for some packages."""
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    target = folder / Path(sysconfig.get_path("purelib")).relative_to(sys.prefix)
    for source in {Path(sysconfig.get_path(name)) for name in ("purelib", "platlib")}:
        for entry in source.iterdir():
            name = entry.name.removeprefix("__editable__.").removeprefix("__editable___")
            package = name.partition("-")[0].partition(".")[0]
            if package not in without and not name.startswith(tuple(f"{w}_" for w in without)):
                (target / entry.name).symlink_to(entry)
    for package in without:
        process = subprocess.run([python, "-c", f"import {package}"], capture_output=True, text=True)
        assert f"No module named '{package}'" in process.stderr
    return python


@pytest.mark.slow
@pytest.mark.parametrize(
    ("without", "forms"),
    [(("rrra_hf", "peft"), ["merged"]), ((), ["lora", "full"])],
    ids=["without package and peft", "with both"],
)
def test_a_repository_opens_in_a_fresh_environment(
    hub: HubServer,
    lora_model: RRRAModel,
    plain_model: RRRAModel,
    tmp_path: Path,
    without: tuple[str],
    forms: list[str],
) -> None:
    """With flag and without the package, or as long as it isn't imported; then with it and without flag."""
    revisions = {f"me/{form}": lora_model.push_to_hub(f"me/{form}", form=form).oid for form in forms}
    for repository in revisions:
        plain_model.push_to_hub(repository, commit_message="another model, later")
    python = make_environment(tmp_path / "env", *without)
    code = OPEN + REFUSED + ("" if without else WITH_PACKAGE) + "print(json.dumps(found))"
    process = subprocess.run(
        [python, "-c", code, json.dumps([revisions, TEXTS])],
        env={
            "PATH": os.environ["PATH"],
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(tmp_path / "home"),
            "HF_HUB_DISABLE_XET": "1",
            "NO_PROXY": "127.0.0.1,localhost",
            "OMP_NUM_THREADS": "1",
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert process.returncode == 0, process.stderr[-3000:]
    expected = embed(lora_model).numpy()
    for form, embeddings in zip(forms, json.loads(process.stdout), strict=True):
        assert len(embeddings) == (2 if without else 5)
        for found in embeddings:
            np.testing.assert_allclose(found, expected, atol=1e-6 if form == "merged" else 0, rtol=0)

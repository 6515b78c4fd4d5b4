"""Downloads go on where they broke off, and what arrives altered is refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import constants
from huggingface_hub.errors import GatedRepoError
from sentence_transformers import SentenceTransformer
from transformers.utils import hub as transformers_hub

from alike import assert_alike
from hub_server import HubServer
from retriever_models import CORPUS, QUERY, make_retriever
from rrra_hf import RetrieverAdapter, RRRAModel
from rrra_hf.models.download_rrra import check_downloads
from rrra_hf.models.hub_files_rrra import find_file
from rrra_hf.retrieval import Retriever
from sharing import BASE, MODEL, cached, embed, other_bytes

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


@pytest.mark.parametrize("loader", ["model", "retriever"])
def test_without_a_connection_no_second_file_of_an_unknown_model_is_asked_for(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, loader: str
) -> None:
    unreachable = hub.url.replace("127.0.0.1", "127.0.0.2")
    monkeypatch.setattr(constants, "ENDPOINT", unreachable)
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(hub.url, unreachable)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    with pytest.raises(OSError, match=r"There is no folder me/nothing.*the Hub can't be reached"):
        LOADERS[loader]("me/nothing")
    asked = {record.getMessage().split()[-1] for record in caplog.records if "HEAD" in record.getMessage()}
    assert len(asked) == 1


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
    assert_alike(loaded.search(QUERY), shared.search(QUERY))


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
    assert_alike(Retriever.from_pretrained(MODEL).search(QUERY), shared.search(QUERY))


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
    assert_alike(embed(RRRAModel.from_pretrained(MODEL)), embed(lora_model))


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
    link = tmp_path / "snapshots/main/config.json"
    link.parent.mkdir(parents=True)
    for name in ("257cc5642cb1a054f08cc83f2d943e56fd3ebe99", "etag"):
        link.symlink_to(blobs / name)
        check_downloads([link])
        link.unlink()
    link.symlink_to(blobs / ("0" * 40))
    with pytest.raises(ValueError, match=r"config\.json is damaged"):
        check_downloads([link])
    assert not link.is_symlink() and not (blobs / ("0" * 40)).exists()


def test_nobodys_files_are_taken_for_those_of_the_cache(tmp_path: Path) -> None:
    content = tmp_path / "blobs" / ("0" * 64)
    content.parent.mkdir()
    content.write_text("mine")
    for place in ("model", "other/snapshots/main"):
        link = tmp_path / place / "model.safetensors"
        link.parent.mkdir(parents=True)
        link.symlink_to(content)
        check_downloads([link])
        assert link.is_symlink() and content.read_text() == "mine"


def test_an_approximate_index_is_opened_from_a_folder_of_ones_own_only(
    hub: HubServer, tiny_bert: Path, tmp_path: Path
) -> None:
    retriever = make_retriever(tiny_bert).index(CORPUS, kind="hnsw")
    retriever.push_to_hub(MODEL, with_index=True)
    with pytest.raises(ValueError, match=rf"hf download {MODEL} --local-dir FOLDER"):
        Retriever.from_pretrained(MODEL)
    retriever.save_pretrained(tmp_path / "mine")
    assert_alike(Retriever.from_pretrained(tmp_path / "mine").search(QUERY), retriever.search(QUERY))


def test_a_quantised_index_is_opened_from_the_hub(hub: HubServer, tiny_bert: Path) -> None:
    retriever = make_retriever(tiny_bert).index(CORPUS, storage="binary")
    retriever.push_to_hub(MODEL, with_index=True)
    assert_alike(Retriever.from_pretrained(MODEL).search(QUERY), retriever.search(QUERY))


def test_a_gated_repository_says_so_unless_it_is_in_the_cache(
    hub: HubServer, shared: Retriever, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise GatedRepoError("no access", response=SimpleNamespace(headers={}, request=None))

    find_file(MODEL, "config.json", {})
    monkeypatch.setattr(transformers_hub, "hf_hub_download", refuse)
    assert find_file(MODEL, "config.json", {}) is not None
    assert find_file(MODEL, "nothing.json", {}) is None
    with pytest.raises(OSError, match="gated repo"):
        find_file("me/gated", "config.json", {})

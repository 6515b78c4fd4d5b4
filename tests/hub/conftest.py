"""A Hub on this machine, two models to share, and models to write cards of."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub import constants, file_download, hf_api
from huggingface_hub.utils import _http, close_session
from transformers.utils import hub as transformers_hub

from cards import PRESETS
from feature_task import keep_everything, shorten
from hub_server import WRITER, HubServer
from retriever_models import RESIDUAL, make_adapter
from rrra_hf import RRRAModel, train
from rrra_hf.data import Collection
from rrra_hf.fitting import fit_model
from rrra_hf.retrieval import evaluate_saved
from rrra_hf.training import TrainArguments
from sharing import BASE, LORA, put
from tiny import word_collection
from train_runs import keep


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
    model = RRRAModel.from_encoder(BASE, lora=LORA, adapter={"reader": RESIDUAL, "lambda_": 0.5})
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.2)
    model.adapter.load_state_dict(make_adapter().state_dict())
    return model


@pytest.fixture
def plain_model(tiny_bert: Path) -> RRRAModel:
    model = RRRAModel.from_encoder(tiny_bert, adapter={"reader": RESIDUAL})
    model.adapter.load_state_dict(make_adapter(seed=3).state_dict())
    return model


@pytest.fixture(scope="module")
def collection() -> Collection:
    return replace(word_collection(30, train=40, dev=15, test=20), name="words")


@pytest.fixture(scope="module")
def fitted(
    tiny_bert: Path, collection: Collection, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """Folder of a model fitted by a preset and measured on the test queries, made once."""
    place = tmp_path_factory.mktemp("models")

    def get(preset: str) -> Path:
        folder = place / f"words-{preset}"
        if not folder.exists():
            with pytest.MonkeyPatch.context() as patch:
                shorten(patch)
                keep_everything(patch)
                model = fit_model(RRRAModel.from_encoder(tiny_bert), collection, PRESETS[preset])
            model.save_pretrained(folder)
            evaluate_saved(folder, collection)
        return folder

    return get


@pytest.fixture(scope="module")
def trained(tiny_bert: Path, collection: Collection, tmp_path_factory: pytest.TempPathFactory) -> Path:
    arguments = TrainArguments(
        stage1_max_steps=2,
        stage3_max_steps=2,
        batch_size=4,
        num_negatives=2,
        folds=2,
        fit=PRESETS["residual"],
    )
    run = tmp_path_factory.mktemp("trained") / "run"
    with pytest.MonkeyPatch.context() as patch:
        keep(patch, "stage3")
        train(collection, tiny_bert, run, arguments)
    return run / "model"

"""What tests of every room share: two tiny encoders, and an environment for processes that tests start."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from rrra_hf import RRRAModel
    from rrra_hf.data import Collection

# Not to be searched for doctests: the rooms' conftests would be imported as one module.
collect_ignore_glob = ["conftest.py", "*/conftest.py"]

# Read when torch is imported, which is why this file imports it in fixtures only. Several threads on small
# tensors, beside other processes that have several, are slower by far than one.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Tests that start processes run files of theirs there, which import helpers from this folder.
os.environ["PYTHONPATH"] = os.pathsep.join(
    filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")])
)


# An example takes as long as the machine is slow.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


def pytest_collection_finish() -> None:
    """Spare the modules, none of which is garbage, each of the many collections of libraries."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def encoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Path of an encoder by its `model_type`, made once."""
    from tiny import save_encoder

    made: dict[str, Path] = {}

    def get(model_type: str) -> Path:
        if model_type not in made:
            made[model_type] = save_encoder(tmp_path_factory.mktemp(model_type) / model_type, model_type)
        return made[model_type]

    return get


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Path of a sentence-transformers model: BERT, 2 layers, dimension 32, mean pooling, normalised."""
    from tiny import add_side_files, save_encoder

    folder = save_encoder(tmp_path_factory.mktemp("tiny") / "tiny-bert", "bert")
    return add_side_files(folder, {"pooling_mode_mean_tokens": True})


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fit readers of features in a few steps: for tests of anything but quality."""
    from feature_task import shorten

    shorten(monkeypatch)


@pytest.fixture(scope="module")
def feature_collection() -> Collection:
    from tiny import word_collection

    return word_collection(30, train=40, dev=10, test=10)


@pytest.fixture(scope="module")
def feature_model(tiny_bert: Path, feature_collection: Collection) -> RRRAModel:
    """A model whose adapter was fitted on features, in a few steps, and certainly reranks."""
    from feature_task import fit_model_quickly

    return fit_model_quickly(tiny_bert, feature_collection)

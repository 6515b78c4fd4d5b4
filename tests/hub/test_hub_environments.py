"""A repository opens in an environment of its own, with the package and without."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import numpy as np
import pytest

from hub_server import HubServer
from rrra_hf import RRRAModel
from sharing import TEXTS, embed

OPEN = """
import json, sys
import torch
from transformers import AutoModel
from sentence_transformers import SentenceTransformer
repositories, plain, texts = json.loads(sys.argv[1])

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


PLAIN = """
model = AutoModel.from_pretrained("me/plain", revision=plain, trust_remote_code=False)
assert type(model).__module__ == "transformers.models.bert.modeling_bert", type(model)
assert "rrra_hf" not in sys.modules
found.append([SentenceTransformer("me/plain", device="cpu", revision=plain).encode(texts).tolist()])
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
        # Without PYTHONPATH, which may lead to the package.
        process = subprocess.run([python, "-c", f"import {package}"], env={}, capture_output=True, text=True)
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
    """With flag and without the package, or as long as it isn't imported; then with it and without flag.

    The plain form opens without either.
    """
    revisions = {f"me/{form}": lora_model.push_to_hub(f"me/{form}", form=form).oid for form in forms}
    plain = lora_model.push_to_hub("me/plain", form="plain").oid
    for repository in (*revisions, "me/plain"):
        plain_model.push_to_hub(repository, commit_message="another model, later")
    python = make_environment(tmp_path / "env", *without)
    code = OPEN + REFUSED + PLAIN + ("" if without else WITH_PACKAGE) + "print(json.dumps(found))"
    process = subprocess.run(
        [python, "-c", code, json.dumps([revisions, plain, TEXTS])],
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
    found_by_form = json.loads(process.stdout)
    assert [len(embeddings) for embeddings in found_by_form] == [2 if without else 5 for _ in forms] + [1]
    for embeddings in found_by_form:
        for found in embeddings:
            np.testing.assert_allclose(found, expected, atol=1e-6, rtol=0)

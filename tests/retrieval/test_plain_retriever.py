"""A retriever in the plain form: an ordinary encoder, the adapter beside it, and the same hits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from sentence_transformers import SentenceTransformer
from transformers import BertModel

from alike import assert_alike
from retriever_models import CORPUS, make_adapter
from retrievers import QUERIES, make_model
from rrra_hf import RRRAModel
from rrra_hf.retrieval import Retriever


@pytest.fixture(params=[{}, {"query_map": True, "document_map": True}], ids=["no maps", "maps"])
def model(request: pytest.FixtureRequest, tiny_bert: Path) -> RRRAModel:
    return make_model(tiny_bert, lambda_=0.5, **request.param)


def open_again(folder: Path) -> Retriever:
    opened = Retriever.from_pretrained(folder, device="cpu")
    assert type(opened.encoder[0].model) is BertModel
    return opened


def test_the_hits_are_the_same(model: RRRAModel, tmp_path: Path) -> None:
    retriever = Retriever(model).index(CORPUS)
    expected = retriever.search(QUERIES, probabilities=True)
    retriever.save_pretrained(tmp_path / "plain", form="plain")
    opened = open_again(tmp_path / "plain")
    assert_alike(opened.search(QUERIES, probabilities=True), expected)
    texts = list(CORPUS)
    assert_alike(opened.rank(QUERIES[0], texts), retriever.rank(QUERIES[0], texts))
    # As a model, and indexed again
    again = Retriever(RRRAModel.from_pretrained(tmp_path / "plain")).index(CORPUS)
    assert_alike(again.search(QUERIES, probabilities=True), expected)
    # Saved as it was opened, in either form
    for form in ("full", "plain"):
        opened.save_pretrained(tmp_path / form, form=form)
        assert_alike(open_again(tmp_path / form).search(QUERIES, probabilities=True), expected)


def test_a_model_in_the_plain_form_opens_as_a_retriever(model: RRRAModel, tmp_path: Path) -> None:
    expected = Retriever(model).index(CORPUS).search(QUERIES, probabilities=True)
    model.save_pretrained(tmp_path / "plain", form="plain")
    assert_alike(open_again(tmp_path / "plain").index(CORPUS).search(QUERIES, probabilities=True), expected)


def test_prompts_that_were_changed_outside_are_kept(tiny_bert: Path, tmp_path: Path) -> None:
    retriever = Retriever(make_model(tiny_bert))
    retriever.encoder.prompts["query"] = "copy "
    retriever.index(CORPUS).save_pretrained(tmp_path / "plain", form="plain")
    assert_alike(open_again(tmp_path / "plain").search(QUERIES), retriever.search(QUERIES))
    assert RRRAModel.from_pretrained(tmp_path / "plain").config.query_prompt == "copy "


def test_one_that_reranks_nothing_stays_so(tiny_bert: Path, tmp_path: Path) -> None:
    retriever = Retriever(make_model(tiny_bert), adapter=None).index(CORPUS)
    retriever.save_pretrained(tmp_path / "plain", form="plain")
    opened = open_again(tmp_path / "plain")
    assert opened.adapter is None
    assert_alike(opened.search(QUERIES), retriever.search(QUERIES))


def test_an_index_of_lora_is_refused(tiny_bert: Path, tmp_path: Path) -> None:
    model = RRRAModel.from_encoder(tiny_bert, lora=True)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    retriever = Retriever(model).index(CORPUS)
    with pytest.raises(ValueError, match=r"with_index can't go with form='plain': merged weights make"):
        retriever.save_pretrained(tmp_path / "plain", form="plain")
    assert not (tmp_path / "plain").exists()
    retriever.save_pretrained(tmp_path / "plain", form="plain", with_index=False)
    opened = open_again(tmp_path / "plain").index(CORPUS)
    assert_alike(opened.search(QUERIES, probabilities=True), retriever.search(QUERIES, probabilities=True))


def test_an_ordinary_encoder_is_plain_already(tiny_bert: Path, tmp_path: Path) -> None:
    encoder = SentenceTransformer(str(tiny_bert), device="cpu")
    retriever = Retriever(encoder, make_adapter(lambda_=0.5)).index(CORPUS)
    retriever.save_pretrained(tmp_path / "plain", form="plain")
    assert_alike(open_again(tmp_path / "plain").search(QUERIES), retriever.search(QUERIES))
    mapped = Retriever(encoder, make_adapter(lambda_=0.5, query_map=True))
    with pytest.raises(ValueError, match=r"form='plain' needs linear maps inside of the model"):
        mapped.save_pretrained(tmp_path / "mapped", form="plain")
    # The way that the message names
    mapped.save_pretrained(tmp_path / "mapped")
    RRRAModel.from_pretrained(tmp_path / "mapped").save_pretrained(tmp_path / "moved", form="plain")
    expected = mapped.index(CORPUS).search(QUERIES, probabilities=True)
    assert_alike(open_again(tmp_path / "moved").index(CORPUS).search(QUERIES, probabilities=True), expected)


@pytest.mark.parametrize("kind", ["models&Dense", "models.Denser", "modelz.Dense", "models"])
@pytest.mark.parametrize("file", ["modules.json", "3_Router/router_config.json"])
def test_a_module_that_does_not_exist_is_refused(
    tiny_bert: Path, tmp_path: Path, file: str, kind: str
) -> None:
    make_model(tiny_bert, query_map=True).save_pretrained(tmp_path, form="plain")
    known = {"modules.json": "models.Pooling", "3_Router/router_config.json": "models.Dense"}[file]
    text = (tmp_path / file).read_text()
    (tmp_path / file).write_text(
        text.replace(f"sentence_transformers.{known}", f"sentence_transformers.{kind}")
    )
    with pytest.raises(ValueError, match=rf"{tmp_path.name}.*"):
        Retriever.from_pretrained(tmp_path, device="cpu")

"""What transformers' own suite asks of every model, asked of ours around encoders of four kinds."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModel

from alike import assert_alike
from model_folders import TEXTS, embed, make
from rrra_hf import RRRAConfig, RRRAModel
from test_backbones import T5, save_encoder_decoder
from tiny import make_tokenizer, save_encoder

KINDS = ("bert", "modernbert", "qwen3", "t5")
POOLING = {"qwen3": "lasttoken", "modernbert": "cls"}


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def get(kind: str) -> Path:
        if kind not in made:
            folder = tmp_path_factory.mktemp(kind) / kind
            made[kind] = (
                save_encoder_decoder(folder, kind, **T5) if kind == "t5" else save_encoder(folder, kind)
            )
        return made[kind]

    return get


@pytest.fixture(params=KINDS)
def model(request: pytest.FixtureRequest, folder_of: Callable[[str], Path]) -> RRRAModel:
    """A model of each kind, in evaluation mode, whose LoRA changes embeddings."""
    kind = request.param
    return make(folder_of(kind), pooling=POOLING.get(kind, "mean"), lora={"r": 2}).eval()


def batch(texts: list[str] = TEXTS, padding_side: str = "right") -> dict[str, torch.Tensor]:
    return dict(make_tokenizer(padding_side)(texts, padding=True, return_tensors="pt"))


# -------------------------------------------------------------------- outputs


@torch.no_grad()
def test_layers_and_attentions_are_returned_on_request(model: RRRAModel) -> None:
    inputs = batch()
    length, layers = inputs["input_ids"].shape[1], model.config.num_hidden_layers
    model.set_attn_implementation("eager")
    plain = model(**inputs)
    assert plain.hidden_states is None and plain.attentions is None and plain.past_key_values is None
    asked = {"output_hidden_states": True, "output_attentions": True}
    given = model(**inputs, **asked)
    for name, value in asked.items():
        setattr(model.config, name, value)
    for output in (given, model(**inputs)):
        assert torch.equal(output.pooler_output, plain.pooler_output)
        assert [tuple(h.shape) for h in output.hidden_states] == [(len(TEXTS), length, 32)] * (layers + 1)
        assert torch.equal(output.hidden_states[-1], output.last_hidden_state)
        assert [tuple(a.shape) for a in output.attentions] == [(len(TEXTS), 2, length, length)] * layers


@torch.no_grad()
def test_tuples_are_returned_on_request(model: RRRAModel) -> None:
    expected = model(**batch(), output_hidden_states=True)
    given = model(**batch(), output_hidden_states=True, return_dict=False)
    model.config.return_dict = False
    configured = model(**batch(), output_hidden_states=True)
    assert isinstance(model(**batch(), return_dict=True), dict)
    for output in (given, configured):
        assert isinstance(output, tuple)
        assert torch.equal(output[0], expected.last_hidden_state)
        assert torch.equal(output[1], expected.pooler_output)
        assert all(torch.equal(a, b) for a, b in zip(output[2], expected.hidden_states, strict=True))


@torch.no_grad()
def test_a_cache_is_returned_on_request(folder_of: Callable[[str], Path]) -> None:
    model = RRRAModel.from_encoder(folder_of("qwen3"), pooling="lasttoken")
    ids = torch.tensor([[2, 5, 6, 7, 3]])
    first = model(ids[:, :3], use_cache=True)
    rest = model(ids[:, 3:], past_key_values=first.past_key_values, use_cache=True)
    assert torch.allclose(rest.last_hidden_state, model(ids).last_hidden_state[:, 3:], atol=1e-5)
    assert model(ids).past_key_values is None


@torch.no_grad()
def test_batches_and_repetition_change_nothing(model: RRRAModel) -> None:
    together = model(**batch()).pooler_output
    assert torch.equal(model(**batch()).pooler_output, together)
    alone = torch.cat([model(**batch([text])).pooler_output for text in TEXTS])
    assert torch.allclose(alone, together, atol=1e-5)


@torch.no_grad()
def test_padding_on_either_side_changes_nothing(model: RRRAModel) -> None:
    left = batch(padding_side="left")
    if model.config.text_config.model_type == "bert":
        # Its positions are absolute.
        left["position_ids"] = (left["attention_mask"].cumsum(1) - 1).clamp(min=0)
    assert torch.allclose(model(**left).pooler_output, model(**batch()).pooler_output, atol=1e-5)


@torch.no_grad()
def test_token_embeddings_may_be_given(model: RRRAModel) -> None:
    inputs = batch()
    expected = model(**inputs).pooler_output
    vectors = model.get_input_embeddings()(inputs.pop("input_ids"))
    assert torch.allclose(model(inputs_embeds=vectors, **inputs).pooler_output, expected, atol=1e-6)


# -------------------------------------------------------------------- loading and saving


def test_attention_implementations_agree(model: RRRAModel, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    for implementation in ("eager", "sdpa"):
        try:
            opened = RRRAModel.from_pretrained(tmp_path, attn_implementation=implementation)
        except ValueError as error:
            assert "does not support an attention implementation" in str(error)
            assert (model.config.text_config.model_type, implementation) == ("t5", "sdpa")
            continue
        assert opened.encoder.config._attn_implementation == implementation
        assert torch.allclose(embed(opened), embed(model), atol=1e-5)


def test_tied_weights_stay_tied(folder_of: Callable[[str], Path], tmp_path: Path) -> None:
    RRRAModel.from_encoder(folder_of("t5")).save_pretrained(tmp_path)
    for model in (RRRAModel.from_encoder(folder_of("t5")), RRRAModel.from_pretrained(tmp_path)):
        encoder = model.encoder
        assert encoder.shared.weight is encoder.encoder.embed_tokens.weight
        names = [name for name, _ in model.named_parameters() if "embed" in name or "shared" in name]
        assert names == ["encoder.shared.weight"]


def test_resized_token_embeddings_are_saved(model: RRRAModel, tmp_path: Path) -> None:
    expected = embed(model)
    model.resize_token_embeddings(40)
    assert model.config.text_config.vocab_size == 40
    assert_alike(embed(model), expected)
    model.save_pretrained(tmp_path)
    opened = RRRAModel.from_pretrained(tmp_path)
    assert opened.get_input_embeddings().num_embeddings == 40
    assert_alike(embed(opened), expected)


def test_weights_may_come_from_memory(model: RRRAModel) -> None:
    state = copy.deepcopy(model.state_dict())
    opened = RRRAModel.from_pretrained(None, config=model.config, state_dict=state)
    assert_alike(embed(opened), embed(model))
    assert {name for name, p in opened.named_parameters() if p.requires_grad} == {
        name for name, p in model.named_parameters() if p.requires_grad
    }
    state.pop(next(name for name in state if "lora_B" in name))
    with pytest.raises(ValueError, match=r"The state_dict doesn't fit its config: weights 1 missing"):
        RRRAModel.from_pretrained(None, config=model.config, state_dict=state)
    with pytest.raises(ValueError, match="config and state_dict must be given where there is no name"):
        RRRAModel.from_pretrained(None, config=model.config)


def test_weights_of_another_shape_are_made_anew_only_on_request(tiny_bert: Path, tmp_path: Path) -> None:
    RRRAModel.from_encoder(tiny_bert).save_pretrained(tmp_path)
    config = RRRAConfig.from_pretrained(tmp_path)
    config.text_config.type_vocab_size = 5
    with pytest.raises(ValueError, match=r"of another shape \(encoder\.embeddings\.token_type_emb"):
        RRRAModel.from_pretrained(tmp_path, config=config)
    model, info = RRRAModel.from_pretrained(
        tmp_path, config=config, ignore_mismatched_sizes=True, output_loading_info=True
    )
    assert model.encoder.embeddings.token_type_embeddings.num_embeddings == 5
    assert [name for name, *_ in info["mismatched_keys"]] == [
        "encoder.embeddings.token_type_embeddings.weight"
    ]


def test_a_state_dict_can_be_saved_and_loaded_strictly(model: RRRAModel) -> None:
    other = RRRAModel(model.config)
    other.load_state_dict(model.state_dict(), strict=True)
    assert_alike(embed(other), embed(model))
    assert torch.isfinite(embed(AutoModel.from_config(model.config))).all()


def test_a_config_alone_makes_a_model(model: RRRAModel, tmp_path: Path) -> None:
    model.config.save_pretrained(tmp_path)
    config = AutoConfig.from_pretrained(tmp_path)
    model.config._name_or_path = config._name_or_path
    assert config.to_dict() == model.config.to_dict()
    assert {k: v.shape for k, v in RRRAModel(config).state_dict().items()} == {
        k: v.shape for k, v in model.state_dict().items()
    }


# -------------------------------------------------------------------- training


@pytest.mark.parametrize("checkpointing", [None, {"use_reentrant": True}, {"use_reentrant": False}])
def test_training_changes_what_is_trainable(model: RRRAModel, checkpointing: dict[str, Any] | None) -> None:
    if checkpointing is not None:
        model.gradient_checkpointing_enable(checkpointing)
        model.enable_input_require_grads()
    model.train()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
    before = copy.deepcopy(model.state_dict())
    model(**batch()).pooler_output[:, 0].sum().backward()
    optimizer.step()
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert any("lora_A" in name for name in changed) and any("lora_B" in name for name in changed)
    assert not [name for name in changed if "lora_" not in name]

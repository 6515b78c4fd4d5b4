"""Tiny encoders with random weights and real tokenizers, saved as anyone's model folder would be."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, StaticEmbedding
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import AutoConfig, AutoModel, PreTrainedTokenizerFast

from rrra_hf.data import Collection

TEXT = "the a of in to is how do i list copy find files folder sort text line query passage old new"
WORDS = TEXT.split()
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]

SIZE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "vocab_size": len(SPECIAL) + len(WORDS),
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 2,
    "eos_token_id": 3,
}
ENCODERS = {
    "bert": {},
    "mpnet": {},
    "xlm-roberta": {},
    "modernbert": {"cls_token_id": 2, "sep_token_id": 3, "global_attn_every_n_layers": 2},
    "qwen3": {"num_key_value_heads": 1, "head_dim": 16},
}


def make_tokenizer(padding_side: str = "right") -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(WordLevel({w: i for i, w in enumerate(SPECIAL + WORDS)}, unk_token="[UNK]"))
    tokenizer.normalizer = Lowercase()
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_input_names=["input_ids", "attention_mask"],
        padding_side=padding_side,
    )


def save_encoder(folder: Path, model_type: str, **config: object) -> Path:
    """Save an encoder of transformers, without sentence-transformers' files."""
    torch.manual_seed(0)
    encoder = AutoModel.from_config(
        AutoConfig.for_model(model_type, **SIZE, **ENCODERS[model_type], **config)
    )
    encoder.save_pretrained(folder)
    make_tokenizer("left" if model_type == "qwen3" else "right").save_pretrained(folder)
    return folder


def static_encoder(words: Iterable[str], dim: int = 32) -> SentenceTransformer:
    """Return a fast encoder, whose embeddings are means of random vectors of words."""
    numbers = {word: number for number, word in enumerate(dict.fromkeys(["[UNK]", *words]))}
    tokenizer = Tokenizer(WordLevel(numbers, unk_token="[UNK]"))
    tokenizer.normalizer = Lowercase()
    tokenizer.pre_tokenizer = Whitespace()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        modules = [StaticEmbedding(tokenizer, embedding_dim=dim), Normalize()]
    return SentenceTransformer(modules=modules, device="cpu")


def save_own_code(folder: Path, name: str) -> Path:
    """Save an encoder with code of its own, whose class is `{name}Model`."""
    save_encoder(folder, "bert")
    module, model_type = f"{name.lower()}_code", f"{name.lower()}-bert"
    (folder / f"{module}.py").write_text(
        "from transformers import BertConfig, BertModel\n\n"
        f"class {name}Config(BertConfig):\n    model_type = {model_type!r}\n\n"
        f"class {name}Model(BertModel):\n    config_class = {name}Config\n"
    )
    config = json.loads((folder / "config.json").read_text())
    config["model_type"] = model_type
    config["auto_map"] = {f"Auto{kind}": f"{module}.{name}{kind}" for kind in ("Config", "Model")}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def add_side_files(
    folder: Path, pooling: dict[str, object], normalize: bool = True, **settings: object
) -> Path:
    """Make an encoder's folder one of sentence-transformers, in the format of its early releases."""
    names = ["Transformer", "Pooling", *(["Normalize"] if normalize else [])]
    modules = [
        {
            "idx": i,
            "name": str(i),
            "path": f"{i}_{name}" if i else "",
            "type": f"sentence_transformers.models.{name}",
        }
        for i, name in enumerate(names)
    ]
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "1_Pooling/config.json").write_text(json.dumps({"word_embedding_dimension": 32, **pooling}))
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "sentence_bert_config.json").write_text(
        json.dumps({"max_seq_length": 32, "do_lower_case": False})
    )
    (folder / "config_sentence_transformers.json").write_text(json.dumps(settings))
    return folder


def word_collection(documents: int, **splits: int) -> Collection:
    """Documents of six words, and for each split so many queries of three words from their document."""
    rng = np.random.default_rng(0)
    words, count = WORDS[6:], sum(splits.values())
    texts = [" ".join(rng.choice(words, 6, replace=False)) for _ in range(documents)]
    queries = [" ".join(rng.choice(texts[i % documents].split(), 3, replace=False)) for i in range(count)]
    labels = iter([(f"q{i}", {f"d{i % documents}": 1}) for i in range(count)])
    ids = [f"d{i}" for i in range(documents)]
    return Collection(
        name="tiny",
        corpus=Dataset.from_dict({"id": ids, "title": [""] * documents, "text": texts}),
        queries=Dataset.from_dict({"id": [f"q{i}" for i in range(count)], "text": queries}),
        qrels_by_split={name: dict(islice(labels, size)) for name, size in splits.items()},
    )

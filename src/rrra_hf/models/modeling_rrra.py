"""The model: a text encoder and its retriever adapter, in one folder that every loader opens."""

from __future__ import annotations

import copy
import inspect
import logging
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPoolingAndCrossAttentions

from .adapter_rrra import ADAPTER_FOLDER, CONFIG_NAME, RetrieverAdapter
from .adapter_weights_rrra import OLD_NAMES, WEIGHTS_NAME
from .after_pooling_rrra import make_after_pooling
from .backbone_rrra import auto_class, is_own_code
from .configuration_rrra import AdapterConfig, RRRAConfig
from .dense_files_rrra import load_after_pooling
from .download_rrra import checked_downloads
from .encoder_rrra import NO_LIMIT, load_tokenizer
from .files_rrra import write_aside
from .hub_files_rrra import HUB_OPTIONS, damaged_file, folder_of, named_errors
from .layout_rrra import (
    SETTINGS_NAME,
    adapter_maps,
    adopt_settings,
    check_side_files,
    read_appended,
    write_side_files,
)
from .loaded_rrra import check_loaded, check_model_type
from .lora_rrra import (
    base_name,
    check_fits_base,
    fill_base,
    inject_lora,
    is_trained,
    load_base,
    lora_settings,
    merge_lora_layers,
    record_base,
    without_base,
)
from .peft_rrra import load_peft_weights
from .plain_rrra import (
    BASE_MODEL,
    adapter_beside,
    open_adapter,
    rename_tokenizer,
    set_maps,
    write_plain,
)
from .pooling_rrra import pool_tokens
from .sentence_transformer_rrra import check_modules, make_sentence_transformer
from .sizes_rrra import check_size, without_memory
from .source_rrra import EncoderSource

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo

    try:  # noqa: SIM105 - every import outside of try is required of users of code in a Hub repository
        from sentence_transformers import SentenceTransformer
    except ImportError:
        pass

logger = logging.getLogger(__name__)

FORMS = ("full", "lora", "merged", "plain")
# The code that folders carry.
CODE = tuple(sorted(path.name for path in Path(__file__).parent.glob("*_rrra.py")))
# Weights, modules and code of an earlier model in the folder that a model is saved to.
OWNED = (
    *CODE,
    *(f"{ADAPTER_FOLDER}/{name}" for name in (CONFIG_NAME, WEIGHTS_NAME)),
    "model.safetensors",
    f"model-{'[0-9]' * 5}-of-{'[0-9]' * 5}.safetensors",
    "model.safetensors.index.json",
    *(
        f"[0-9]*_{kind}/{name}"
        for kind in ("Dense", "LayerNorm")
        for name in ("config.json", "model.safetensors")
    ),
    "[0-9]*_Normalize",
    "[0-9]*_Normalize/config.json",
    "[0-9]_Router/router_config.json",
    *(f"[0-9]_Router/*_Dense/{name}" for name in ("config.json", "model.safetensors")),
    "[0-9]_Router/*_Normalize",
)
# The loading info of transformers, of a complete model.
NOTHING_AMISS: dict[str, Any] = {
    kind: set() for kind in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs")
}
# Names of an adapter's weights in folders of format version 1, as transformers takes them.
KEY_MAPPING = {rf"^adapter\.{old.removeprefix('^')}": f"adapter.{new}" for old, new in OLD_NAMES}


class RRRAModel(PreTrainedModel):
    """A text encoder (with or without LoRA), its pooling, and the adapter that reads its embeddings.

    A saved folder opens with `RRRAModel`, `AutoModel` and `SentenceTransformer`, with the same embeddings.
    With LoRA in the configuration, only LoRA and adapter are trained; otherwise all weights are.

    Args:
        config: Configuration.
        encoder: Encoder with trained weights. By default, one is made from `config.text_config` with random
            weights.

    Attributes:
        encoder: Any text model of transformers.
        after_pooling: The modules between pooling and the embedding that came with the encoder.
        adapter: The `RetrieverAdapter`. You may replace it by another of the same dimension.
        tokenizer: The encoder's tokenizer, None if it is unknown.

    Example:
        >>> size = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 9}
        >>> model = RRRAModel(RRRAConfig(text_config={"model_type": "bert", **size})).eval()
        >>> model(torch.tensor([[1, 2, 3]])).pooler_output.shape
        torch.Size([1, 8])
    """

    config_class = RRRAConfig
    config: RRRAConfig
    base_model_prefix = "rrra"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    # The adapter is small and its probabilities are calibrated: half precision is for the encoder.
    _keep_in_fp32_modules_strict = ["adapter"]  # noqa: RUF012

    def __init__(self, config: RRRAConfig, encoder: PreTrainedModel | None = None):
        super().__init__(config)
        assert isinstance(config.text_config, PreTrainedConfig)
        if encoder is None:
            encoder = auto_class(config.text_config).from_config(config.text_config)
        self.encoder: PreTrainedModel = encoder
        config.text_config = self.encoder.config
        self.after_pooling = make_after_pooling(config.after_pooling)
        self._encoder_inputs = frozenset(inspect.signature(self.encoder.forward).parameters)
        self.tokenizer: Any = None
        self.post_init()
        # post_init initialises layers; adapter and LoRA have initial weights of their own.
        self.adapter = RetrieverAdapter(AdapterConfig.from_dict(config.adapter or {}))
        if config.lora:
            inject_lora(self.encoder, config.lora)
        if config.base_weights:
            # from_pretrained copies them from the base model.
            self._keys_to_ignore_on_load_missing = {r"^encoder\.(?!.*lora_)"}
        self.set_trainable()

    def set_trainable(self) -> None:
        """Make LoRA and adapter trainable if the configuration has LoRA, all weights otherwise."""
        for name, parameter in self.encoder.named_parameters():
            parameter.requires_grad_(is_trained(name, self.config.lora))
        self.after_pooling.requires_grad_(not self.config.lora)
        self.adapter.requires_grad_(True)

    # ---------------------------------------------------------------- making and loading

    @classmethod
    def from_encoder(
        cls,
        name_or_path: str | os.PathLike[str],
        *,
        lora: bool | dict[str, Any] | None = None,
        adapter: dict[str, Any] | None = None,
        pooling: str | list[str] | None = None,
        normalize: bool | None = None,
        query_prompt: str | None = None,
        document_prompt: str | None = None,
        max_seq_length: int | None = None,
        **options: Any,
    ) -> RRRAModel:
        """Make a model from an encoder of transformers or sentence-transformers, with the trained adapter.

        Settings that you don't give are read from the encoder's sentence-transformers files, if it has any.

        Args:
            name_or_path: Folder or Hub repository of the encoder, or of a LoRA that peft wrote.
            lora: True for LoRA on all linear layers, or arguments of `peft.LoraConfig`.
            adapter: Values of `AdapterConfig` for an adapter that isn't fitted, instead of the trained one.
            pooling: A pooling of `RRRAConfig`. If the encoder has no sentence-transformers files, it is
                guessed as sentence-transformers does, with a warning: the last token of a causal language
                model, the mean of others.
            normalize: Divide embeddings by their length; True if the encoder has no sentence-transformers
                files.
            query_prompt: Text put before each query.
            document_prompt: Text put before each document.
            max_seq_length: Number of tokens that texts are cut to; as many as the encoder takes by default.
            options: Passed to `AutoModel.from_pretrained`: `dtype`, `attn_implementation`, `revision`, ...

        Raises:
            OSError: If there is no such encoder.
            ValueError: If the encoder does something that an `RRRAConfig` can't express, or lacks weights, or
                a value is not legal.
        """
        source = EncoderSource.read(os.fspath(name_or_path), options)
        if source.peft is not None:
            if lora:
                raise ValueError(
                    f"lora must be None for a folder that has LoRA, as {source.name} has; got {lora!r}."
                )
            lora = source.peft.lora
        encoder, tokenizer = source.load(options)
        settings = source.settings_with(
            encoder,
            tokenizer,
            pooling=pooling,
            normalize=normalize,
            query_prompt=query_prompt,
            document_prompt=document_prompt,
            max_seq_length=max_seq_length,
        )
        config = RRRAConfig(
            # The live object would lose its attention implementation.
            text_config=copy.deepcopy(encoder.config) if is_own_code(encoder) else encoder.config.to_dict(),
            lora=lora_settings(encoder, lora) if lora else None,
            adapter=adapter,
            **source.origin(),
            **settings,
        )
        # Before the model: it checks the sizes that the configuration declares.
        layers = load_after_pooling(
            source.beside, config.after_pooling or [], source.folders, source.beside_hub
        )
        model = cls(config, encoder=encoder)
        if source.peft is not None:
            load_peft_weights(source.name, source.hub, encoder)
        model._set_after_pooling(layers)
        if adapter is None:
            model.adapter = RetrieverAdapter.pretrained(config.embedding_dim)
        set_maps(model.adapter, source.maps)
        model.adapter.to(model.device)
        model.tokenizer = tokenizer
        return model.eval()

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str] | None,
        *args: Any,
        output_loading_info: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Load a model from a folder or Hub repository, completely or not at all.

        It may be in any form of `save_pretrained`, or the folder of a `Retriever`.

        LoRA weights that were saved without their base model are loaded together with it. The base model is
        found by `config.base_model_name`; give `base_model_name=...` if it is elsewhere.

        Args:
            pretrained_model_name_or_path: Folder or Hub repository; None for weights from memory, with
                `config` and `state_dict`.
            args: As in `PreTrainedModel.from_pretrained`.
            output_loading_info: Also return a dictionary with missing, unexpected and mismatched weights.
            kwargs: As in `PreTrainedModel.from_pretrained`: `dtype`, `device_map`, `revision`, ... With
                `ignore_mismatched_sizes=True`, weights of another shape than the `config` says are made anew.

        Raises:
            OSError: If it, or its base model, can't be found.
            ValueError: If it is another kind of model, a weight is missing, unexpected, of another shape or
                damaged, the base model has changed, or the folder's sentence-transformers files make other
                embeddings. A download with other contents than the Hub declares is removed from the cache.
        """
        if pretrained_model_name_or_path is None:
            model, info = cls._from_memory(*args, **kwargs)
            return (model, info) if output_loading_info else model
        name = os.fspath(pretrained_model_name_or_path)
        hub = {key: kwargs[key] for key in (*HUB_OPTIONS, "subfolder") if key in kwargs}
        if kwargs.get("config") is None:
            beside = adapter_beside(name, hub)
            if beside is not None:
                model = cls._from_plain(name, beside, **kwargs)
                return (model, dict(NOTHING_AMISS)) if output_loading_info else model
            check_model_type(name, hub)
        anew = bool(kwargs.get("ignore_mismatched_sizes"))
        kwargs["ignore_mismatched_sizes"] = True  # check_loaded names them
        kwargs["key_mapping"] = {**KEY_MAPPING, **(kwargs.get("key_mapping") or {})}
        with named_errors(name):
            config, _ = RRRAConfig.from_pretrained(name, **{**kwargs, "return_unused_kwargs": True})
        base = load_base(config, name, hub) if config.base_weights else None
        try:
            with checked_downloads(folder_of(name, hub), name), named_errors(name):
                cls._check_size(name, hub, config, base)
                loaded: Any = super().from_pretrained(name, *args, output_loading_info=True, **kwargs)
        except SafetensorError as error:
            raise ValueError(f"{damaged_file(name, hub)} is damaged: {error}") from error
        model, info = loaded
        check_loaded(name, info, bool(model.config.lora), anew)
        if base is not None:
            fill_base(model.encoder, base)
            model.config.base_weights = None
        try:
            model.adapter.check_weights()
        except ValueError as error:
            raise ValueError(f"The adapter weights of {name} are damaged: {error}") from error
        model._adopt_appended(name, hub)
        check_side_files(name, hub, model.config, model.adapter, model.after_pooling)
        # transformers makes every parameter trainable.
        model.set_trainable()
        model.tokenizer = load_tokenizer(name, trust_remote_code=kwargs.get("trust_remote_code"), **hub)
        if model.tokenizer is not None and model.config.max_seq_length is not None:
            # sentence-transformers saves the length in the tokenizer only.
            model.config.max_seq_length = model.tokenizer.model_max_length
        return (model, info) if output_loading_info else model

    @classmethod
    def _from_memory(cls, *args: Any, **kwargs: Any) -> tuple[RRRAModel, dict[str, Any]]:
        """Load a model from a configuration and weights in memory."""
        if kwargs.get("config") is None or kwargs.get("state_dict") is None:
            raise ValueError("config and state_dict must be given where there is no name.")
        loaded: Any = super().from_pretrained(None, *args, output_loading_info=True, **kwargs)
        model, info = loaded
        check_loaded(
            "The state_dict", info, bool(model.config.lora), bool(kwargs.get("ignore_mismatched_sizes"))
        )
        model.set_trainable()
        return model, info

    def _adopt_appended(self, name: str, hub: dict[str, Any]) -> None:
        """Take over the modules that sentence-transformers wrote behind those of the model, if there are."""
        settings = read_appended(name, hub, self.config)
        if settings is not None:
            self.config.after_pooling, self.config.normalize = (
                settings["after_pooling"],
                settings["normalize"],
            )
            self._set_after_pooling(
                load_after_pooling(name, self.config.after_pooling or [], settings["folders"], hub)
            )
            if self.config.embedding_dim != self.adapter.config.embedding_dim:
                self.adapter.set_dim(self.config.embedding_dim)
            self.config.set_adapter(self.adapter.config)

    def _set_after_pooling(self, layers: nn.Sequential) -> None:
        self.after_pooling = layers.to(self.device, next(self.encoder.parameters()).dtype)
        self.set_trainable()

    @classmethod
    def _from_plain(cls, name: str, beside: Path, **options: Any) -> RRRAModel:
        """Load an encoder and the adapter in the folder beside it."""
        with checked_downloads(beside.parent, name):
            model = cls.from_encoder(name, **options)
        maps = adapter_maps(model.adapter)
        adapter = open_adapter(name, beside, model.config.embedding_dim)
        if maps and adapter.has_maps:
            raise ValueError(f"{name} has linear maps twice: in its modules and in {ADAPTER_FOLDER}/.")
        set_maps(adapter, maps)
        model.adapter = adapter.to(model.device)
        model.config.adapter = adapter.config.to_dict()
        for setting in BASE_MODEL:
            recorded = model.encoder.config.__dict__.pop(setting, None)
            setattr(model.config, setting, recorded)
        return model

    @classmethod
    def _check_size(
        cls, name: str, hub: dict[str, Any], config: RRRAConfig, base: PreTrainedModel | None
    ) -> None:
        """Compare a configuration with the files of the weights, before memory is taken."""
        model = without_memory(name, lambda: cls(config))
        if base is None:
            check_size(name, hub, model.state_dict())
            return
        check_fits_base(model.encoder, base, base_name(config))
        check_size(name, hub, without_base(model.state_dict()))

    # ---------------------------------------------------------------- embedding

    def get_input_embeddings(self) -> nn.Module:
        """Return the encoder's token embeddings."""
        return self.encoder.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the encoder's token embeddings."""
        self.encoder.set_input_embeddings(value)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        task: str | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPoolingAndCrossAttentions | tuple[Any, ...]:
        """Embed tokenized texts.

        Args:
            input_ids: Token ids, `(batch, length)`.
            attention_mask: 1 for tokens, 0 for padding on either side, `(batch, length)`.
            token_type_ids: Segment ids, `(batch, length)`; ignored by encoders that have none.
            position_ids: Positions, `(batch, length)`.
            inputs_embeds: Token embeddings instead of `input_ids`, `(batch, length, dim)`.
            task: `"query"` or `"document"`: which of the adapter's linear maps to apply, if it has any. None
                means `"document"`.
            kwargs: Passed to the encoder: `output_hidden_states`, `output_attentions`, `use_cache`, ... With
                `return_dict=False`, a tuple is returned.

        Returns:
            `last_hidden_state` of the encoder, `pooler_output`, the embeddings, `(batch, dim)`, and, if you
            ask for them, `hidden_states`, `attentions` and `past_key_values`.

        Raises:
            ValueError: If `task` is not legal.
        """
        if task not in ("query", "document", None):
            raise ValueError(f"task must be 'query', 'document' or None, got {task!r}.")
        optional = {
            "token_type_ids": token_type_ids,
            "position_ids": position_ids,
            "inputs_embeds": inputs_embeds,
        }
        kwargs.update({k: v for k, v in optional.items() if v is not None and k in self._encoder_inputs})
        return_dict = kwargs.pop("return_dict", None)
        output = self.encoder(
            input_ids=input_ids, attention_mask=attention_mask, return_dict=True, **self._asked_for(kwargs)
        )
        hidden = output.last_hidden_state
        if self.training and torch.is_grad_enabled():
            # A loss may use the adapter outside of forward, where DistributedDataParallel doesn't see it: it
            # would crash, or not average the gradients. This makes forward depend on the adapter. A
            # SentenceTransformer may have copies of the modules after pooling.
            heads = (*self.adapter.parameters(), *self.after_pooling.parameters())
            trainable = [p.sum() for p in heads if p.requires_grad]
            hidden = hidden + 0.0 * sum(trainable)
        if attention_mask is None:
            attention_mask = torch.ones(hidden.shape[:2], dtype=torch.long, device=hidden.device)
        result = BaseModelOutputWithPoolingAndCrossAttentions(
            last_hidden_state=hidden,
            pooler_output=self._embed(hidden, attention_mask, task or "document"),
            past_key_values=getattr(output, "past_key_values", None),
            hidden_states=getattr(output, "hidden_states", None),
            attentions=getattr(output, "attentions", None),
        )
        wants_tuple = return_dict is False or (return_dict is None and not self.config.return_dict)
        return result.to_tuple() if wants_tuple else result

    def _asked_for(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments of the encoder, with what this model's own configuration asks for."""
        for name in ("output_hidden_states", "output_attentions"):
            if kwargs.get(name) is None and getattr(self.config, name, False):
                kwargs[name] = True
        if "use_cache" in self._encoder_inputs:
            # Of no use for embeddings, and in the way of gradient checkpointing.
            kwargs.setdefault("use_cache", False)
        return kwargs

    def _embed(self, hidden: Tensor, attention_mask: Tensor, task: str) -> Tensor:
        pooled = self.after_pooling(pool_tokens(hidden, attention_mask, self.config.pooling))
        if self.config.normalize:
            pooled = F.normalize(pooled, dim=-1)
        if self.config.truncate_dim is not None:
            pooled = pooled[:, : self.config.truncate_dim]
        maps = adapter_maps(self.adapter)
        if task in maps:
            pooled = F.linear(pooled.to(maps[task].dtype), maps[task])
        return F.normalize(pooled, dim=-1) if maps else pooled

    # ---------------------------------------------------------------- saving

    def add_adapter(self, *args: Any, **kwargs: Any) -> None:
        """Refuse: LoRA belongs into the configuration, where saving and loading know of it.

        Raises:
            ValueError: Always.
        """
        raise ValueError(
            "An RRRAModel has its LoRA in its configuration: give lora=... to RRRAModel.from_encoder."
        )

    def load_adapter(self, *args: Any, **kwargs: Any) -> Any:
        """Refuse, as `add_adapter`; `from_encoder` opens a folder of peft.

        Raises:
            ValueError: Always.
        """
        return self.add_adapter()

    def merge_lora(self) -> RRRAModel:
        """Add the LoRA weights to the encoder's own, in place. The saved model then doesn't need peft.

        All weights are trainable afterwards.
        """
        if self.config.lora:
            merge_lora_layers(self.encoder)
            self.config.lora = None
            self.set_trainable()
        return self

    def save_pretrained(  # type: ignore[override]
        self,
        save_directory: str | os.PathLike[str],
        is_main_process: bool = True,
        *,
        form: str = "full",
        **kwargs: Any,
    ) -> None:
        """Write a folder that `RRRAModel`, `AutoModel` and `SentenceTransformer` open.

        It holds weights, config, tokenizer, the files of sentence-transformers, and the modelling code, with
        which `trust_remote_code=True` opens it where this package isn't installed. Everything is written
        beside the folder first and moved into it when complete, the config last. Of several processes, only
        the first writes.

        Args:
            save_directory: The folder; it is made if it doesn't exist.
            is_main_process: False in all processes but one.
            form: `"full"`: all weights. `"lora"`: the weights of LoRA and adapter only. They are loaded
                together with the base model, which must be loadable by `config.base_model_name`; its commit
                and a fingerprint of its weights are recorded. `"merged"`: all weights, with LoRA added to the
                encoder's, so that the folder doesn't need peft. `"plain"`: the encoder as a model of its own,
                with LoRA added, and the adapter in a folder beside it, so that everybody else sees an
                ordinary encoder: `AutoModel` and `SentenceTransformer` open it without this package and
                without its code. Linear maps are sentence-transformers' own modules, so `AutoModel` doesn't
                apply them. The model itself doesn't change.
            kwargs: As in `PreTrainedModel.save_pretrained`: `max_shard_size`, `state_dict`, ...

        Raises:
            NotADirectoryError: If there is a file of that name.
            OSError: If `form="lora"` and the base model can't be loaded.
            ValueError: If the adapter has another dimension than the encoder, `push_to_hub` is given, or the
                model can't be saved in this form.
        """
        if form not in FORMS:
            raise ValueError(f"form must be one of {', '.join(FORMS)}, got {form!r}.")
        if form in ("lora", "merged") and not self.config.lora:
            raise ValueError(f"form={form!r} needs a model with LoRA; this one has none.")
        if form == "plain" and "state_dict" in kwargs:
            raise ValueError("state_dict can't go with form='plain'.")
        if form in ("merged", "plain"):
            model = copy.deepcopy(self).merge_lora() if self.config.lora else self
            model._save(save_directory, is_main_process, form == "plain", **kwargs)
        elif form == "lora":
            record_base(self.encoder, self.config)
            try:
                state = without_base(self.state_dict())
                self._save(save_directory, is_main_process, state_dict=state, **kwargs)
            finally:
                self.config.base_weights = None
        else:
            self._save(save_directory, is_main_process, **kwargs)

    def _save(
        self,
        save_directory: str | os.PathLike[str],
        is_main_process: bool,
        plain: bool = False,
        **kwargs: Any,
    ) -> None:
        target = Path(save_directory)
        if target.is_file():
            raise NotADirectoryError(f"save_directory must be a folder, {target} is a file.")
        if kwargs.pop("push_to_hub", False):
            raise ValueError("save_pretrained doesn't upload; call push_to_hub.")
        if not self.config.lora and any("lora_" in name for name, _ in self.encoder.named_parameters()):
            raise ValueError(
                "The encoder has LoRA that its configuration doesn't know, so the folder would not open. "
                "Give lora=... to RRRAModel.from_encoder."
            )
        if not plain and is_own_code(self.encoder):
            raise ValueError(
                f"The encoder's class {type(self.encoder).__name__} is code of its own, which this form "
                "doesn't carry; use form='plain'."
            )
        # Only sentence-transformers gives this argument. It has written the settings of the model around this
        # one by now, and writes its other files afterwards.
        from_outside = "safe_serialization" in kwargs and (target / SETTINGS_NAME).exists()
        kwargs.pop("safe_serialization", None)
        first = is_main_process and _is_first_process()
        if from_outside and first:
            self._adopt_settings(target)
            if self.config.embedding_dim != self.adapter.config.embedding_dim:
                self.adapter.set_dim(self.config.embedding_dim)
        self.config.set_adapter(self.adapter.config)
        if not first:
            # Sharded weights are gathered from all processes.
            with tempfile.TemporaryDirectory() as unused:
                self._write(Path(unused), plain, is_main_process=False, **kwargs)
            return
        with write_aside(target, owned=OWNED, keep_others=True) as new:
            self._write(new, plain, **kwargs)
            if self.tokenizer is not None:
                if self.config.max_seq_length is not None:
                    self.tokenizer.model_max_length = self.config.max_seq_length
                self.tokenizer.save_pretrained(new)
                if plain:
                    rename_tokenizer(new)
            write_side_files(new, self.config, self.adapter, self.after_pooling)
            if from_outside:
                (new / SETTINGS_NAME).unlink()

    def _write(self, folder: Path, plain: bool, **kwargs: Any) -> None:
        """Write configuration and weights."""
        if plain:
            write_plain(folder, self.encoder, self.config, self.adapter, **kwargs)
        else:
            # Weights that were loaded under the names of format version 1 are not saved under them.
            super().save_pretrained(folder, save_original_format=False, **kwargs)

    def _adopt_settings(self, folder: Path) -> None:
        """Take over the settings of the `SentenceTransformer` that saves the model."""
        adopt_settings(self.config, folder)
        if self.tokenizer is not None and self.tokenizer.model_max_length < NO_LIMIT:
            self.config.max_seq_length = self.tokenizer.model_max_length

    def push_to_hub(  # type: ignore[override]
        self,
        repo_id: str,
        *,
        form: str = "full",
        private: bool | None = None,
        revision: str | None = None,
        create_pr: bool = False,
        token: str | bool | None = None,
        commit_message: str = "Upload model",
        **kwargs: Any,
    ) -> CommitInfo:
        """Upload the folder that `save_pretrained` writes, with a model card, in one commit.

        If the upload breaks off, call it again: files that arrived are not sent again.

        Args:
            repo_id: `namespace/name`; the repository is made if it doesn't exist.
            form: `"full"`, `"lora"`, `"merged"` or `"plain"`, see `save_pretrained`.
            private: Make a new repository private, and refuse one that is public.
            revision: Branch to commit to; it is made from `main` if it doesn't exist.
            create_pr: Open a pull request instead of committing.
            token: Hub token.
            commit_message: Commit message.
            kwargs: Passed to `save_pretrained`.

        Returns:
            URL of the commit, a string with the attributes `oid` and `pr_url`.

        Raises:
            ImportError: If this package isn't installed and the code came with the model.
            PermissionError: If the token doesn't allow it.
            ConnectionError: If the upload broke off. Nothing was committed then.
            ValueError: If the model can't be saved in this form, or the repository is public.
        """
        try:
            from rrra_hf.hub import push_folder
        except ImportError as error:
            raise ImportError("Install rrra-hf to upload the model.") from error
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder, form=form, **kwargs)
            return push_folder(
                folder,
                repo_id,
                private=private,
                revision=revision,
                create_pr=create_pr,
                token=token,
                commit_message=commit_message,
            )

    # ---------------------------------------------------------------- sentence-transformers

    def to_sentence_transformer(self) -> SentenceTransformer:
        """Return a `SentenceTransformer` around this model; they share weights and tokenizer.

        Raises:
            ImportError: If sentence-transformers isn't installed.
            ValueError: If the model has no tokenizer.
        """
        if self.tokenizer is None:
            raise ValueError("A SentenceTransformer needs a tokenizer: set model.tokenizer first.")
        return make_sentence_transformer(self, self.config, self.adapter, self.after_pooling, self.tokenizer)

    @staticmethod
    def from_sentence_transformer(model: SentenceTransformer) -> RRRAModel:
        """Return the model inside a `SentenceTransformer`.

        Raises:
            ValueError: If that is of another class, or modules were added to it that the model lacks.
        """
        inner = getattr(model[0], "model", None)
        if not isinstance(inner, RRRAModel):
            raise ValueError(
                f"model must hold an RRRAModel, got {type(inner).__name__}; "
                "make one with RRRAModel.from_encoder."
            )
        check_modules(model, inner.config)
        return inner


def _is_first_process() -> bool:
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()):
        return True
    return distributed.get_rank() == 0

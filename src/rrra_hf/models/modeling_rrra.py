"""The model: a text encoder and its retriever adapter, in one folder that every loader opens."""

from __future__ import annotations

import copy
import inspect
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils import cached_file
from transformers.utils.hub import extract_commit_hash

from .adapter_rrra import RetrieverAdapter
from .configuration_rrra import AdapterConfig, RRRAConfig
from .download_rrra import checked_downloads
from .layout_rrra import (
    SETTINGS_NAME,
    adapter_maps,
    adopt_prompts,
    check_side_files,
    read_json,
    read_settings,
    write_side_files,
)
from .lora_rrra import check_same_base, fill_base, weights_fingerprint, without_base

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo

    try:  # noqa: SIM105 - an import outside of try is a hard requirement of code in a Hub repository
        from sentence_transformers import SentenceTransformer
    except ImportError:
        pass

DEFAULT_LORA = {"r": 16, "lora_alpha": 32, "target_modules": "all-linear"}
HUB_OPTIONS = ("revision", "token", "cache_dir", "local_files_only", "force_download")
FORMS = ("full", "lora", "merged")
# Tokenizers without a limit carry a huge number.
NO_LIMIT = 10**6


class RRRAModel(PreTrainedModel):
    """A text encoder (with or without LoRA), its pooling, and the adapter that reads its embeddings.

    Its folder opens with `RRRAModel`, `AutoModel` and `SentenceTransformer`, with the same embeddings.
    With LoRA in the config, only LoRA and adapter are trained; otherwise everything is.

    Args:
        config: Configuration.
        encoder: Encoder with trained weights; made from `config.text_config` with random ones if not given.

    Attributes:
        encoder: Any text model of transformers.
        adapter: The `RetrieverAdapter`; may be replaced by another of the same dimension.
        tokenizer: The encoder's tokenizer, None if unknown.

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
    # Half precision is for the encoder: the adapter is small, and its probabilities are calibrated.
    _keep_in_fp32_modules_strict = ["adapter"]  # noqa: RUF012

    def __init__(self, config: RRRAConfig, encoder: PreTrainedModel | None = None):
        super().__init__(config)
        self.encoder = AutoModel.from_config(config.text_config) if encoder is None else encoder
        config.text_config = self.encoder.config
        self._encoder_inputs = frozenset(inspect.signature(self.encoder.forward).parameters)
        self.tokenizer: Any = None
        self._every_process_saves = False
        self.post_init()
        # post_init initialises layers afresh, so what has a starting point of its own comes after it.
        self.adapter = RetrieverAdapter(AdapterConfig.from_dict(config.adapter or {}))
        if config.lora:
            _inject_lora(self.encoder, config.lora)
        if config.base_weights:
            # from_pretrained gets them from the base model.
            self._keys_to_ignore_on_load_missing = {r"^encoder\.(?!.*lora_)"}
        self.set_trainable()

    def set_trainable(self) -> None:
        """Let gradients reach LoRA and adapter if the config has LoRA, everything otherwise."""
        for name, parameter in self.encoder.named_parameters():
            parameter.requires_grad_(not self.config.lora or "lora_" in name)
        self.adapter.requires_grad_(True)

    # ---------------------------------------------------------------- making and loading

    @classmethod
    def from_encoder(
        cls,
        name_or_path: str | os.PathLike[str],
        *,
        lora: bool | dict[str, Any] | None = None,
        adapter: dict[str, Any] | None = None,
        pooling: str | None = None,
        normalize: bool | None = None,
        query_prompt: str | None = None,
        document_prompt: str | None = None,
        max_seq_length: int | None = None,
        **options: Any,
    ) -> RRRAModel:
        """Make a model from an encoder of transformers or sentence-transformers, with a fresh adapter.

        What isn't given is read from the folder's sentence-transformers files, if it has any.

        Args:
            name_or_path: Folder or Hub repository of the encoder.
            lora: True for LoRA on all linear layers, or arguments of `peft.LoraConfig`.
            adapter: Values of `AdapterConfig`.
            pooling: `"mean"`, `"cls"` or `"lasttoken"`.
            normalize: Divide embeddings by their length; True where no sentence-transformers file says.
            query_prompt: Text put before each query.
            document_prompt: Text put before each document.
            max_seq_length: Texts are cut to so many tokens; the default is the most the encoder takes.
            options: Passed to `AutoModel.from_pretrained`: `dtype`, `attn_implementation`, `revision`, ...

        Raises:
            OSError: If there is no such model.
            ValueError: If the encoder can't be expressed, lacks weights, or a value is not legal.
        """
        name = os.fspath(name_or_path)
        hub = {key: options[key] for key in HUB_OPTIONS if key in options}
        settings = _encoder_settings(name, hub)
        subfolder = settings.pop("subfolder", "")
        lower_case = settings.pop("do_lower_case", False)
        encoder = _load_encoder(name, subfolder=subfolder, **options)
        tokenizer = _load_tokenizer(name, subfolder=subfolder, **hub)
        if lower_case and tokenizer is not None:
            _lower_case(tokenizer)

        given = {
            "pooling": pooling,
            "normalize": normalize,
            "query_prompt": query_prompt,
            "document_prompt": document_prompt,
        }
        settings.update({key: value for key, value in given.items() if value is not None})
        limit = max_length(encoder, tokenizer)
        if max_seq_length is not None and limit is not None and max_seq_length > limit:
            raise ValueError(f"max_seq_length must be at most {limit} for {name}, got {max_seq_length}.")
        wanted = settings.get("max_seq_length") if max_seq_length is None else max_seq_length
        settings["max_seq_length"] = min((n for n in (wanted, limit) if n is not None), default=None)
        config = RRRAConfig(
            # The live object would lose its attention implementation.
            text_config=encoder.config.to_dict(),
            lora=_lora_settings(encoder, lora) if lora else None,
            adapter=adapter,
            base_model_name=Path(name).resolve().name if Path(name).is_dir() else name,
            base_model_revision=_commit_of(name, {**hub, "subfolder": subfolder}),
            **settings,
        )
        model = cls(config, encoder=encoder)
        model.tokenizer = tokenizer
        return model.eval()

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *args: Any,
        output_loading_info: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Load a model from a folder or Hub repository, completely or not at all.

        What holds LoRA weights alone is loaded together with its base model, `config.base_model_name`;
        give `base_model_name=...` if that is elsewhere.

        Args:
            pretrained_model_name_or_path: Folder or Hub repository.
            args: As in `PreTrainedModel.from_pretrained`.
            output_loading_info: Return the model and a dictionary of what was found.
            kwargs: As in `PreTrainedModel.from_pretrained`: `dtype`, `device_map`, `revision`, ...

        Raises:
            OSError: If it, or its base model, can't be found.
            ValueError: If it is another kind of model, if a weight is missing, unexpected, of another
                shape or damaged, if the base model has other weights than it had, or if the folder's
                sentence-transformers files make other embeddings. A download that isn't what the Hub
                declares is removed from the cache.
        """
        name = os.fspath(pretrained_model_name_or_path)
        hub = {key: kwargs[key] for key in (*HUB_OPTIONS, "subfolder") if key in kwargs}
        if kwargs.get("config") is None:
            _check_model_type(name, hub)
        kwargs["ignore_mismatched_sizes"] = True  # _check_loaded names them
        try:
            with checked_downloads(_folder_of(name, hub), name):
                loaded: Any = super().from_pretrained(name, *args, output_loading_info=True, **kwargs)
        except SafetensorError as error:
            raise ValueError(f"{_damaged_file(name, hub)} is damaged: {error}") from error
        model, info = loaded
        _check_loaded(name, info, bool(model.config.lora))
        if model.config.base_weights:
            _restore_base(model, name, hub)
        if Path(name).is_dir():
            check_side_files(Path(name), model.config, model.adapter)
        # Loading makes every parameter trainable.
        model.set_trainable()
        model.tokenizer = _load_tokenizer(name, trust_remote_code=kwargs.get("trust_remote_code"), **hub)
        if model.tokenizer is not None and model.config.max_seq_length is not None:
            # sentence-transformers keeps its limit in the tokenizer alone.
            model.config.max_seq_length = model.tokenizer.model_max_length
        return (model, info) if output_loading_info else model

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
    ) -> BaseModelOutputWithPooling:
        """Embed tokenized texts.

        Args:
            input_ids: Token ids, `(batch, length)`.
            attention_mask: 1 for tokens, 0 for padding on either side, `(batch, length)`.
            token_type_ids: Segment ids, `(batch, length)`; left out for encoders that know none.
            position_ids: Positions, `(batch, length)`.
            inputs_embeds: Token embeddings instead of `input_ids`, `(batch, length, dim)`.
            task: `"query"` or `"document"`: which of the adapter's maps to apply, if it has any; None
                for `"document"`.
            kwargs: Passed to the encoder.

        Returns:
            `last_hidden_state`, the encoder's own, and `pooler_output`, the embeddings, `(batch, dim)`.

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
        output = self.encoder(input_ids=input_ids, attention_mask=attention_mask, **kwargs)
        # Also where return_dict=False was given.
        hidden = output[0]
        if self.training and torch.is_grad_enabled():
            # A loss uses the adapter outside of forward, where DistributedDataParallel doesn't see it:
            # it crashes, or leaves gradients of the processes apart. This ties the adapter to forward.
            trainable = [p.sum() for p in self.adapter.parameters() if p.requires_grad]
            hidden = hidden + 0.0 * sum(trainable)
        if attention_mask is None:
            attention_mask = torch.ones(hidden.shape[:2], dtype=torch.long, device=hidden.device)
        return BaseModelOutputWithPooling(
            last_hidden_state=hidden,
            pooler_output=self._embed(hidden, attention_mask, task or "document"),
            hidden_states=getattr(output, "hidden_states", None),
            attentions=getattr(output, "attentions", None),
        )

    def _embed(self, hidden: Tensor, attention_mask: Tensor, task: str) -> Tensor:
        pooled = pool(hidden, attention_mask, self.config.pooling)
        if self.config.normalize:
            pooled = F.normalize(pooled, dim=-1)
        maps = adapter_maps(self.adapter)
        if task in maps:
            pooled = F.linear(pooled.to(maps[task].dtype), maps[task])
        return F.normalize(pooled, dim=-1) if maps else pooled

    # ---------------------------------------------------------------- saving

    @torch.no_grad()
    def merge_lora(self) -> RRRAModel:
        """Add the LoRA weights to the encoder's own, in place; the saved model no longer needs peft.

        Everything is trainable afterwards.
        """
        if self.config.lora:
            for name, layer in list(self.encoder.named_modules()):
                if hasattr(layer, "get_base_layer") and hasattr(layer, "merge"):
                    layer.merge()
                    self.encoder.set_submodule(name, layer.get_base_layer())
            if hasattr(self.encoder, "peft_config"):
                del self.encoder.peft_config
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

        Of several processes only the first writes.

        It holds weights, config, tokenizer, sentence-transformers' files, and the modelling code, with which
        `trust_remote_code=True` opens it where this package is not installed. Everything is written beside
        the folder first and moved in when complete, the config last.

        Args:
            save_directory: Made if it isn't there.
            is_main_process: False in all processes but one.
            form: `"full"`: all weights. `"lora"`: those of LoRA and adapter, to be loaded together with the
                base model, which must be loadable by `config.base_model_name`; its commit and a fingerprint
                of its weights are recorded. `"merged"`: all weights, LoRA added to the encoder's: the
                folder needs no peft. The model itself stays as it is.
            kwargs: As in `PreTrainedModel.save_pretrained`: `max_shard_size`, `state_dict`, ...

        Raises:
            NotADirectoryError: If there is a file of that name.
            OSError: If `form="lora"` and the base model can't be loaded.
            ValueError: If the adapter is of another dimension, `push_to_hub` is given, or the model can't be
                saved in this form.
        """
        if form not in FORMS:
            raise ValueError(f"form must be one of {', '.join(FORMS)}, got {form!r}.")
        if form == "merged":
            copy.deepcopy(self).merge_lora().save_pretrained(save_directory, is_main_process, **kwargs)
            return
        if form == "lora":
            self._save_lora(save_directory, is_main_process, **kwargs)
            return
        target = Path(save_directory)
        if target.is_file():
            raise NotADirectoryError(f"save_directory must be a folder, {target} is a file.")
        if kwargs.pop("push_to_hub", False):
            raise ValueError("save_pretrained doesn't upload; call push_to_hub.")
        if self.adapter.config.embedding_dim != self.config.hidden_size:
            raise ValueError(
                f"The adapter must be of dimension {self.config.hidden_size} as the encoder is, "
                f"got {self.adapter.config.embedding_dim}."
            )
        # sentence-transformers (nobody else gives this argument) wrote the settings of the model around
        # this one before it calls, and writes its other files after.
        kept = SETTINGS_NAME if "safe_serialization" in kwargs and (target / SETTINGS_NAME).exists() else None
        kwargs.pop("safe_serialization", None)
        saves = self.should_save_on_this_rank(is_main_process)
        if kept and saves:
            adopt_prompts(self.config, target)
        self.config.adapter = self.adapter.config.to_dict()
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as temporary:
            super().save_pretrained(temporary, is_main_process=is_main_process, **kwargs)
            if not saves:
                return
            if self.tokenizer is not None:
                if self.config.max_seq_length is not None:
                    self.tokenizer.model_max_length = self.config.max_seq_length
                self.tokenizer.save_pretrained(temporary)
            write_side_files(Path(temporary), self.config, self.adapter)
            if kept:
                (Path(temporary) / kept).unlink()
            _move_files(Path(temporary), target)

    def _save_lora(self, *args: Any, **kwargs: Any) -> None:
        config = self.config
        if not config.lora:
            raise ValueError("form='lora' needs a model with LoRA; this one has none.")
        try:
            base = _load_base(config, {})
        except OSError as error:
            raise OSError(
                "form='lora' needs the base model; set config.base_model_name to its name on the Hub. "
                f"It can't be loaded: {error}"
            ) from error
        check_same_base(self.encoder, base, str(config.base_model_name))
        config.base_model_revision = _commit_of(
            str(config.base_model_name), {"revision": config.base_model_revision}
        )
        config.base_weights = weights_fingerprint(base)
        try:
            self.save_pretrained(*args, state_dict=without_base(self.state_dict()), **kwargs)
        finally:
            config.base_weights = None

    def should_save_on_this_rank(self, is_main_process: bool) -> bool:
        """Return whether this process writes what `save_pretrained` is asked to."""
        if self._every_process_saves:
            return True
        first = not (torch.distributed.is_available() and torch.distributed.is_initialized())
        return is_main_process and (first or torch.distributed.get_rank() == 0)

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
        """Upload the folder that `save_pretrained` writes, and a model card, in one commit.

        Call it again if the upload breaks off: files that arrived are not sent again.

        Args:
            repo_id: `namespace/name`; made if it isn't there.
            form: `"full"`, `"lora"` or `"merged"`, see `save_pretrained`.
            private: Make a new repository private; refuse one that is public.
            revision: Branch to commit to; made from `main` if it isn't there.
            create_pr: Open a pull request instead of committing.
            token: Hub token.
            commit_message: Message of the commit.
            kwargs: Passed to `save_pretrained`.

        Returns:
            The commit's address, a string, with `oid` and `pr_url`.

        Raises:
            ImportError: If the package isn't installed, but the model's code came with it.
            PermissionError: If the token doesn't allow it.
            ConnectionError: If the upload broke off; nothing was committed.
            ValueError: If the model can't be saved in this form, or the repository is public.
        """
        try:
            from ..hub import push_folder
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
        """Return a `SentenceTransformer` around this very model: training it trains the model.

        Raises:
            ValueError: If the model has no tokenizer.
        """
        if self.tokenizer is None:
            raise ValueError("A SentenceTransformer needs a tokenizer: set model.tokenizer first.")
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError as error:
            raise ImportError("Install sentence-transformers to make a SentenceTransformer.") from error
        with tempfile.TemporaryDirectory() as folder:
            # Each of several processes needs a folder of its own.
            self._every_process_saves = True
            try:
                self.save_pretrained(folder)
            finally:
                self._every_process_saves = False
            made = SentenceTransformer(folder, device=str(self.device))
        modules: Any = made
        modules[0].model = self
        self.tokenizer = made.tokenizer
        for task, linear_map in (("query", self.adapter.query_map), ("document", self.adapter.document_map)):
            if linear_map is not None:
                modules[-1].sub_modules[task][0].linear = linear_map
        return made.train(self.training)

    @staticmethod
    def from_sentence_transformer(model: SentenceTransformer) -> RRRAModel:
        """Return the model inside a `SentenceTransformer`.

        Raises:
            ValueError: If that is of another class.
        """
        inner = getattr(model[0], "model", None)
        if not isinstance(inner, RRRAModel):
            raise ValueError(
                f"model must hold an RRRAModel, got {type(inner).__name__}; "
                "make one with RRRAModel.from_encoder."
            )
        return inner


# -------------------------------------------------------------------- pooling


def pool(hidden: Tensor, attention_mask: Tensor, mode: str) -> Tensor:
    """Reduce token vectors to one vector a text, with padding on either side.

    Args:
        hidden: Token vectors, `(batch, length, dim)`.
        attention_mask: 1 for tokens, 0 for padding, `(batch, length)`.
        mode: `"mean"`, `"cls"` (the first token) or `"lasttoken"`.

    Returns:
        Embeddings, `(batch, dim)`.

    Example:
        >>> pool(torch.tensor([[[9.0], [2.0], [4.0]]]), torch.tensor([[0, 1, 1]]), "mean")
        tensor([[3.]])
    """
    if mode == "mean":
        wide = torch.promote_types(hidden.dtype, torch.float32)
        weights = attention_mask.unsqueeze(-1).to(hidden.dtype)
        total = (hidden * weights).sum(1, dtype=wide)
        return (total / weights.sum(1, dtype=wide).clamp(min=1e-9)).to(hidden.dtype)
    positions = torch.arange(hidden.shape[1], device=hidden.device)
    # The first token is the one with the largest weight where weights fall, the last where they rise.
    order = positions + 1 if mode == "lasttoken" else hidden.shape[1] - positions
    index = (attention_mask.to(order.dtype) * order).argmax(1)
    return hidden[torch.arange(len(hidden), device=hidden.device), index]


def max_length(encoder: PreTrainedModel, tokenizer: Any) -> int | None:
    """Return how many tokens encoder and tokenizer take; None if neither has a limit."""
    limits = [getattr(encoder.config, "max_position_embeddings", None)]
    for name, module in encoder.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            # XLM-R, MPNet and their kin count positions from the padding index on.
            offset = 0 if module.padding_idx is None else module.padding_idx + 1
            limits.append(module.num_embeddings - offset)
    if tokenizer is not None:
        limits.append(tokenizer.model_max_length)
    return min((n for n in limits if n is not None and 0 < n < NO_LIMIT), default=None)


# -------------------------------------------------------------------- parts of making and loading


def _lora_settings(encoder: PreTrainedModel, lora: bool | dict[str, Any]) -> dict[str, Any]:
    settings: dict[str, Any] = {**DEFAULT_LORA, **(lora if isinstance(lora, dict) else {})}
    if settings["target_modules"] == "all-linear" and any("pooler" in n for n, _ in encoder.named_modules()):
        # The pooler's output is not used: LoRA weights on it would never be trained.
        settings.setdefault("exclude_modules", r".*pooler.*")
    return settings


def _inject_lora(encoder: PreTrainedModel, settings: dict[str, Any]) -> None:
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ImportError("The model holds LoRA weights: install peft.") from error
    try:
        config = LoraConfig(**settings)
    except TypeError as error:
        raise ValueError(f"lora has an unknown setting: {error}") from error
    inject_adapter_in_model(config, encoder)


def _encoder_settings(name: str, hub: dict[str, Any]) -> dict[str, Any]:
    """Return what sentence-transformers' files say about an encoder, which must exist."""
    try:
        if (read_json(name, "config.json", hub) or {}).get("model_type") == RRRAConfig.model_type:
            raise ValueError(f"{name} is an RRRAModel already; use RRRAModel.from_pretrained.")
        settings = read_settings(name, hub)
        AutoConfig.from_pretrained(name, subfolder=settings.get("subfolder", ""), **hub)
    except OSError as error:
        raise OSError(f"Can't load an encoder named {name!r}: {error}") from error
    except ValueError as error:
        raise ValueError(f"Can't load an encoder named {name!r}: {error}") from error
    return settings


def _load_encoder(name: str, **options: Any) -> PreTrainedModel:
    try:
        encoder, info = AutoModel.from_pretrained(name, output_loading_info=True, **options)
    except SafetensorError as error:
        hub = {key: options[key] for key in (*HUB_OPTIONS, "subfolder") if key in options}
        raise ValueError(f"{_damaged_file(name, hub)} is damaged: {error}") from error
    missing = sorted(key for key in info["missing_keys"] if "pooler" not in key)
    if missing:
        raise ValueError(f"{name} lacks {len(missing)} weights of the encoder: {_some(missing)}.")
    return encoder


def _load_base(config: RRRAConfig, hub: dict[str, Any]) -> PreTrainedModel:
    """Load the base model of a config, as its own files say: in their dtype."""
    name = str(config.base_model_name)
    hub = {**hub, "revision": config.base_model_revision}
    hub["subfolder"] = _encoder_settings(name, hub).get("subfolder", "")
    with checked_downloads(_folder_of(name, hub), name):
        return _load_encoder(name, dtype="auto", **hub)


def _restore_base(model: RRRAModel, name: str, hub: dict[str, Any]) -> None:
    """Give a model that was loaded from LoRA weights alone those of its base model."""
    config = model.config
    source = f"{config.base_model_name} (revision {config.base_model_revision})"
    try:
        base = _load_base(config, {key: value for key, value in hub.items() if key != "subfolder"})
    except OSError as error:
        raise OSError(
            f"{name} holds LoRA weights alone, and its base model {source} can't be loaded; "
            f"if it is elsewhere, give base_model_name=... : {error}"
        ) from error
    found = weights_fingerprint(base)
    if found != config.base_weights:
        raise ValueError(
            f"{source} is not the base model of {name}: its weights have the fingerprint {found}, "
            f"the LoRA weights were trained on {config.base_weights}."
        )
    fill_base(model.encoder, base, source)
    config.base_weights = None


def _folder_of(name: str, hub: dict[str, Any]) -> Path:
    """Return the folder of a model's files; in the cache, if it is on the Hub."""
    if Path(name).is_dir():
        return Path(name) / hub.get("subfolder", "")
    return Path(str(cached_file(name, "config.json", **hub))).parent


def _commit_of(name: str, hub: dict[str, Any]) -> str | None:
    """Return the commit of a model on the Hub, None for a folder."""
    return extract_commit_hash(str(_folder_of(name, hub) / "config.json"), None)


def _load_tokenizer(name: str, **options: Any) -> Any:
    hub = {key: options[key] for key in (*HUB_OPTIONS, "subfolder") if key in options}
    if read_json(name, "tokenizer_config.json", hub) is None:
        return None
    try:
        return AutoTokenizer.from_pretrained(name, **options)
    except (OSError, ImportError):
        raise
    except Exception as error:  # of a damaged file tokenizers raises no other class
        raise ValueError(f"The tokenizer of {name} can't be loaded: {error}") from error


def _lower_case(tokenizer: Any) -> None:
    try:
        from tokenizers.normalizers import Lowercase, Sequence
    except ImportError as error:
        raise ImportError("The encoder's texts are lower-cased: install tokenizers.") from error
    backend = tokenizer.backend_tokenizer
    backend.normalizer = Sequence([Lowercase(), *([backend.normalizer] if backend.normalizer else [])])


def _check_model_type(name: str, hub: dict[str, Any]) -> None:
    values, _ = RRRAConfig.get_config_dict(name, **hub)
    if values.get("model_type") != RRRAConfig.model_type:
        raise ValueError(
            f"{name} holds a model of type {values.get('model_type')!r}, not an RRRAModel; "
            "make one with RRRAModel.from_encoder."
        )


def _check_loaded(name: str, info: dict[str, Any], lora: bool) -> None:
    # An unused pooler may be missing: it takes no part in the embeddings.
    missing = sorted(key for key in info["missing_keys"] if not key.startswith("encoder.pooler."))
    unexpected = sorted(info["unexpected_keys"])
    mismatched = sorted(key for key, *_ in info["mismatched_keys"])
    found = {"missing": missing, "unexpected": unexpected, "of another shape": mismatched}
    problems = [f"{len(keys)} {what} ({_some(keys)})" for what, keys in found.items() if keys]
    if problems:
        hint = ""
        if lora and any("lora_" in key for key in missing):
            hint = " The config says LoRA, but the checkpoint lacks LoRA weights."
        raise ValueError(f"{name} doesn't fit its config: weights {', '.join(problems)}.{hint}")


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def _damaged_file(name: str, hub: dict[str, Any]) -> Path | str:
    """Return the first weights file of a model that can't be opened."""
    for path in sorted(_folder_of(name, hub).glob("*.safetensors")):
        try:
            with safe_open(path, framework="pt"):
                pass
        except SafetensorError:
            return path
    return f"A weights file of {name}"


def _move_files(source: Path, target: Path) -> None:
    """Move a complete model into a folder: weights first, its config last, weights of before removed."""
    files = [path.relative_to(source) for path in source.rglob("*") if path.is_file()]
    files.sort(key=lambda path: (path == Path("config.json"), path.suffix != ".safetensors", path))
    for path in files:
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        if path == Path("config.json"):
            _remove_old_weights(target, set(files))
        shutil.move(source / path, target / path)


def _remove_old_weights(target: Path, new: set[Path]) -> None:
    for path in target.glob("model*.safetensors*"):
        if path.relative_to(target) not in new:
            path.unlink()

"""The encoder that a model is made from: where its parts are, and what its files say."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, NamedTuple

from transformers import PreTrainedModel

from .backbone_rrra import guess_pooling
from .encoder_rrra import encoder_settings, load_encoder, load_tokenizer, lower_case, max_length, opening
from .hub_files_rrra import HUB_OPTIONS, commit_of
from .layout_rrra import read_settings
from .peft_rrra import PeftFolder, read_peft

logger = logging.getLogger(__name__)


class EncoderSource(NamedTuple):
    """Where the parts of an encoder are, and what its files say.

    Args:
        name: Folder or Hub repository that was asked for.
        peft: What it says if it holds a LoRA of peft.
        base: Folder or repository of the encoder: the base model of a LoRA, or `name`.
        subfolder: Folder of the encoder in it.
        beside: Folder or repository of the tokenizer and of modules after pooling: `name`, if a LoRA has
            files of sentence-transformers beside it, or the base.
        hub: Options of `cached_file` for `name`.
        base_hub: The same for `base`.
        settings: Values of `RRRAConfig` that its files of sentence-transformers say; empty if it has none.
        lower_cased: Whether texts are lower-cased.
        folders: Folders of modules after pooling.
        maps: Linear maps of queries and documents.
    """

    name: str
    peft: PeftFolder | None
    base: str
    subfolder: str
    beside: str
    hub: dict[str, Any]
    base_hub: dict[str, Any]
    settings: dict[str, Any]
    lower_cased: bool
    folders: list[str]
    maps: dict[str, Any]

    @classmethod
    def read(cls, name: str, options: dict[str, Any]) -> EncoderSource:
        """Read what the files of an encoder say.

        Args:
            name: Folder or Hub repository of the encoder, or of a LoRA that peft wrote.
            options: Options of `from_pretrained`.

        Raises:
            OSError: If there is no such encoder.
            ValueError: If the encoder does something that an `RRRAConfig` can't express.
        """
        hub = {key: options[key] for key in HUB_OPTIONS if key in options}
        with opening(name):
            peft = read_peft(name, hub)
        base, base_hub = (name, hub) if peft is None else (peft.base, {**hub, "revision": peft.revision})
        settings = encoder_settings(base, base_hub, bool(options.get("trust_remote_code")))
        subfolder = settings.pop("subfolder", "")
        beside = {} if peft is None else read_settings(name, hub)
        settings = beside or settings
        return cls(
            name,
            peft,
            base,
            subfolder,
            name if beside else base,
            hub,
            base_hub,
            lower_cased=settings.pop("do_lower_case", False),
            folders=settings.pop("folders", []),
            maps=settings.pop("maps", {}),
            settings=settings,
        )

    @property
    def beside_hub(self) -> dict[str, Any]:
        """Options of `cached_file` for `beside`."""
        return self.base_hub if self.beside == self.base else self.hub

    def load(self, options: dict[str, Any]) -> tuple[PreTrainedModel, Any]:
        """Load the encoder and its tokenizer, None if it has none.

        Args:
            options: Options of `AutoModel.from_pretrained`.
        """
        if self.peft is not None:
            options = {**options, "revision": self.peft.revision}
        encoder = load_encoder(self.base, subfolder=self.subfolder, **options)
        tokenizer = load_tokenizer(
            self.beside,
            subfolder=self.subfolder if self.beside == self.base else "",
            trust_remote_code=bool(options.get("trust_remote_code")),
            **self.beside_hub,
        )
        if self.lower_cased and tokenizer is not None:
            lower_case(tokenizer)
        return encoder, tokenizer

    def settings_with(self, encoder: PreTrainedModel, tokenizer: Any, **given: Any) -> dict[str, Any]:
        """Return the settings, and those that are given instead.

        Args:
            encoder: The encoder.
            tokenizer: The tokenizer.
            given: Values of `RRRAConfig`; None for what isn't given.

        Raises:
            ValueError: If `max_seq_length` is more than the encoder takes.
        """
        settings = {**self.settings, **{key: value for key, value in given.items() if value is not None}}
        if not self.settings and given["pooling"] is None:
            settings["pooling"] = guess_pooling(encoder.config)
            logger.warning(
                "%s has no modules.json, so its pooling is guessed: %r. Give pooling=... if it is another.",
                self.name,
                settings["pooling"],
            )
        limit = max_length(encoder, tokenizer)
        wanted = given["max_seq_length"]
        if wanted is not None and limit is not None and wanted > limit:
            raise ValueError(f"max_seq_length must be at most {limit} for {self.name}, got {wanted}.")
        lengths = (settings.get("max_seq_length"), limit)
        settings["max_seq_length"] = min((length for length in lengths if length is not None), default=None)
        return settings

    def origin(self) -> dict[str, Any]:
        """Return name and revision of the base model, as an `RRRAConfig` records them."""
        is_folder = Path(self.name).is_dir() and self.peft is None
        return {
            "base_model_name": Path(self.name).resolve().name if is_folder else self.base,
            "base_model_revision": commit_of(self.base, {**self.base_hub, "subfolder": self.subfolder}),
        }

"""A `SentenceTransformer` around a model, made of sentence-transformers' own modules in memory."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from torch import nn
from transformers import PreTrainedModel

from .adapter_rrra import RetrieverAdapter
from .after_pooling_rrra import ACTIVATIONS, SIZES
from .configuration_rrra import RRRAConfig

if TYPE_CHECKING:
    try:  # noqa: SIM105 - every import outside of try is required of users of code in a Hub repository
        from sentence_transformers import SentenceTransformer
    except ImportError:
        pass


def make_sentence_transformer(
    model: PreTrainedModel,
    config: RRRAConfig,
    adapter: RetrieverAdapter,
    after_pooling: nn.Sequential,
    tokenizer: Any,
) -> SentenceTransformer:
    """Return the `SentenceTransformer` that a saved folder of the model gives, around the model itself.

    Args:
        model: The model.
        config: Its configuration.
        adapter: Its adapter. A linear map becomes a `Dense` of a `Router` that shares its weight.
        after_pooling: Its modules after pooling, whose weights are shared.
        tokenizer: Its tokenizer, whose length is set to the configuration's.

    Raises:
        ImportError: If sentence-transformers isn't installed.
    """
    try:
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Router
    except ImportError as error:
        raise ImportError("Install sentence-transformers to make a SentenceTransformer.") from error
    if config.max_seq_length is not None:
        tokenizer.model_max_length = config.max_seq_length
    dim = config.embedding_dim
    modules: list[Any] = [_transformer(model, tokenizer), Pooling(config.hidden_size, config.pooling)]
    after = [_module_like(settings) for settings in config.after_pooling or []]
    modules += after
    if config.normalize:
        modules.append(Normalize())
    maps = {"query": adapter.query_map, "document": adapter.document_map}
    routes: dict[str, list[Any]] = {
        task: [Normalize()]
        if linear_map is None
        else [Dense(dim, dim, bias=False, activation_function=nn.Identity()), Normalize()]
        for task, linear_map in maps.items()
    }
    if any(maps.values()):
        modules.append(Router(routes, default_route="document"))
    similarity: Any = config.similarity_fn_name
    made = SentenceTransformer(
        modules=modules,
        device=str(model.device),
        prompts=config.all_prompts,
        default_prompt_name=config.default_prompt_name,
        similarity_fn_name=similarity,
        truncate_dim=config.truncate_dim,
    )
    for theirs, ours in zip(after, after_pooling, strict=True):
        for name, layer in ours.named_children():
            setattr(theirs, name, layer)
    # Shared only now, because SentenceTransformer casts its modules to the encoder's dtype.
    for task, linear_map in maps.items():
        if linear_map is not None:
            routes[task][0].linear = linear_map
            routes[task][0].register_forward_pre_hook(_cast_to_map)
    return made.train(model.training)


def check_modules(transformer: SentenceTransformer, config: RRRAConfig) -> None:
    """Refuse a `SentenceTransformer` that does more than the model in it.

    Args:
        transformer: The `SentenceTransformer`.
        config: Configuration of the model.

    Raises:
        ValueError: If its modules, except a router of linear maps, are not those that the model has.
    """
    after = [settings["type"] for settings in config.after_pooling or []]
    expected = ["Transformer", "Pooling", *after, *(["Normalize"] if config.normalize else [])]
    found = [type(module).__name__ for module in transformer]
    if found[: len(expected)] != expected or found[len(expected) :] not in ([], ["Router"]):
        raise ValueError(
            f"model has the modules {', '.join(found)}, and the RRRAModel in it has {', '.join(expected)}. "
            "Add modules to the encoder before you make an RRRAModel from it."
        )


def _module_like(settings: dict[str, Any]) -> Any:
    """Return a module of sentence-transformers with the settings of a module after pooling."""
    try:
        from sentence_transformers.sentence_transformer.modules import Dense, LayerNorm, Normalize
    except ImportError as error:
        raise ImportError("Install sentence-transformers to make a SentenceTransformer.") from error
    kinds: dict[str, Any] = {"Dense": Dense, "LayerNorm": LayerNorm, "Normalize": Normalize}
    arguments = {size: settings[size] for size in SIZES[settings["type"]]}
    if settings["type"] == "Dense":
        arguments["bias"] = settings["bias"]
        arguments["activation_function"] = ACTIVATIONS[settings["activation_function"]]()
    return kinds[settings["type"]](**arguments)


def _transformer(model: PreTrainedModel, tokenizer: Any) -> Any:
    """Return a `Transformer` module with the attributes that its constructor gives to a loaded model.

    The constructor itself loads model and tokenizer from files, and there is no other
    (https://github.com/huggingface/sentence-transformers/issues/2329). A test compares the two.
    """
    try:
        from sentence_transformers.base.modality import InputFormatter
        from sentence_transformers.sentence_transformer.modules import Transformer
    except ImportError as error:
        raise ImportError("Install sentence-transformers to make a SentenceTransformer.") from error
    module: Any = Transformer.__new__(Transformer)
    nn.Module.__init__(module)
    module.transformer_task = "feature-extraction"
    module.processing_kwargs = {}
    module.backend = "torch"
    module.do_lower_case = False
    module.query_length = module.document_length = None
    module._prompt_length_mapping = {}
    module._method_signature_cache = {}
    module._chat_template_suffix_cache = {}
    module.model = model
    module._declared_forward_params = set(inspect.signature(model.forward).parameters)
    # The model's forward takes any keyword.
    module.model_forward_params = None
    module.processor = tokenizer
    module.modality_config = {"text": {"method": "forward", "method_output_name": "last_hidden_state"}}
    module.module_output_name = "token_embeddings"
    module.input_formatter = InputFormatter(model.config.model_type, "auto", tokenizer)
    module.input_formatter.supported_modalities = ["text"]
    module.unpad_inputs = None
    module.query_expansion = None
    return module


def _cast_to_map(dense: Any, inputs: tuple[dict[str, Any], ...]) -> None:
    """Cast embeddings in half precision to the dtype of the adapter's map."""
    features = inputs[0]
    features["sentence_embedding"] = features["sentence_embedding"].to(dense.linear.weight.dtype)

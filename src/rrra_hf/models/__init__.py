"""What is saved and shared: configuration, model and adapter."""

from transformers import AutoConfig, AutoModel

from .adapter_rrra import RetrieverAdapter
from .configuration_rrra import AdapterConfig, RRRAConfig
from .modeling_rrra import RRRAModel

__all__ = ["AdapterConfig", "RRRAConfig", "RRRAModel", "RetrieverAdapter"]

AutoConfig.register(RRRAConfig.model_type, RRRAConfig, exist_ok=True)
AutoModel.register(RRRAConfig, RRRAModel, exist_ok=True)
# Saved folders carry the code of config and model, for machines without this package.
RRRAConfig.register_for_auto_class()
RRRAModel.register_for_auto_class("AutoModel")

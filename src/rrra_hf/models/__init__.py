"""What is saved and shared: configuration, model and adapter."""

from .adapter_rrra import RetrieverAdapter
from .configuration_rrra import AdapterConfig, RRRAConfig
from .modeling_rrra import RRRAModel

__all__ = ["AdapterConfig", "RRRAConfig", "RRRAModel", "RetrieverAdapter"]

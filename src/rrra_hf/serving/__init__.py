"""An HTTP service for a retriever."""

from .app import create_app
from .limits import Limits
from .server import listen, run

__all__ = ["Limits", "create_app", "listen", "run"]

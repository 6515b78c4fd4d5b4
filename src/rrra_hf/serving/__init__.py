"""An HTTP service for a retriever."""

from .app import LOOPBACK, create_app
from .limits import Limits
from .server import listen, run

__all__ = ["LOOPBACK", "Limits", "create_app", "listen", "run"]

"""Several processes: refusing launches that start too few, and work that one does while others wait."""

from .launch import check_launch
from .processes import Processes, joined_processes

__all__ = ["Processes", "check_launch", "joined_processes"]

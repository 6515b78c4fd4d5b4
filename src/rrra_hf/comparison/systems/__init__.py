"""Systems on a frozen encoder: fitted on training and development queries, they rank any others.

To add a system, write a function from a trial to what ranks queries, and register it with `system`. Importing
this package registers all systems, in the order of the tables.
"""

from . import maps, words, prf, residual, features, cross_encoder  # noqa: I001  (the order of the tables)

__all__ = ["cross_encoder", "features", "maps", "prf", "residual", "words"]

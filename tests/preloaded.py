"""What every forked process has imported; see `forked`."""

import gc
from contextlib import suppress

import rrra_hf.retrieval
import rrra_hf.training

with suppress(ImportError):  # where the extra isn't installed
    import rrra_hf.serving  # noqa: F401

# Libraries collect garbage often, and none of the modules is garbage.
gc.freeze()

"""What every forked process has imported; see `forked`."""

import gc

import rrra_hf.retrieval
import rrra_hf.serving
import rrra_hf.training  # noqa: F401

# Libraries collect garbage often, and none of the modules is garbage.
gc.freeze()

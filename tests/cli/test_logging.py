"""What libraries log appears once."""

from __future__ import annotations

import io
import logging
from types import ModuleType

import pytest
from datasets.utils import logging as datasets_logging
from huggingface_hub.utils import logging as hub_logging

from command_line import rrra


@pytest.mark.parametrize("library", [datasets_logging, hub_logging])
def test_records_of_libraries_that_print_them_are_not_printed_again(library: ModuleType) -> None:
    assert rrra("card", "nothing at all").status == 1
    printed = logging.StreamHandler(io.StringIO())
    logging.getLogger().addHandler(printed)
    try:
        library.get_logger().warning("printed by the library")
    finally:
        logging.getLogger().removeHandler(printed)
    assert printed.stream.getvalue() == ""

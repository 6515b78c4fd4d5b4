"""Changes the metadata of saved folders as a stranger would."""

from __future__ import annotations

import json
from pathlib import Path


def forge(meta: Path, **entries: object) -> None:
    """Change entries of the metadata of a folder, and leave out the checksums, as a forger would."""
    content = json.loads(meta.read_text())
    content.pop("files", None)
    meta.write_text(json.dumps({**content, **entries}))

"""The `rrra` command."""

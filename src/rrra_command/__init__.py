"""The `rrra` command starts here, so that its help doesn't wait for what `import rrra_hf` loads."""


def main() -> None:
    """Run the command line, see `rrra_hf.cli`."""
    from rrra_hf.cli import main as run

    run()

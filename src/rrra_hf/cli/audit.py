"""`rrra audit`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Column, Table

from .common import (
    BatchSize,
    CacheDir,
    CollectionName,
    Json,
    Reading,
    bad_arguments,
    console,
    errors,
    print_json,
    reads_collections,
)
from .grouped import grouped
from .judged import AskJudge
from .opening import (
    DEFAULT_MODEL,
    IndexName,
    MaxLength,
    ModelName,
    Opening,
    encoder_or_index,
    opens_models,
)
from .output import ENCODED, writes

if TYPE_CHECKING:
    from ..data import Collection, Run
    from ..labels import Audit, Effect, Judging, Mended
    from ..retrieval import Retriever

# As in `labels.audit`, whose import would take long.
AUDIT_NAME = "audit.json"
# Characters of a text that are printed.
SHOWN = 300


@writes(marker="decisions.jsonl", what="an audit", resumes=ENCODED)
@opens_models
@reads_collections
@grouped("ask", AskJudge)
def audit(
    collection: CollectionName,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the audit.")],
    model: ModelName = DEFAULT_MODEL,
    index: IndexName = None,
    split: Annotated[str, typer.Option(help="Split whose labels are audited.")] = "train",
    depth: Annotated[int, typer.Option(min=1, help="Candidates per query.")] = 100,
    show: Annotated[int, typer.Option(min=0, help="Number of pairs to print.")] = 20,
    ask: AskJudge = AskJudge(),
    review: Annotated[
        bool, typer.Option("--review", help="Open a web page to decide about pairs. Stop it with Ctrl-C.")
    ] = False,
    host: Annotated[str, typer.Option(help="Address of the web page.")] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port, by default the first free one from 7860.")
    ] = None,
    run: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=FILE", help="TREC run of a system, to measure. Repeatable."),
    ] = None,
    mend: Annotated[
        Path | None, typer.Option(help="New folder for the collection with the new labels.")
    ] = None,
    accept_from: Annotated[
        float | None,
        typer.Option(metavar="P", help="Let --mend add undecided pairs of at least this probability."),
    ] = None,
    reading: Reading = Reading(),
    max_length: MaxLength = None,
    opening: Opening = Opening(),
    batch_size: BatchSize = 64,
    cache_dir: CacheDir = None,
    json: Json = False,
) -> None:
    """Find the labels that are probably missing, look at them, and mend the collection.

    Prints how many labels are missing and the most probable ones, and writes all pairs and a page to look at.
    Decisions are kept in the folder: run the command again to go on, and the candidates are not mined again.
    With `--index`, the candidates are documents of a retriever's index, which may be in Milvus.

    Example: `rrra audit data/scifact --out audits/scifact --review`
    """
    from ..labels import Decisions, effect_on_evaluation
    from ..labels import audit as audit_labels
    from ..labels import mend as mend_labels

    if accept_from is not None and mend is None:
        raise typer.BadParameter("--accept-from needs --mend, the folder for the collection.")
    if mend is not None and mend.exists() and (not mend.is_dir() or any(mend.iterdir())):
        raise FileExistsError(f"--mend must be a new or empty folder, nothing is overwritten: {mend}.")
    ask.check()
    runs = _runs(run or ())
    whole = reading.load(collection)
    settings = {"model": model, "depth": depth, "max_length": max_length, "revision": opening.revision}
    if index is not None:
        settings["index"] = index
    if opening.dtype is not None:
        settings["dtype"] = opening.dtype.value
    with Decisions.open(out / "decisions.jsonl") as decisions:
        encoder, retriever = None, None
        # A saved audit needs no encoder, but texts of documents that aren't the collection's.
        if index is not None or not (out / AUDIT_NAME).exists():
            encoder, retriever = encoder_or_index(model, index, max_length, opening)
        saved = _saved(out, whole, split, settings, retriever)
        if saved is None:
            found = audit_labels(
                whole,
                encoder,
                index=retriever,
                split=split,
                depth=depth,
                cache_dir=cache_dir,
                batch_size=batch_size,
            )
            found.settings, found.decisions = settings, decisions
            found.save(out)
        else:
            found = saved
            found.decisions = decisions
        judging = ask.judge(found)
        if review:
            _review(found, host, port)
        # The pairs and the page follow the decisions, also those that were made elsewhere.
        if saved is not None or judging is not None or review:
            found.save_report(out)
        with bad_arguments():
            mended = None if mend is None else mend_labels(found, accept_from)
        if mended is not None and mend is not None:
            mended.save(mend)
        effect = effect_on_evaluation(found, runs) if runs else None
    report = _json if json else _print
    report(found, show, judging, mended, effect)


def _runs(named: Sequence[str]) -> dict[str, Run]:
    from ..data import read_run

    runs = {}
    for text in named:
        name, separator, path = text.partition("=")
        if not separator or not name or not path:
            raise typer.BadParameter(f"--run must be NAME=FILE, got {text!r}.")
        runs[name] = read_run(path)
    return runs


def _saved(
    out: Path, whole: Collection, split: str, settings: dict[str, Any], retriever: Retriever | None
) -> Audit | None:
    """Return the audit that the folder holds, if it is the one that is asked for."""
    from ..labels import Audit

    if not (out / AUDIT_NAME).exists():
        return None
    found = Audit.load(out, whole, retriever)
    if (found.split, found.settings) == (split, settings):
        return found
    raise ValueError(
        f"{out} holds the audit of the split {found.split!r} with {found.settings}. Choose another --out."
    )


def _review(found: Audit, host: str, port: int | None) -> None:
    from ..app import THEME, create_review

    page = create_review(found.collection, found.pool, found.decisions)
    _, url, _ = page.launch(
        server_name=host, server_port=port, theme=THEME, quiet=True, prevent_thread_lock=True
    )
    errors.print(f"Review at {url}; stop with Ctrl-C.", soft_wrap=True)
    try:
        Event().wait()
    except KeyboardInterrupt:
        page.close(verbose=False)


def _json(
    found: Audit, show: int, judging: Judging | None, mended: Mended | None, effect: Effect | None
) -> None:
    summary = found.summary()
    summary["suspects"] = [suspect._asdict() for suspect in found.suspects(show)]
    if judging is not None:
        summary["judging"] = {**judging._asdict(), "saved": judging.saved}
    if mended is not None:
        summary["changes"] = mended.diff()
    if effect is not None:
        summary["effect"] = effect._asdict()
    print_json(summary)


def _print(
    found: Audit, show: int, judging: Judging | None, mended: Mended | None, effect: Effect | None
) -> None:
    for suspect in found.suspects(show):
        console.print(f"{suspect.probability:.2f}  {_short(suspect.query)}", soft_wrap=True)
        console.print(f"      {_short(suspect.document)}", soft_wrap=True)
    for label, value in found.counts():
        console.print(f"{label}: {value}", soft_wrap=True)
    if judging is not None:
        console.print(
            f"{judging.judge}: {judging.relevant} relevant, {judging.not_relevant} not relevant, "
            f"{judging.undecided} undecided, {judging.left} left; "
            f"{judging.calls} calls, {judging.saved} saved",
            soft_wrap=True,
        )
    if effect is not None:
        _print_effect(effect)
    if mended is not None:
        console.print(mended.diff())


def _print_effect(effect: Effect) -> None:
    columns = list(next(iter(effect.rows.values())))
    table = Table("nDCG@10", *(Column(name, justify="right") for name in columns))
    for system, values in effect.rows.items():
        table.add_row(system, *(f"{values[name]:.3f}" for name in columns))
    console.print(table)
    console.print(f"Chance that another system is the best: {effect.order_changes:.0%}")
    console.print(f"First ten documents that are no candidates, taken as irrelevant: {effect.unjudged:.0%}")


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SHOWN else f"{line[:SHOWN]} …"

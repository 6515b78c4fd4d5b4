"""Cells resume: what is finished is not run again, and what does not belong is refused."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from comparison_task import FIT, QUICK, make_task, systems
from rrra_hf.comparison import Cell, Method, Result, run_cells
from rrra_hf.comparison.measures import RANKING_MEASURES


def counted(name, runs, fails=()):
    """A method that counts its runs, and fails at some."""

    def run(trial):
        runs.append((name, trial.seed))
        if (name, trial.seed) in fails:
            raise KeyboardInterrupt
        columns = {measure: np.full(40, 0.5) for measure in RANKING_MEASURES}
        rows = pa.table({"query_id": trial.task.test.ids, "seen": trial.task.seen, **columns})
        return Result({"nDCG@10": 0.5}, rows, 0.1, 1.0)

    return Method("systems", name, "counts", run)


def test_a_killed_run_runs_only_what_is_missing(task, store):
    runs = []
    fails = [("b", 1)]
    with pytest.raises(KeyboardInterrupt):
        run_cells([task], [counted("a", runs), counted("b", runs, fails)], QUICK, store)
    assert runs == [("a", 0), ("b", 0), ("a", 1), ("b", 1)]
    runs.clear()
    results = run_cells([task], [counted("a", runs), counted("b", runs)], QUICK, store)
    assert runs == [("b", 1)]
    assert len(results) == 4
    runs.clear()
    run_cells([task], [counted("a", runs), counted("b", runs)], QUICK, store)
    assert runs == []


def test_more_seeds_and_methods_run_beside_what_is_there(task, store):
    runs = []
    run_cells([task], [counted("a", runs)], QUICK, store)
    run_cells([task], [counted("a", runs), counted("b", runs)], replace(QUICK, seeds=3), store)
    assert runs == [("a", 0), ("a", 1), ("b", 0), ("b", 1), ("a", 2), ("b", 2)]


def test_a_method_without_randomness_is_run_once(task, store):
    results = run_cells([task], systems("encoder"), QUICK, store)
    assert [cell.seed for cell in results] == [0]


def test_a_cell_of_other_settings_is_refused_before_anything_runs(task, store):
    runs = []
    run_cells([task], [counted("b", runs)], QUICK, store)
    other = replace(QUICK, fit=replace(FIT, depth=30))
    with pytest.raises(
        ValueError, match=r"seed-0.json was made with other settings: fit.depth was 20, now 30"
    ):
        run_cells([task], [counted("a", runs), counted("b", runs)], other, store)
    assert runs == [("b", 0), ("b", 1)]


def test_a_cell_of_another_collection_is_refused(task, store):
    runs = []
    run_cells([task], [counted("a", runs)], QUICK, store)
    changed = make_task()
    changed.collection.qrels_by_split["test"]["test0"] = {"d7": 1}
    with pytest.raises(ValueError, match=r"other settings: collection.qrels was"):
        run_cells([changed], [counted("a", runs)], QUICK, store)


def test_settings_that_a_method_does_not_read_do_not_matter(task, store):
    runs = []
    run_cells([task], [counted("a", runs)], QUICK, store)
    run_cells([task], [counted("a", runs)], replace(QUICK, steps=9), store)
    assert len(runs) == 2


@pytest.mark.parametrize("damage", ["{", "{}", '{"figures": 1}'])
def test_a_damaged_cell_is_named(task, store, damage):
    run_cells([task], [counted("a", [])], QUICK, store)
    path = store.folder / "made/systems/a/seed-0.json"
    path.write_text(damage)
    with pytest.raises(ValueError, match=r"seed-0.json is damaged"):
        run_cells([task], [counted("a", [])], QUICK, store)


def test_a_cell_of_another_format_is_refused(task, store):
    run_cells([task], [counted("a", [])], QUICK, store)
    path = store.folder / "made/systems/a/seed-0.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format_version": 99}))
    with pytest.raises(ValueError, match="format version 99"):
        run_cells([task], [counted("a", [])], QUICK, store)


def test_missing_or_cut_rows_are_named(task, store):
    run_cells([task], [counted("a", [])], QUICK, store)
    path = store.folder / "made/systems/a/seed-0.parquet"
    pq.write_table(pq.read_table(path).slice(0, 3), path)
    with pytest.raises(ValueError, match=r"seed-0.parquet is missing or damaged: it has 3 rows, not 40"):
        run_cells([task], [counted("a", [])], QUICK, store)
    path.unlink()
    with pytest.raises(ValueError, match=r"seed-0.parquet is missing or damaged"):
        run_cells([task], [counted("a", [])], QUICK, store)


def test_cells_made_by_other_code_are_told(task, store):
    run_cells([task], [counted("a", [])], QUICK, store)
    assert store.other_code == []
    path = store.folder / "made/systems/a/seed-0.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "code": "other"}))
    run_cells([task], [counted("a", [])], QUICK, store)
    assert store.other_code == [Cell("systems", "made", "a", 0)]


def test_names_of_repositories_make_one_folder():
    assert Cell("systems", "a/b c", "encoder", 1).name == "a_b_c/systems/encoder/seed-1"


def test_two_collections_of_one_name_are_refused(task, store):
    with pytest.raises(ValueError, match="collections must have different names, got made, made"):
        run_cells([task, task], systems("encoder"), QUICK, store)

"""Figures that anyone can recompute, and reports that stand alone."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pyarrow.parquet as pq
import pytest

from comparison_task import FIT, report_of
from rrra_hf.comparison import make_tables
from rrra_hf.comparison.measures import EXPONENTIAL_NDCG
from rrra_hf.comparison.page import page
from rrra_hf.comparison.report import markdown, write_report
from rrra_hf.comparison.texts import grid_of
from rrra_hf.evaluation import compare_paired, holm


def test_figures_of_a_table_are_recomputed_from_the_files_of_its_queries(results):
    store, cells = results
    table, _ = make_tables(cells)
    read = {
        row["method"]: [
            pq.read_table(path)
            for path in sorted((store.folder / "made/systems" / row["method"]).glob("*.parquet"))
        ]
        for row in table["rows"]
    }
    assert {len(runs) for runs in read.values()} == {1, 2}
    seen = read["encoder"][0]["seen"].to_numpy(zero_copy_only=False)
    assert table["queries"] == {"all": 40, "seen": int(seen.sum()), "unseen": int((~seen).sum())}
    baseline = np.stack([run["nDCG@10"].to_numpy() for run in read[table["reference"]]])
    p_values = []
    for row in table["rows"]:
        quality = np.stack([run["nDCG@10"].to_numpy() for run in read[row["method"]]])
        assert row["nDCG@10"]["all"] == pytest.approx(quality.mean())
        assert row["nDCG@10"]["unseen"] == pytest.approx(quality[:, ~seen].mean())
        assert row["R@1"]["seen"] == pytest.approx(
            np.mean([run["R@1"].to_numpy()[seen].mean() for run in read[row["method"]]])
        )
        if row["method"] == table["reference"]:
            assert row["difference"]["all"] is None
            continue
        paired = compare_paired(quality, baseline)
        assert row["difference"]["all"]["mean"] == pytest.approx(paired.difference)
        assert row["difference"]["all"]["interval"] == pytest.approx(paired.interval)
        p_values.append((paired.p_value, row["difference"]["all"]["p (Holm)"]))
    raw, adjusted = zip(*p_values, strict=True)
    assert list(adjusted) == pytest.approx(holm(raw).tolist())


def test_methods_are_compared_on_the_seeds_that_both_were_run_with(results):
    _, cells = results
    systems = {cell: result for cell, result in cells.items() if cell.table == "systems"}
    of = {(cell.method, cell.seed): result.rows["nDCG@10"].to_numpy() for cell, result in systems.items()}
    some = {cell: result for cell, result in cells.items() if (cell.method, cell.seed) != ("residual", 1)}
    for given, seeds in ((cells, (0, 1)), (some, (0,))):
        table, _ = make_tables(given, reference="residual")
        differences = {row["method"]: row["difference"]["all"] for row in table["rows"]}
        theirs = np.mean([of["residual", seed] for seed in seeds])
        ours = np.mean([of["query-map", seed] for seed in seeds])
        assert differences["query-map"]["mean"] == pytest.approx(ours - theirs)
        # The encoder depends on no seed.
        assert differences["encoder"]["mean"] == pytest.approx(of["encoder", 0].mean() - theirs)


def test_the_best_baseline_is_the_reference_unless_another_is_wanted(results):
    _, cells = results
    table, _ = make_tables(cells)
    means = {row["method"]: row["nDCG@10"]["all"] for row in table["rows"]}
    assert table["reference"] == max(set(means) - {"residual"}, key=means.__getitem__)
    table, _ = make_tables(cells, reference="encoder")
    assert table["reference"] == "encoder"
    only = {cell: result for cell, result in cells.items() if cell.method in ("residual", "query-map")}
    assert make_tables(only)[0]["reference"] == "query-map"


def test_detection_is_measured_and_calibrated(results):
    store, cells = results
    _, table = make_tables(cells)
    rows = {row["method"]: row for row in table["rows"]}
    assert table["protocol"] == "hidden" and 0 < table["base rate"] < 1
    assert rows["similarity"]["ECE"] is None and 0 <= rows["residual"]["ECE"] < 1
    assert 0 <= rows["pretrained"]["ECE"] < 1
    # one of a cluster's four is labelled, another hidden: nearness to the labelled one gives it away
    assert rows["similarity-to-positive"]["AUROC"] > 0.9
    pairs = pq.read_table(store.folder / "made/detection/similarity/seed-0.parquet")
    assert pairs.num_rows == 80 * FIT.depth
    assert set(pairs.column_names) == {"query_id", "document_id", "false_negative", "score"}


def test_the_page_is_well_formed_and_needs_nothing_else(results):
    from rrra_hf.comparison.plots import plots_of

    report = report_of(results[1])
    text = page(report, [plots_of(table) for table in report["tables"]])
    root = ElementTree.fromstring(text.removeprefix("<!DOCTYPE html>"))
    assert root.find(".//table") is not None
    assert len(root.findall(".//{http://www.w3.org/2000/svg}svg")) == 2
    assert "<script" not in text and "@import" not in text
    for element in root.iter():
        for name, value in element.attrib.items():
            if name.rpartition("}")[2] in ("src", "href"):
                assert value.startswith("#"), (element.tag, name, value)
    ids = [element.attrib["id"] for element in root.iter() if "id" in element.attrib]
    assert len(ids) == len(set(ids))
    used = set(re.findall(r"(?:href=\"|url\()#([^\")]+)", text))
    assert used <= set(ids)
    assert "&lt;here&gt;" in text


def test_plots_of_the_same_table_are_the_same(results):
    from rrra_hf.comparison.plots import plots_of

    table = make_tables(results[1])[0]
    assert plots_of(table) == plots_of(table)


def test_markdown_has_a_row_for_each_method(results):
    report = report_of(results[1])
    text = markdown(report)
    for table in report["tables"]:
        header, rows = grid_of(table)
        assert f"| {' | '.join(header)} |" in text
        for row in rows:
            assert len(row) == len(header) and f"| {' | '.join(row)} |" in text
    assert markdown({**report, "other_code": ["x"]}) != text


def test_exponential_gains_are_shown_for_graded_labels_only(results):
    table = make_tables(results[1])[0]
    assert EXPONENTIAL_NDCG in grid_of(table)[0]
    for row in table["rows"]:
        row[EXPONENTIAL_NDCG] = row["nDCG@10"]
    assert EXPONENTIAL_NDCG not in grid_of(table)[0]


def test_a_report_is_the_same_wherever_it_is_drawn(results, tmp_path):
    import matplotlib

    report = report_of(results[1])
    write_report(tmp_path / "first", report)
    with matplotlib.rc_context({"lines.linewidth": 9, "axes.facecolor": "red", "svg.hashsalt": None}):
        write_report(tmp_path / "second", report)
    first, second = (
        {path.relative_to(tmp_path / name): path.read_bytes() for path in (tmp_path / name).rglob("*.*")}
        for name in ("first", "second")
    )
    assert len(first) > 3 and first == second

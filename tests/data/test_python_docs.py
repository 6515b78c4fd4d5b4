from __future__ import annotations

import importlib
import sys
from pathlib import Path
from textwrap import indent

import pytest

from rrra_hf.data import Collection, load_collection
from rrra_hf.data.python_docs import python_docs
from rrra_hf.data.python_docs.docstrings import split_docstring
from rrra_hf.data.python_docs.public_names import public_definitions
from rrra_hf.data.python_docs.source import read_package

REST = "It takes every row one after the other, and gives back the {} of them all."


def function(name: str, summary: str, rest: str, arguments: str = "rows, axis=0") -> str:
    return f'def {name}({arguments}):\n    """{summary}\n\n    {rest}\n    """\n\n'


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        for folder in path.relative_to(root).parents[:-1]:
            (root / folder / "__init__.py").touch()


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Make packages of source texts and return their collection."""
    monkeypatch.syspath_prepend(str(tmp_path / "site"))

    def make(files: dict[str, str], limit: int | None = None) -> Collection:
        write(tmp_path / "site", files)
        importlib.invalidate_caches()
        return python_docs(sorted({name.split("/")[0] for name in files}), limit, tmp_path / "cache")

    return make


def documents(collection: Collection) -> dict[str, str]:
    return dict(zip(collection.document_ids, collection.corpus["text"], strict=True))


def queries_of(collection: Collection, document_id: str) -> set[str]:
    texts = dict(zip(collection.query_ids, collection.query_texts, strict=True))
    return {texts[query] for query, grades in collection.qrels.items() if document_id in grades}


# -------------------------------------------------------------------- summary, signature, body


def test_summary_is_the_query_and_the_rest_the_document(build) -> None:
    collection = build({"alfa/rows.py": function("total", "Add up all the rows.", REST.format("sum"))})
    assert documents(collection) == {"alfa.rows.total": "total(rows, axis=0) " + REST.format("sum")}
    assert collection.corpus["title"][0] == "alfa.rows.total"
    assert collection.query_texts == ["Add up all the rows"]


def test_summary_is_removed_wherever_it_occurs(build) -> None:
    rest = "Note: add up all  the Rows. " + REST.format("sum")
    collection = build({"alfa/rows.py": function("total", "Add up all the rows.", rest)})
    assert documents(collection)["alfa.rows.total"].endswith("Note: " + REST.format("sum"))


@pytest.mark.parametrize(
    ("docstring", "expected"),
    [
        ("One line over\ntwo lines.\n\nMore.", ("", "One line over two lines", "More.")),
        ("First sentence. Second one.\n\nMore.", ("", "First sentence", "Second one. More.")),
        ("Files, e.g. logs, are read. More.", ("", "Files, e.g. logs, are read", "More.")),
        ("f(x, *, y=1) -> Tensor\n\nDoes it.\n\nMore.", ("f(x, *, y=1) -> Tensor", "Does it", "More.")),
        ("See :func:`~a.b.c` and ``x`` and `y`.", ("", "See a.b.c and x and y", "")),
        ("Title\n=====\n\nBody\n----\nx", ("", "Title", "Body x")),
        ("Do it.\n\n.. versionadded:: 3.2\n\n.. note::\n   Careful.", ("", "Do it", "note: Careful.")),
        ("Do it.\n\n>>> f(1)\n1", ("", "Do it", "f(1) 1")),
    ],
)
def test_docstring_is_split_and_cleaned(docstring: str, expected: tuple[str, str, str]) -> None:
    assert split_docstring(docstring) == expected


@pytest.mark.parametrize(
    "summary",
    [
        "Too short here.",
        "x = f(a) is what this one does.",
        "(a, b), [c], {d}, <e>, (f).",
        "Deprecated: use total of rows.",
    ],
)
def test_what_is_no_line_of_prose_is_left_out(build, summary: str) -> None:
    good = function("total", "Add up all the rows.", REST.format("sum"))
    collection = build({"alfa/rows.py": good + function("other", summary, REST.format("other"))})
    assert collection.document_ids == ["alfa.rows.total"]


def test_document_with_too_little_content_is_left_out(build) -> None:
    good = function("total", "Add up all the rows.", REST.format("sum"))
    collection = build(
        {"alfa/rows.py": good + function("short", "Make the rows much shorter.", "Fast.", "x")}
    )
    assert collection.document_ids == ["alfa.rows.total"]


def test_text_is_cut_at_a_word(build) -> None:
    collection = build({"alfa/rows.py": function("total", "Add up all the rows.", "word " * 1000)})
    (text,) = documents(collection).values()
    assert 1400 < len(text) <= 1500
    assert text.endswith(" word")


def test_class_has_the_signature_of_its_constructor_and_methods_theirs(build) -> None:
    methods = (
        function(
            "__init__", "Make one from the rows given.", REST.format("table"), "self, rows, *, axis: int = 0"
        )
        + function("total", "Add up all the rows.", REST.format("sum"), "self, axis=1")
        + function("_total", "Add up some of the rows.", REST.format("part"), "self")
    )
    source = f'class Table:\n    """Hold rows in a table.\n\n    {REST}\n    """\n' + indent(methods, "    ")
    found = documents(build({"alfa/rows.py": source}))
    assert sorted(found) == ["alfa.rows.Table", "alfa.rows.Table.total"]
    assert found["alfa.rows.Table"].startswith("class Table(rows, *, axis: int=0) ")
    assert found["alfa.rows.Table.total"].startswith("total(axis=1) ")


# -------------------------------------------------------------------- what is public, and by which name


def test_private_names_modules_and_tests_are_left_out(build) -> None:
    source = function("total", "Add up all the rows.", REST.format("sum"))
    private = function("_hidden", "Hide all of the rows.", REST.format("hidden"))
    other = function("other", "Take some of the rows.", REST.format("other"))
    collection = build(
        {
            "alfa/rows.py": source + private,
            "alfa/_inner.py": other,
            "alfa/_pkg/rows.py": other,
            "alfa/tests/test_rows.py": other,
            "alfa/test_more.py": other,
            "alfa/conftest.py": other,
            "alfa/core/rows.py": other,
        }
    )
    assert collection.document_ids == ["alfa.rows.total"]


def test_shortest_exported_name_is_taken(build) -> None:
    one = function("total", "Add up all the rows.", REST.format("sum"))
    two = function("least", "Find the least of rows.", REST.format("minimum"))
    three = function("most", "Find the greatest of rows.", REST.format("maximum"))
    collection = build(
        {
            "alfa/__init__.py": "from ._pkg import *\n"
            "from .deep.rows import least\n"
            "from alfa._more import most as top\n",
            "alfa/_pkg/__init__.py": "from .rows import *\n",
            "alfa/_pkg/rows.py": "__all__ = ['total']\n"
            + one
            + function("no", "Not meant for all people.", REST),
            "alfa/deep/rows.py": two,
            "alfa/_more.py": three,
        }
    )
    assert collection.document_ids == ["alfa.least", "alfa.top", "alfa.total"]


def test_import_from_another_package_is_no_export(build) -> None:
    source = function("total", "Add up all the rows.", REST.format("sum"))
    collection = build(
        {"alfa/deep/rows.py": source, "alfa/tool/__init__.py": "from alfa.deep.rows import total\n"}
    )
    assert collection.document_ids == ["alfa.deep.rows.total"]


def test_names_outside_all_are_left_out(build) -> None:
    source = "__all__ = ['total']\n__all__ += ['least']\n"
    for name, kind in (("total", "sum"), ("least", "minimum"), ("other", "other")):
        source += function(name, f"Find the {kind} of rows.", REST.format(kind))
    collection = build({"alfa/rows.py": source})
    assert collection.document_ids == ["alfa.rows.least", "alfa.rows.total"]


def test_docstrings_attached_to_compiled_functions_are_read(tmp_path: Path) -> None:
    body = "Adds the rows up.\\n\\nMore of it."
    write(
        tmp_path,
        {
            "alfa/__init__.py": "from ._core import array\n",
            "alfa/_core.py": "",
            "alfa/_docs.py": f"add_newdoc('alfa._core', 'array', '''{body}''')\n"
            f"add_newdoc('alfa._core', 'array', ('sort', '''{body}'''))\n"
            f"add_docstr(alfa.add, '''add(x) -> Tensor\\n\\n{body}''' + '''{{x}}'''.format(x=1))\n",
            "alfa/nn.py": f"conv = _add_docstr(alfa.conv, '''{body}''')\n",
        },
    )
    found = public_definitions(read_package(tmp_path / "alfa", "alfa"))
    assert sorted(found) == ["alfa.add", "alfa.array", "alfa.array.sort", "alfa.nn.conv"]
    assert found["alfa.add"].docstring.startswith("add(x) -> Tensor\n\nAdds")


def test_definitions_under_a_condition_are_read(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "a/__init__.py": "if True:\n    def f():\n        'One.'\nelse:\n    def g():\n        'Two.'\n"
            "try:\n    def h():\n        'Three.'\nexcept E:\n    def i():\n        'Four.'\n"
        },
    )
    assert sorted(public_definitions(read_package(tmp_path / "a", "a"))) == ["a.f", "a.g", "a.h", "a.i"]


def test_file_that_does_not_parse_is_left_out(build) -> None:
    good = function("total", "Add up all the rows.", REST.format("sum"))
    collection = build({"alfa/rows.py": good, "alfa/bad.py": "def (:", "alfa/worse.py": "x = '\0'"})
    assert collection.document_ids == ["alfa.rows.total"]


def test_packages_are_never_imported(build) -> None:
    build({"alfa/__init__.py": "1 / 0\n" + function("total", "Add up all the rows.", REST.format("sum"))})
    assert "alfa" not in sys.modules


# -------------------------------------------------------------------- merging, choosing, splitting


def test_same_bodies_are_merged_and_keep_their_queries(build) -> None:
    rest = REST.format("result") + " By {}."
    source = (
        function("least", "Find the least of rows.", REST.format("minimum"))
        + function("sum", "Add up all the rows.", rest.format("sum"), "add='take their sum now'")
        + function("total", "Take their sum now.", rest.format("total"))
    )
    collection = build({"alfa/rows.py": source})
    assert collection.document_ids == ["alfa.rows.least", "alfa.rows.sum"]
    assert queries_of(collection, "alfa.rows.sum") == {"Add up all the rows", "Take their sum now"}
    assert "their sum now" not in documents(collection)["alfa.rows.sum"]


def test_equal_queries_are_one_query_with_several_documents_in_one_split(build) -> None:
    names = [f"f{number}" for number in range(5)]
    words = ["one", "two", "three", "four", "five"]
    collection = build(
        {
            "alfa/rows.py": "".join(
                function(name, "Add up all the rows.", f"{word} {word}ly " + REST.format(word))
                for name, word in zip(names, words, strict=True)
            )
        }
    )
    assert len(collection.queries) == 1
    (grades,) = collection.qrels.values()
    assert sorted(grades) == [f"alfa.rows.{name}" for name in names]
    assert len(collection.splits) == 1


def test_query_that_too_many_documents_share_is_dropped(build) -> None:
    source = function("total", "Find the sum of rows.", REST.format("sum"))
    for number in range(6):
        source += function(f"f{number}", "Set the parameters of it.", f"word{number} " + REST.format("other"))
    assert build({"alfa/rows.py": source}).document_ids == ["alfa.rows.total"]


def test_namesakes_in_other_packages_are_siblings(build) -> None:
    collection = build(
        {
            "alfa/rows.py": function("total", "Add up all the rows.", REST.format("sum")),
            "alfa/more.py": function("total", "Add up all of more.", REST.format("more")),
            "bravo/rows.py": function("total", "Take the sum of tables.", REST.format("tables"))
            + function("least", "Find the least of rows.", REST.format("minimum")),
        }
    )
    assert collection.siblings == {
        "alfa.more.total": ["bravo.rows.total"],
        "alfa.rows.total": ["bravo.rows.total"],
        "bravo.rows.total": ["alfa.more.total", "alfa.rows.total"],
    }


def many(count: int, letter: str) -> str:
    return "".join(
        function(
            f"{letter}{n}",
            f"Compute the {letter} item {'x' * (n + 1)}.",
            f"w{letter}{n} " + REST.format("item"),
        )
        for n in range(count)
    )


def test_limit_is_kept_and_shared_by_the_packages(build) -> None:
    collection = build(
        {"alfa/rows.py": many(30, "a"), "bravo/rows.py": many(30, "b"), "charly/c.py": many(2, "c")}, 20
    )
    packages = [name.split(".")[0] for name in collection.document_ids]
    assert {package: packages.count(package) for package in packages} == {"alfa": 9, "bravo": 9, "charly": 2}


def test_short_names_are_chosen_before_long_names_and_errors(build) -> None:
    files = {
        "alfa/__init__.py": function("short", "Take the short way there.", REST.format("short"))
        + function("BadError", "Raised for bad rows only.", REST.format("error")),
        "alfa/deep/rows.py": many(5, "a"),
    }
    assert build(files, 1).document_ids == ["alfa.short"]


def no_leaks(collection: Collection) -> bool:
    queries = [query for split in collection.splits for query in collection.qrels_by_split[split]]
    found = [set().union(*qrels.values()) for qrels in collection.qrels_by_split.values()]
    return len(queries) == len(set(queries)) and sum(map(len, found)) == len(set().union(*found))


def test_splits_share_neither_queries_nor_documents(build) -> None:
    collection = build({"alfa/rows.py": many(200, "a")})
    assert collection.splits == ["dev", "test", "train"]
    assert no_leaks(collection)
    shares = {split: len(qrels) / 200 for split, qrels in collection.qrels_by_split.items()}
    assert shares == pytest.approx({"train": 0.7, "dev": 0.1, "test": 0.2}, abs=0.1)


def test_split_stays_when_other_documents_come(build) -> None:
    before = build({"alfa/rows.py": many(30, "a")})
    after = build({"alfa/rows.py": many(30, "a"), "bravo/rows.py": many(5, "b")})
    for split, qrels in before.qrels_by_split.items():
        assert qrels.keys() <= after.qrels_by_split[split].keys()


# -------------------------------------------------------------------- cache and arguments


def test_second_call_reads_the_cache(build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = build({"alfa/rows.py": many(5, "a")})
    monkeypatch.setattr("rrra_hf.data.python_docs.collect.read_documents", None)
    second = python_docs(["alfa"], None, tmp_path / "cache")
    assert (first.name, documents(first), first.qrels_by_split) == (
        second.name,
        documents(second),
        second.qrels_by_split,
    )


def test_missing_package_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"packages must be installed .*, \['no_such_package'\] are not"):
        python_docs(["no_such_package"], cache_dir=tmp_path)


def test_limit_below_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="limit must be at least 1, got 0"):
        python_docs(limit=0, cache_dir=tmp_path)


@pytest.mark.slow
def test_documentation_of_what_is_installed(tmp_path: Path) -> None:
    packages = ["stdlib", "numpy", "pandas"]
    first, second = (python_docs(packages, cache_dir=tmp_path / name) for name in ("one", "two"))
    assert (tmp_path / "one").exists()
    assert len(first.corpus) >= 3000
    assert no_leaks(first)
    assert documents(first) == documents(second)
    assert first.query_texts == second.query_texts
    assert (first.qrels_by_split, first.siblings) == (second.qrels_by_split, second.siblings)
    assert {"os.path.join", "pandas.read_csv", "argparse.ArgumentParser"} <= set(first.document_ids)
    assert "Join two or more pathname components, inserting '/' as needed" in queries_of(
        first, "os.path.join"
    )
    reloaded = load_collection(next((tmp_path / "one").iterdir()), "test")
    assert reloaded.qrels == first.qrels_by_split["test"]

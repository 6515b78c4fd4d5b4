"""The import graph follows the table of rooms in docs/architecture.md, and tests live in the same rooms."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE, TESTS, PAGE = ROOT / "src/rrra_hf", ROOT / "tests", ROOT / "docs/architecture.md"
MAX_LINES = 500
# Tests of attacks on several rooms.
ATTACKS = "security"


class Import(NamedTuple):
    """One import statement of ours: which module imports which, and where it is written."""

    importer: str
    imported: str
    place: str
    written: str
    inside: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.place}: {self.written}"


def rooms_of(page: Path) -> list[str]:
    """Return the rooms in the order of the table, whose first column is the room's name in backticks."""
    section = page.read_text(encoding="utf-8").partition("\n## Rooms\n")[2].partition("\n## ")[0]
    return re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)


def module_name(path: Path, package: Path) -> str:
    parts = path.relative_to(package.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def statements(node: ast.AST, inside: tuple[str, ...] = ()) -> Iterator[tuple[ast.stmt, tuple[str, ...]]]:
    """Yield every import statement below a node, with the names of the functions that it stands in."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child, inside
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from statements(child, (*inside, child.name))
        else:
            yield from statements(child, inside)


def targets(node: ast.stmt, holder: str, modules: set[str]) -> set[str]:
    """Return the modules of ours that a statement in the package `holder` imports."""
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names} & modules
    assert isinstance(node, ast.ImportFrom)
    above = holder.rsplit(".", node.level - 1)[0] if node.level else ""
    source = ".".join(filter(None, [above, node.module]))
    named = {f"{source}.{alias.name}" for alias in node.names}
    # `from . import x` imports the module x; the package itself is needed for other names only.
    return (named & modules) | ({source} & modules if named - modules else set())


def imports_of(package: Path) -> list[Import]:
    """Return every import of ours within a package: also inside functions, and for type checkers only."""
    files = {module_name(path, package): path for path in sorted(package.rglob("*.py"))}
    found = []
    for module, path in files.items():
        holder = module if path.name == "__init__.py" else module.rpartition(".")[0]
        for node, inside in statements(ast.parse(path.read_text(encoding="utf-8"))):
            place = f"{path.relative_to(package.parent)}:{node.lineno}"
            found += [
                Import(module, target, place, ast.unparse(node), inside)
                for target in sorted(targets(node, holder, set(files)))
            ]
    return found


def room_of(module: str) -> str | None:
    """Return the room of a module; the package's own `__init__` is in none."""
    return module.split(".")[1] if "." in module else None


# -------------------------------------------------------------------- what must hold: lists of what doesn't


def imports_of_later_rooms(imports: list[Import], rooms: list[str]) -> list[str]:
    order = {room: place for place, room in enumerate(rooms)}
    found = []
    for each in imports:
        importer, imported = room_of(each.importer), room_of(each.imported)
        known = importer in order and imported in order
        if known and order[imported] > order[importer]:
            found.append(f"{each}  ({importer} is above {imported})")
    return found


def circles(imports: list[Import]) -> list[str]:
    """Return one circle for each import that closes one: the imports that lead back to where it started."""
    leads: dict[str, list[Import]] = {}
    for each in imports:
        leads.setdefault(each.importer, []).append(each)
    done: set[str] = set()
    found = []

    def visit(module: str, way: list[Import]) -> None:
        for each in leads.get(module, []):
            passed = [step.importer for step in way] + [module]
            if each.imported in passed:
                circle = [*way, each][passed.index(each.imported) :]
                found.append(" -> ".join(map(str, circle)))
            elif each.imported not in done:
                visit(each.imported, [*way, each])
        done.add(module)

    for module in list(leads):
        if module not in done:
            visit(module, [])
    return found


def folders_of(parent: Path) -> set[str]:
    return {path.parent.relative_to(parent).parts[0] for path in parent.glob("*/**/*.py")}


def rooms_without_a_place(package: Path, tests: Path, rooms: list[str]) -> list[str]:
    folders, tested = folders_of(package), folders_of(tests)
    return [
        *(f"{package.name}/{room} isn't in the table of rooms" for room in sorted(folders - set(rooms))),
        *(f"{room} is in the table of rooms, but {package.name}/ lacks it" for room in set(rooms) - folders),
        *(f"{package.name}/{room} has no folder in tests/" for room in sorted(folders - tested)),
        *(f"tests/{room} has no folder in {package.name}/" for room in sorted(tested - folders - {ATTACKS})),
    ]


def imports_that_cannot_travel(imports: list[Import], package: str) -> list[str]:
    """Return what files of `models` import in another way than `from .neighbour import`."""
    found = []
    for each in imports:
        if room_of(each.importer) != "models" or re.match(r"from \.\w+ import ", each.written):
            continue
        to_hub = re.match(rf"from {package}\.hub(\.\w+)* import ", each.written)
        if not (to_hub and "push_to_hub" in each.inside):
            found.append(str(each))
    return found


def long_files(tests: Path) -> list[str]:
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in sorted(tests.rglob("*.py"))}
    return [f"{path.relative_to(tests)}: {count} lines" for path, count in lines.items() if count > MAX_LINES]


def repeated_names(tests: Path) -> list[str]:
    """Return names of several files: of two, one would be imported in the other's place."""
    names = Counter(path.name for path in tests.rglob("*.py") if path.name != "conftest.py")
    return [f"{name}: {count} files" for name, count in names.items() if count > 1]


def imports_of_the_comparison(imports: list[Import]) -> list[str]:
    def allowed(module: str) -> bool:
        return room_of(module) == "comparison" or module.endswith(".cli.compare")

    return [
        str(each) for each in imports if room_of(each.imported) == "comparison" and not allowed(each.importer)
    ]


# -------------------------------------------------------------------- the package as it is


@pytest.fixture(scope="module")
def imports() -> list[Import]:
    return imports_of(PACKAGE)


@pytest.fixture(scope="module")
def rooms() -> list[str]:
    return rooms_of(PAGE)


def test_a_room_imports_from_rooms_above_it_only(imports: list[Import], rooms: list[str]) -> None:
    assert len(imports) > 100
    assert imports_of_later_rooms(imports, rooms) == []


def test_no_modules_import_each_other_in_a_circle(imports: list[Import]) -> None:
    assert circles(imports) == []


def test_rooms_are_the_folders_of_package_and_tests(rooms: list[str]) -> None:
    assert rooms_without_a_place(PACKAGE, TESTS, rooms) == []


def test_files_that_travel_import_their_neighbours_only(imports: list[Import]) -> None:
    assert imports_that_cannot_travel(imports, PACKAGE.name) == []


def test_no_file_of_tests_is_long_and_no_two_have_one_name() -> None:
    assert long_files(TESTS) == []
    assert repeated_names(TESTS) == []


def test_the_comparison_imports_the_product_and_never_the_reverse(imports: list[Import]) -> None:
    assert imports_of_the_comparison(imports) == []


# -------------------------------------------------------------------- each of these can fail

ROOMS = ["hub", "models", "data", "comparison", "cli"]
WHOLE = {
    "__init__.py": "from .data import load\n",
    "models/__init__.py": "from .adapter import Adapter\n",
    "models/adapter.py": "from .layout import X\n\ndef push_to_hub():\n    from rrra.hub import push\n",
    "models/layout.py": "import json\nX = 1\n",
    "hub/__init__.py": "push = 1\n",
    "data/__init__.py": "from ..models import Adapter\nfrom . import beir\nload = 1\n",
    "data/beir.py": "from ..models.layout import X\n",
    "comparison/__init__.py": "import rrra.data.beir\n",
    "cli/__init__.py": "",
    "cli/compare.py": "def run():\n    from ..comparison import y\n",
}


@pytest.fixture
def small(tmp_path: Path) -> Callable[..., Path]:
    """Make a package `rrra` beside `tests`, in which files may be changed or added."""

    def make(changes: dict[str, str] | None = None) -> Path:
        for name, text in {**WHOLE, **(changes or {})}.items():
            path = tmp_path / "rrra" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        for room in ROOMS:
            (tmp_path / "tests" / room).mkdir(parents=True)
            (tmp_path / "tests" / room / f"test_{room}.py").write_text("x = 1\n" * MAX_LINES)
        return tmp_path / "rrra"

    return make


def test_a_tree_in_order_is_found_in_order(small: Callable[..., Path]) -> None:
    package = small()
    found = imports_of(package)
    assert {(each.importer, each.imported) for each in found} == {
        ("rrra", "rrra.data"),
        ("rrra.models", "rrra.models.adapter"),
        ("rrra.models.adapter", "rrra.models.layout"),
        ("rrra.models.adapter", "rrra.hub"),
        ("rrra.data", "rrra.models"),
        ("rrra.data", "rrra.data.beir"),
        ("rrra.data.beir", "rrra.models.layout"),
        ("rrra.comparison", "rrra.data.beir"),
        ("rrra.cli.compare", "rrra.comparison"),
    }
    assert imports_of_later_rooms(found, ROOMS) == circles(found) == []
    assert imports_that_cannot_travel(found, "rrra") == imports_of_the_comparison(found) == []
    assert rooms_without_a_place(package, package.parent / "tests", ROOMS) == []
    assert long_files(package.parent / "tests") == repeated_names(package.parent / "tests") == []


@pytest.mark.parametrize(
    "text",
    [
        "from ..comparison import y\n",
        "from .. import comparison\n",
        "import rrra.comparison as c\n",
        "def f():\n    from rrra.comparison import y\n",
        "if TYPE_CHECKING:\n    from ..comparison import y\n",
    ],
)
def test_an_import_of_a_later_room_is_named(small: Callable[..., Path], text: str) -> None:
    found = imports_of(small({"data/csv.py": text}))
    ((problem),) = imports_of_later_rooms(found, ROOMS)
    line = len(text.splitlines())
    assert problem == f"rrra/data/csv.py:{line}: {text.splitlines()[-1].strip()}  (data is above comparison)"
    assert imports_of_the_comparison(found) == [problem.partition("  (")[0]]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"models/layout.py": "def f():\n    from .adapter import Adapter\n"},
            "rrra/models/adapter.py:1: from .layout import X -> "
            "rrra/models/layout.py:2: from .adapter import Adapter",
        ),
        (
            {"data/beir.py": "from . import load\n"},
            "rrra/data/__init__.py:2: from . import beir -> rrra/data/beir.py:1: from . import load",
        ),
        (
            {"data/beir.py": "import rrra\n"},
            "rrra/__init__.py:1: from .data import load -> "
            "rrra/data/__init__.py:2: from . import beir -> rrra/data/beir.py:1: import rrra",
        ),
    ],
)
def test_a_circle_is_told_import_by_import(
    small: Callable[..., Path], changes: dict[str, str], expected: str
) -> None:
    assert circles(imports_of(small(changes))) == [expected]


def test_rooms_that_are_missing_somewhere_are_named(small: Callable[..., Path]) -> None:
    package = small({"losses/__init__.py": ""})
    (package.parent / "tests/serving").mkdir()
    (package.parent / "tests/serving/test_serving.py").touch()
    assert rooms_without_a_place(package, package.parent / "tests", [*ROOMS, "labels"]) == [
        "rrra/losses isn't in the table of rooms",
        "labels is in the table of rooms, but rrra/ lacks it",
        "rrra/losses has no folder in tests/",
        "tests/serving has no folder in rrra/",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "from rrra.hub import push\n",
        "from ..hub import push\n",
        "def push_to_hub():\n    from ..hub import push\n",
        "from rrra.models.layout import X\n",
        "from . import layout\n",
        "import rrra.models.layout\n",
    ],
)
def test_an_import_that_cannot_travel_is_named(small: Callable[..., Path], text: str) -> None:
    found = imports_that_cannot_travel(imports_of(small({"models/heads.py": text})), "rrra")
    line = len(text.splitlines())
    assert found == [f"rrra/models/heads.py:{line}: {text.splitlines()[-1].strip()}"]


def test_long_files_and_repeated_names_are_named(small: Callable[..., Path]) -> None:
    tests = small().parent / "tests"
    (tests / "hub/test_models.py").write_text("x = 1\n" * (MAX_LINES + 1))
    assert long_files(tests) == ["hub/test_models.py: 501 lines"]
    assert repeated_names(tests) == ["test_models.py: 2 files"]


def test_the_table_is_read_from_its_section_alone(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# Page\n\n| `other` | x |\n\n## Rooms\n\nText `code`.\n\n| room | what |\n| --- | --- |\n"
        "| `data` | reads `models` |\n| `cli` | the command |\n\n## Files\n\n| `late` | x |\n"
    )
    assert rooms_of(page) == ["data", "cli"]

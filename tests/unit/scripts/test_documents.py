"""The documents: links, and names of the source, lead to something that exists.

A name of the source is a path of the repository (``tests/harness/engine.py``), a path below a
package of ``src/jaula`` or a directory of ``tests`` (``engine/containers/start.py``), the name of a
module (``zygote.py``), a dotted name (``jaula.kernel``), and in the developers' pages a class or
function. Words that begin with a capital, as ``NAME``, stand for any name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from jaula import features
from jaula.engine.hooks import Hooks

ROOT = Path(__file__).parents[3]
DECISIONS = sorted(ROOT.glob("docs/decisions/*.md"))
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *DECISIONS])
DEVELOPERS = (ROOT / "CONTRIBUTING.md", ROOT / "docs/architecture.md", *DECISIONS)
ARCHITECTURE = ROOT / "docs/architecture.md"
SOURCE, TESTS = ROOT / "src/jaula", ROOT / "tests"
PROGRAMS = sorted(
    path
    for directory in ("bench", "packaging", "scripts")
    for path in (ROOT / directory).rglob("*")
    if path.is_file() and path.suffix in ("", ".py") and "results" not in path.parts
)
LINK = re.compile(r"\]\(([^)\s]+)\)")
SPAN = re.compile(r"`([^`\n]+)`")
# A path from the root of the repository. A bracket or star ends it: test_i12_*.py.
REPOSITORY_PATH = re.compile(
    r"(?<![\w./$~-])(?:src|tests|scripts|packaging|bench|docs|\.ci)/[\w./-]*\w(?:\.?[*<{])?"
)
DOTTED_NAME = re.compile(r"(?<![\w./-])jaula(?:\.\w+)+")
# `ResolvedRequest`, `TABLE`, `check(container)`
IDENTIFIER = re.compile(r"(?:\w+\.)*([A-Z]\w*[a-z]\w*|[A-Z_]{4,})|([a-z_]+)\([a-z_, ]*\)")
FILE_SUFFIXES = ("db", "sock", "cil", "service", "socket", "slice")
STANDARD_LIBRARY = frozenset({"SysLogHandler"})


def anchors(path: Path) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a page."""
    text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    for target in LINK.findall(page.read_text()):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        assert path.exists(), target
        if anchor:
            assert anchor in anchors(path), target


def targets(page: Path) -> set[str]:
    """Return the files to which a page links, as it names them."""
    return {target.partition("#")[0] for target in LINK.findall(page.read_text())}


def test_the_readme_links_to_every_page() -> None:
    pages = {str(page.relative_to(ROOT)) for page in PAGES if page.parent.name != "decisions"}
    assert pages - targets(ROOT / "README.md") == {"README.md"}


def test_the_index_of_decisions_has_every_page() -> None:
    names = {page.name for page in DECISIONS}
    assert names - targets(ROOT / "docs/decisions/index.md") == {"index.md"}


@pytest.mark.parametrize("page", DECISIONS, ids=lambda page: page.name)
def test_a_decision_has_its_headings(page: Path) -> None:
    headings = re.findall(r"^## (.+)$", page.read_text(), re.MULTILINE)
    assert page.name == "index.md" or headings[:3] == ["Context", "Decision", "Consequences"]


# --- names of the source ----------------------------------------------------------------------


@cache
def parts() -> frozenset[str]:
    """Return the names of the packages of ``src/jaula`` and of the directories of ``tests``."""
    return frozenset(
        path.name for parent in (SOURCE, TESTS) for path in parent.iterdir() if path.is_dir()
    )


@cache
def files() -> frozenset[str]:
    """Return the names of all files of the source, the tests and the programs."""
    trees = (ROOT / name for name in ("src", "tests", "scripts", "packaging", "bench"))
    return frozenset(path.name for tree in trees for path in tree.rglob("*.py")) | {
        path.name for path in ROOT.glob("*.py")
    }


@cache
def words() -> frozenset[str]:
    """Return every identifier and word of the source and of the static checks."""
    paths = [*SOURCE.rglob("*.py"), *(ROOT / "scripts").iterdir()]
    text = "\n".join(path.read_text() for path in paths if path.is_file())
    return frozenset(re.findall(r"\w+", text))


def is_placeholder(path: str) -> bool:
    """Return whether a part of a path stands for any name: ``NAME``, ``test_iNN_*``, ``.../x``."""
    return path[-1] in "*<{" or "..." in path or bool(re.search(r"[A-Z]{2}", path))


def exists(path: str, *parents: Path) -> bool:
    """Return whether a path exists below a parent, as it is or as a module."""
    return any((parent / path).exists() or (parent / f"{path}.py").is_file() for parent in parents)


def has_dotted_name(name: str) -> bool:
    """Return whether ``jaula.a.b`` is a package, a module, or a name that a module defines."""
    path = name.replace(".", "/")
    if exists(path, ROOT / "src"):
        return True
    module, _, attribute = path.rpartition("/")
    candidates = [ROOT / f"src/{module}.py", ROOT / f"src/{module}/__init__.py"]
    texts = [path.read_text() for path in candidates if path.is_file()]
    return any(re.search(rf"^(class |def )?{attribute}\b", text, re.M) for text in texts)


INSTALLED = {"src/jaula/features/web/static/vendor"}  # by scripts/web-assets


def missing_names(page: Path) -> Iterator[str]:
    """Yield the names of a page that do not exist."""
    text = page.read_text()
    for path in REPOSITORY_PATH.findall(text):
        path = path.rstrip(".")
        if path not in INSTALLED and not is_placeholder(path) and not exists(path, ROOT):
            yield path
    for name in DOTTED_NAME.findall(text):
        if name.split(".")[1] not in FILE_SUFFIXES and not has_dotted_name(name):
            yield name
    if page.suffix != ".md":
        return
    for span in SPAN.findall(text):
        if re.fullmatch(r"\w+(/[\w.-]+)+", span) and span.split("/")[0] in parts():
            if not is_placeholder(span) and not exists(span, SOURCE, TESTS):
                yield span
        elif re.fullmatch(r"\w+\.py", span) and span not in files():
            yield span
        elif page in DEVELOPERS:
            yield from missing_identifiers(span)


def missing_identifiers(span: str) -> Iterator[str]:
    """Yield the class, constant or function that a code span names, if the source lacks it."""
    match = IDENTIFIER.fullmatch(span)
    if match and (match[1] or match[2]) not in words() | STANDARD_LIBRARY:
        yield span


@pytest.mark.parametrize("page", [*PAGES, *PROGRAMS], ids=lambda page: page.name)
def test_every_name_of_the_source_exists(page: Path) -> None:
    assert list(missing_names(page)) == []


def test_every_test_of_the_virtual_machines_exists() -> None:
    text = (ROOT / "docs/vm-results.md").read_text()
    rows = [line.split(" | ")[2] for line in text.splitlines() if line.startswith("| ")][2:]
    names = [name for row in rows for name in row.split(", ")]
    assert names
    assert [name for name in names if not (TESTS / name).exists()] == []


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("`kernel/mounts.py` and `engine/containers/start`", []),
        ("`kernel/absent.py`", ["kernel/absent.py"]),
        ("see src/jaula/absent.", ["src/jaula/absent"]),
        ("jaula.kernel.openat2, io.jaula.profile, jaula.db", []),
        ("jaula.kernel.absent", ["jaula.kernel.absent"]),
        ("`absent_module.py`", ["absent_module.py"]),
        ("src/jaula/cli/NAME.py, tests/security/test_iNN_*.py", []),
    ],
)
def test_a_missing_name_is_reported(text: str, missing: list[str], tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    assert list(missing_names(page)) == missing


def test_a_missing_class_or_function_is_reported() -> None:
    assert list(missing_identifiers("ResolvedRequest")) == []
    assert list(missing_identifiers("NoSuchRequestClass")) == ["NoSuchRequestClass"]
    assert list(missing_identifiers("no_such_function_at_all(x)")) == ["no_such_function_at_all(x)"]


# --- the list of packages ---------------------------------------------------------------------


def packages(directory: Path) -> set[str]:
    """Return the names of the packages in a directory of the source."""
    return {path.parent.name for path in directory.glob("*/__init__.py")}


def first_column(heading: str, second: str = "subject") -> set[str]:
    """Return the code spans in the first column of the table with these headings."""
    table = ARCHITECTURE.read_text().partition(f"| {heading} | {second} |\n")[2]
    rows = table.partition("\n\n")[0].splitlines()[1:]
    return {name for row in rows for name in SPAN.findall(row.split("|")[1])}


def test_the_architecture_lists_every_package_and_no_other() -> None:
    assert first_column("package") == packages(SOURCE)


def test_the_architecture_lists_every_package_of_the_engine() -> None:
    listed = first_column("package of `engine`")
    assert packages(SOURCE / "engine") <= listed
    assert {name for name in listed if not exists(name, SOURCE / "engine")} == set()


def test_the_architecture_lists_every_feature_and_no_other() -> None:
    assert first_column("feature") == set(features.TABLE)


def test_the_architecture_lists_every_hook_and_no_other() -> None:
    points = {name for name in vars(Hooks) if not name.startswith("_")}
    assert first_column("hook", "called") == points

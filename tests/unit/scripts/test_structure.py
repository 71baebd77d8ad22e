"""The structure check: which imports count, which circles are found, which names are refused."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[3] / "scripts/structure.py"

Tree = Callable[[dict[str, str]], Path]


@pytest.fixture(scope="module")
def structure() -> ModuleType:
    spec = importlib.util.spec_from_file_location("structure", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["structure"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    def write(files: dict[str, str]) -> Path:
        source = tmp_path / "jaula"
        source.mkdir()
        (source / "__init__.py").touch()
        for name, text in files.items():
            path = source / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return source

    return write


def chains(structure: ModuleType, source: Path) -> list[list[str]]:
    modules, errors = structure.read(source)
    assert not errors
    circles = structure.circles(structure.edges(modules))
    return [[edge.source.removeprefix("jaula.") for edge in chain] for chain in circles]


# --- imports ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "modules"),
    [
        ("import os, jaula.a.b as c", ["os", "jaula.a.b"]),
        ("from jaula.a import b, c", ["jaula.a.b", "jaula.a.c"]),
        ("from jaula.a import *", ["jaula.a"]),
        ("from . import b", ["jaula.engine.b"]),
        ("from .b import c", ["jaula.engine.b.c"]),
        ("from .. import kernel", ["jaula.kernel"]),
        ("from ... import x\nfrom ....y import z", []),
        ("def f():\n    if x:\n        import a\n    else:\n        import b", ["a", "b"]),
        ("try:\n    import a\nexcept E:\n    import b\nelse:\n    import c\nfinally:\n    import d",
         ["a", "c", "d", "b"]),
        ("match x:\n    case 1:\n        import a", ["a"]),
        ("class A:\n    async def f(self):\n        async with x:\n            import a", ["a"]),
        ('"""\nimport a\n"""\nx = "import b"', []),
        ("", []),
    ],
)  # fmt: skip
def test_imports_are_found_in_every_statement(
    structure: ModuleType, text: str, modules: list[str]
) -> None:
    imports = structure.imports_of(text, "jaula.engine.start", package=False)
    assert [entry.module for entry in imports] == modules


@pytest.mark.parametrize(
    ("text", "module"),
    [("from . import a", "jaula.engine.a"), ("from .. import a", "jaula.a")],
)
def test_a_package_is_its_own_base_of_relative_imports(
    structure: ModuleType, text: str, module: str
) -> None:
    (entry,) = structure.imports_of(text, "jaula.engine", package=True)
    assert entry.module == module


@pytest.mark.parametrize(
    ("test", "typing"),
    [("TYPE_CHECKING", True), ("typing.TYPE_CHECKING", True), ("not TYPE_CHECKING", False)],
)
def test_imports_for_types_are_marked(structure: ModuleType, test: str, typing: bool) -> None:
    text = f"if {test}:\n    import a\nelse:\n    import b"
    first, second = structure.imports_of(text, "jaula.x", package=False)
    assert (first.typing, second.typing) == (typing, False)


@pytest.mark.parametrize(
    "content", [b"def f(:\n", b"\xff\xfe", b"x = 1\0", b"import a\n\timport b\n"]
)
def test_a_file_that_is_not_python_is_an_error(
    structure: ModuleType, tree: Tree, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tree({"good.py": "import os"})
    (source / "bad.py").write_bytes(content)
    assert structure.main([str(source)]) == 2
    assert "bad.py" in capsys.readouterr().err


def test_a_directory_that_is_not_a_package_is_an_error(
    structure: ModuleType, tmp_path: Path
) -> None:
    assert structure.main([str(tmp_path)]) == 2


# --- circles ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "back",
    [
        "import jaula.a",
        "from jaula import a",
        "from jaula.a import f",
        "from . import a",
        "from .a import f",
        "def g():\n    from jaula.a import f",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from jaula.a import A",
    ],
)
def test_an_import_back_closes_a_circle(structure: ModuleType, tree: Tree, back: str) -> None:
    source = tree({"a.py": "from jaula import b", "b.py": back})
    assert chains(structure, source) == [["a", "b"]]


def test_the_chain_is_the_shortest_and_names_lines(
    structure: ModuleType, tree: Tree, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tree(
        {
            "a.py": "import os\n\nfrom jaula import b, d",
            "b.py": "from jaula import c",
            "c.py": "from jaula import d",
            "d.py": "from jaula.a import x",
        }
    )
    assert structure.main([str(source)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == [
        "circle of 2 files:",
        "    jaula/a.py:3 imports jaula.d",
        "    jaula/d.py:1 imports jaula.a",
    ]
    assert lines[-1] == "structure: 1 findings"


def test_circles_that_share_no_import_are_all_found(structure: ModuleType, tree: Tree) -> None:
    source = tree(
        {
            "a.py": "from jaula import b, c",
            "b.py": "from jaula import a",
            "c.py": "from jaula import a, e",
            "e.py": "",
        }
    )
    assert chains(structure, source) == [["a", "b"], ["a", "c"]]


def test_a_package_that_imports_its_modules_is_not_a_circle(
    structure: ModuleType, tree: Tree
) -> None:
    source = tree(
        {
            "net/__init__.py": "from jaula.net import bridge, dns",
            "net/bridge.py": "from jaula.net import dns",
            "net/dns.py": "",
        }
    )
    assert chains(structure, source) == []


def test_a_name_taken_from_the_package_closes_a_circle(structure: ModuleType, tree: Tree) -> None:
    source = tree(
        {"net/__init__.py": "from .bridge import B", "net/bridge.py": "from jaula.net import MTU"}
    )
    assert chains(structure, source) == [["net", "net.bridge"]]


def test_a_long_chain_needs_no_recursion(structure: ModuleType) -> None:
    names = [f"m{number}" for number in range(5000)]
    graph = {
        name: [structure.Edge(name, after, 1, False)]
        for name, after in zip(names, [*names[1:], names[0]], strict=True)
    }
    assert structure.components(graph) == [sorted(names)]


@pytest.mark.parametrize(
    ("guard", "expected"), [("if TYPE_CHECKING:", []), ("if True:", [["a", "parts"]])]
)
def test_only_imports_for_types_of_the_one_module_are_allowed(
    structure: ModuleType, tree: Tree, guard: str, expected: list[list[str]]
) -> None:
    source = tree(
        {"a.py": "from jaula.parts import P", "parts.py": f"{guard}\n    from jaula.a import A"}
    )
    modules, _ = structure.read(source)
    circles = structure.circles(structure.edges(modules, "jaula.parts"))
    assert [[e.source.removeprefix("jaula.") for e in chain] for chain in circles] == expected


# --- names ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["jaula.engine.starting", "jaula.engine.building", "jaula.engine.apparmor_loading",
     "jaula.runtime.midwife", "jaula.engine.views", "jaula.runtime.create.ports", "jaula.upkeep"],
)  # fmt: skip
def test_names_that_the_field_does_not_know_are_refused(structure: ModuleType, name: str) -> None:
    assert len(list(structure.name_errors(name))) == 1


@pytest.mark.parametrize(
    "name",
    ["jaula", "jaula.__main__", "jaula.kernel.keyctl", "jaula.engine.containers.start",
     "jaula.features.trust.simple_signing", "jaula.logs.non_blocking", "jaula.network.ports",
     "jaula.features.verify.cli.tree"],
)  # fmt: skip
def test_names_of_the_field_pass(structure: ModuleType, name: str) -> None:
    assert list(structure.name_errors(name)) == []


def test_a_package_is_reported_by_its_init(structure: ModuleType, tree: Tree) -> None:
    (line,), errors = structure.findings(tree({"engine/building/__init__.py": ""}))
    assert not errors
    assert line.startswith("jaula/engine/building/__init__.py: 'building' is a gerund: ")

"""Stand-ins of modules, compared with the modules themselves.

Each module that a command of ``jaula-runtime`` can load is imported in two interpreters: with the
stand-ins, and without. Both describe what they have: names, bases, attributes, and what structs
decode. The descriptions must be equal.
"""

from __future__ import annotations

import functools
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import grimp
import msgspec
import pytest

from jaula.oci import build_pyc_archive
from jaula.oci.runtime_main import COMMANDS

SITE = str(Path(msgspec.__file__).parents[1])
SOURCE = Path(build_pyc_archive.__file__).parents[2]
FAST = "from jaula.oci import fast_import; fast_import.install()\n"
DESCRIBE = """
import json, sys
sys.modules["typing_extensions"] = None
FAST
import msgspec, re
VALUES = (None, True, 1, 1.5, "text", [], [1], ["a"], {}, {"a": 1}, {"a": "b"}, [[1, 2]])
OWN = (type(None), bool, int, float, str, bytes)

def decoded(struct):
    fields = struct.__struct_encode_fields__
    try:
        decode = msgspec.json.Decoder(struct).decode
    except (TypeError, NameError, AttributeError):  # types that only annotations name
        return ["never decoded"]
    results = []
    for document in ({}, *({field: value} for field in fields for value in VALUES)):
        try:
            value = decode(msgspec.json.encode(document))
            results.append(re.sub(" at 0x[0-9a-f]+", "", repr(value)))
        except (msgspec.ValidationError, ValueError, TypeError) as error:
            results.append(f"{type(error).__name__}: {error}")
    return results

def described(value):
    if isinstance(value, OWN):
        return repr(value)
    if not isinstance(value, type):
        return type(value).__name__ if type(value).__module__ == "builtins" else ""
    if not value.__module__.startswith("jaula.") or value.__module__ == "jaula.oci.fast_import":
        return ""
    document = {
        "bases": [kind.__name__ for kind in value.__mro__ if kind.__module__[:6] == "jaula."],
        "attributes": sorted(name for name in vars(value) if name[0] != "_"),
    }
    if isinstance(value, type(msgspec.Struct)):
        document["decoded"] = decoded(value)
    return document

for name in sys.argv[3:]:
    __import__(name)
documents = {}
for name in sorted(sys.argv[3:]):
    values = vars(sys.modules[name]).items()
    documents[name] = {key: described(value) for key, value in values if key[:2] != "__"}
print(json.dumps(documents))
"""


@functools.cache
def runtime_modules() -> list[str]:
    """Return the modules that ``jaula-runtime`` imports, at its start or later."""
    graph = grimp.build_graph("jaula", cache_dir=None)
    names = graph.find_upstream_modules("jaula.oci", as_package=True)
    names |= graph.find_descendants("jaula.oci")
    return sorted(names - {"jaula.oci.fast_import", "jaula.oci.__main__"})


def run(script: str, *arguments: str) -> str:
    start = [sys.executable, "-I", "-S", "-X", "utf8", "-c"]
    prefix = "import sys; sys.path[:0] = sys.argv[1:3]\n"
    done = subprocess.run(
        [*start, prefix + script, str(SOURCE), SITE, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return str(done.stdout)


def describe(modules: list[str], fast: str) -> dict[str, dict[str, object]]:
    script = DESCRIBE.replace("FAST", fast)
    documents: dict[str, dict[str, object]] = json.loads(run(script, *modules))
    return documents


@pytest.fixture(scope="module")
def plain() -> dict[str, dict[str, object]]:
    return describe(runtime_modules(), "")


@pytest.mark.parametrize("order", ["sorted", "reversed", "random"])
def test_each_module_is_the_same_with_the_stand_ins(
    order: str, plain: dict[str, dict[str, object]]
) -> None:
    modules = runtime_modules()
    if order == "reversed":
        modules.reverse()
    elif order == "random":
        random.Random(os.getpid()).shuffle(modules)
    fast = describe(modules, FAST)
    assert len(fast) > 100
    differences = [
        (module, name, document[name], fast[module].get(name))
        for module, document in plain.items()
        for name in document
        if fast[module].get(name) != document[name]
    ]
    assert not differences, modules


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_other_module_can_be_imported_after_those_of_a_command(command: str) -> None:
    """The driver of systemd's cgroups is one of them: a flag selects it, not the command."""
    first = list(build_pyc_archive.command_modules(command))
    others = [name for name in runtime_modules() if name not in first]
    random.Random(os.getpid()).shuffle(others)
    systemd = [name for name in others if ".systemd" in name]
    rest = [name for name in others if ".systemd" not in name]
    script = FAST + "import sys\nsys.modules['typing_extensions'] = None\n"
    script += "for name in sys.argv[3:]: __import__(name)\n"
    run(script, *first, *systemd, *rest)


NAMES = """
import sys
from jaula.oci import fast_import
stand_ins = {name: make() for name, make in fast_import._STAND_INS.items()}
for module, names in stand_ins.items():
    real = __import__(module)
    for name, value in names.items():
        here = getattr(real, name)
        if isinstance(here, (int, str, bool)):
            assert here == value, (module, name)
        elif callable(here) and type(here) is type(value):
            assert here is value or module == "typing" or here.__name__ == name, (module, name)
        print(module, name, here is value)
"""


def test_the_names_of_the_stand_ins_are_those_of_the_modules() -> None:
    lines = [line.split() for line in run(NAMES).splitlines()]
    same = {(module, name) for module, name, is_same in lines if is_same == "True"}
    assert ("collections", "abc") in same
    if sys.version_info >= (3, 12):
        assert {("typing", name) for name in ("Generic", "TypeVar", "TypeAliasType")} <= same

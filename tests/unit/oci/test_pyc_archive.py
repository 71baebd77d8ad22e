"""Modules from an archive, and the part of msgspec that is used."""

from __future__ import annotations

import marshal
import os
import shutil
import subprocess
import sys
from importlib.util import MAGIC_NUMBER
from pathlib import Path

import pytest

from jaula.oci import build_pyc_archive, pyc_archive

SITE = os.path.dirname(os.path.dirname(__import__("msgspec").__file__))
SOURCE = str(Path(pyc_archive.__file__).parents[2])


def python(script: str) -> str:
    """Return the output of a script in an interpreter that starts as the command does."""
    start = f"import sys; sys.path[:0] = {[SOURCE, SITE]!r}\n"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-X", "utf8", "-c", start + script],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A module with an archive of it: (its directory holds both)."""
    (tmp_path / "subject.py").write_text(
        '"""A text."""\n\nVALUE = 1\n\n\ndef f():\n    "Another."\n'
    )
    python(
        f"sys.path.insert(0, {str(tmp_path)!r}); import subject\n"
        "from jaula.oci import build_pyc_archive\n"
        f"path = {str(tmp_path / 'codes')!r}\n"
        "build_pyc_archive.write(path, ['jaula.oci.pyc_archive', 'subject'], {})"
    )
    return tmp_path


def taken(made: Path) -> str:
    """Return the loader of the module, its value and its docstring."""
    return python(
        f"sys.path.insert(0, {str(made)!r})\n"
        "from jaula.oci import pyc_archive\n"
        f"pyc_archive.archive_path = lambda: {str(made / 'codes')!r}\n"
        "pyc_archive.install(); import subject\n"
        "print(type(subject.__loader__).__name__, subject.VALUE, subject.__doc__, subject.__file__)"
    )


def test_the_archive_of_another_tree_is_left_alone(made: Path, tmp_path: Path) -> None:
    """A copied tree contains an archive that names the files of the original."""
    other = tmp_path / "other"
    shutil.copytree(f"{SOURCE}/jaula/oci", other / "jaula/oci")
    for name in ("__init__.py", "errors.py"):
        shutil.copy(f"{SOURCE}/jaula/{name}", other / "jaula" / name)
    printed = python(
        f"sys.path[:0] = [{str(other)!r}, {str(made)!r}]\n"
        "from jaula.oci import pyc_archive\n"
        f"pyc_archive.archive_path = lambda: {str(made / 'codes')!r}\n"
        "pyc_archive.install(); import subject; print(pyc_archive.__file__, subject.__doc__)"
    )
    assert printed == f"{other}/jaula/oci/pyc_archive.py A text."


def test_a_module_from_the_archive_has_no_docstrings(made: Path) -> None:
    assert taken(made) == f"ArchiveFinder 1 None {made}/subject.py"


def test_a_changed_source_is_imported_normally(made: Path) -> None:
    (made / "subject.py").write_text('"""Newer."""\n\nVALUE = 22\n')
    assert taken(made) == f"SourceFileLoader 22 Newer. {made}/subject.py"


def test_a_newer_source_of_the_same_size_is_imported_normally(made: Path) -> None:
    file = made / "subject.py"
    file.write_text(file.read_text().replace("1", "2"))
    os.utime(file, (1, 1))
    assert taken(made).startswith("SourceFileLoader 2 ")


@pytest.mark.parametrize("content", [None, b"", b"other and more", b"\0" * 64])
def test_without_an_archive_of_this_interpreter_imports_work(
    made: Path, content: bytes | None
) -> None:
    if content is None:
        (made / "codes").unlink()
    else:
        (made / "codes").write_bytes(content)
    assert taken(made).startswith("SourceFileLoader 1 ")


def test_the_commands_are_all_in_the_archive_of_the_setup(tmp_path: Path) -> None:
    path = str(tmp_path / "codes")
    result = python(
        "from jaula.oci import build_pyc_archive, pyc_archive\n"
        f"pyc_archive.archive_path = lambda: {path!r}\n"
        "build_pyc_archive.main(); pyc_archive.install()\n"
        "index = sys.meta_path[0]._index\n"
        "print(*sorted(name for name in index if name.startswith('jaula.oci.commands.')))\n"
        "print('msgspec' in index, 'typing' in index, 'inspect' in index, '__main__' in index)"
    )
    names, others = result.split("\n")
    from jaula.oci.runtime_main import COMMANDS

    assert set(names.split()) >= {f"jaula.oci.commands.oci_{name}" for name in COMMANDS}
    assert others == "True True False False"


def test_the_modules_of_a_command_are_loaded_in_order(tmp_path: Path) -> None:
    """A module follows those that it imports; none is imported by the import system again."""
    (tmp_path / "outer").mkdir()
    (tmp_path / "outer/__init__.py").write_text("")
    (tmp_path / "outer/first.py").write_text("from outer import second\nVALUE = second.VALUE\n")
    (tmp_path / "outer/second.py").write_text("VALUE = __name__, __package__, __file__\n")
    printed = python(
        f"sys.path.insert(0, {str(tmp_path)!r}); import outer.first\n"
        "from jaula.oci import build_pyc_archive, pyc_archive\n"
        f"pyc_archive.archive_path = lambda: {str(tmp_path / 'codes')!r}\n"
        "names = ['jaula.oci.pyc_archive', 'outer', 'outer.first', 'outer.second']\n"
        "order = {'do': ('outer', 'outer.second', 'outer.first'), 'other': ()}\n"
        "build_pyc_archive.write(pyc_archive.archive_path(), names, order)\n"
        "for name in names[1:]: del sys.modules[name]\n"
        "finder = pyc_archive.install(); finder.load(['--root', '/r', 'do', 'other'])\n"
        "outer = sys.modules['outer']\n"
        "print(outer.first.VALUE, outer.first is sys.modules['outer.first'])\n"
        "print(outer.__path__, outer.__package__, outer.first.__spec__.loader is finder)"
    )
    second = ("outer.second", "outer", f"{tmp_path}/outer/second.py")
    assert printed.split("\n") == [f"{second} True", f"['{tmp_path}/outer'] outer True"]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree with the script of the launcher, and with an entry point that prints."""
    for name in ("jaula", "jaula/oci"):
        (tmp_path / name).mkdir()
        shutil.copy(f"{SOURCE}/{name}/__init__.py", tmp_path / name)
    (tmp_path / "jaula/oci/__pycache__").mkdir()
    (tmp_path / "jaula/oci/pyc_archive.py").write_text("")
    (tmp_path / "jaula/oci/__main__.py").write_text("import sys; print('source', sys.argv[1:])")
    (tmp_path / "jaula/oci/runtime_entry.py").write_text(
        "import sys\ndef start(load):\n    print('entry', load, sys.argv[1:])\n"
    )
    build_pyc_archive.write_script(str(tmp_path / f"jaula/oci/__pycache__/{pyc_archive.SCRIPT}"))
    return tmp_path


def run_script(tree: Path) -> str:
    script = str(tree / f"jaula/oci/__pycache__/{pyc_archive.SCRIPT}")
    words = [sys.executable, "-I", "-S", "-X", "utf8", script, "state", "a b"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


def test_the_script_works_without_an_archive(tree: Path) -> None:
    assert run_script(tree) == "entry None ['state', 'a b']"


def test_an_older_script_executes_the_source_of_the_command(tree: Path) -> None:
    """The archive of this tree has another time for the source of the script."""
    file = str(tree / "jaula/oci/pyc_archive.py")
    index = marshal.dumps(({"jaula.oci.pyc_archive": (file, 1, 0, None, 0, 0)}, [(0, 0)], {}))
    head = MAGIC_NUMBER + len(index).to_bytes(4, "little")
    (tree / f"jaula/oci/__pycache__/{pyc_archive.NAME}").write_bytes(head + index)
    assert run_script(tree) == "source ['state', 'a b']"


def test_compiled_code_has_no_docstring() -> None:
    code = build_pyc_archive.compile_stripped(build_pyc_archive.__file__)
    assert code.co_consts[0] != build_pyc_archive.__doc__  # type: ignore[attr-defined]


SLIM = "from jaula.oci import fast_import; fast_import.install()\n"
STRUCT = """
import msgspec
class A(msgspec.Struct):
    a: int = msgspec.field(name="b", default=3)
print(msgspec.json.decode(b'{"b": 5}', type=A), msgspec.json.encode(msgspec.structs.replace(A())))
"""


HEAVY = ("uuid", "decimal", "re", "enum", "functools", "operator")


def test_structs_and_json_work_without_the_rest_of_msgspec() -> None:
    script = SLIM + STRUCT + f"print([name for name in {HEAVY} if name in sys.modules])"
    assert python(script) == "A(a=5) b'{\"b\":3}'\n[]"


FIELDS = """
import msgspec
from collections.abc import Mapping
class A(msgspec.Struct):
    a: "int | None" = 1
    b: Mapping[str, tuple[int, ...]] = {}
class B(A):
    a: str
    c: "A" = msgspec.field(default_factory=A)
    d: None = None
decode = msgspec.json.Decoder(B).decode
print(decode(b'{"a": "x", "b": {"k": [1, 2]}, "c": {"a": null}}'))
for text in (b'{"a": 1}', b'{"a": "", "b": {"k": 1}}', b'{"a": "", "d": 1}'):
    try:
        decode(text)
    except msgspec.ValidationError as error:
        print(error)
"""


def test_a_struct_has_the_fields_of_its_bases_and_types_in_strings() -> None:
    script = SLIM + FIELDS
    assert python(script).split("\n") == [
        "B(a='x', b={'k': (1, 2)}, c=A(a=None, b={}), d=None)",
        "Expected `str`, got `int` - at `$.a`",
        "Expected `array`, got `int` - at `$.b[...]`",
        "Expected `null`, got `int` - at `$.d`",
    ]


def test_other_modules_and_parts_of_modules_can_be_imported() -> None:
    script = (
        SLIM
        + STRUCT
        + (
            "import uuid, decimal, enum, collections, signal, typing, re\n"
            "print(decimal.Decimal('1.5'), collections.deque([1]), signal.Signals(9).name)\n"
            "print(typing.get_args(typing.Optional[int]), enum.Enum('E', 'A').A.name)\n"
            "from typing import NamedTuple\n"
            "import signal, typing, subprocess, shutil, traceback\n"
            "print(signal.SIGKILL.name, typing.NoReturn, NamedTuple('N', [('a', int)])(1))\n"
            "import msgspec.inspect\n"
            "print(type(msgspec.inspect.type_info(int)).__name__)\n"
            "try: signal.nothing\n"
            "except AttributeError as error: print(error)"
        )
    )
    assert python(script).split("\n")[1:] == [
        "1.5 deque([1]) SIGKILL",
        "(<class 'int'>, <class 'NoneType'>) A",
        "SIGKILL typing.NoReturn N(a=1)",
        "IntType",
        "module 'signal' has no attribute 'nothing'",
    ]


def test_a_msgspec_that_does_not_fit_is_loaded_whole() -> None:
    script = (
        "from jaula.oci import fast_import\nfast_import._JSON['Decoder'] = 'nowhere'\n"
        + SLIM
        + STRUCT
    )
    assert python(script + "print('uuid' in sys.modules)").endswith("True")

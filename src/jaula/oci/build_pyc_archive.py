"""Build the files that start ``jaula-runtime`` faster, for ``scripts/setup``.

These are the archive of compiled modules, the script that loads it, and the program that executes
the interpreter from a read-only clone (:mod:`jaula.oci.clone_exec`).

The archive holds the modules that the commands load, of this package, the standard library and
msgspec, and the paths of extension modules. Docstrings and annotations of functions are left out,
and with ``-X no_debug_ranges`` the columns of source lines. That halves the size.

Each command is imported in a new interpreter, which reports the modules in the order in which their
execution ended: a module follows those that it imports. A module of a package that is being
executed itself is not in that order, and is imported as usual.
"""

from __future__ import annotations

import marshal
import os
import subprocess
import sys
from _frozen_importlib_external import MAGIC_NUMBER

from jaula.oci import clone_exec, fast_import, pyc_archive
from jaula.oci.runtime_entry import CONTAINER_COMMANDS
from jaula.oci.runtime_main import COMMANDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import CodeType, ModuleType

_V2 = os.path.exists("/sys/fs/cgroup/cgroup.controllers")
_CGROUPS = ("jaula.cgroups.v2.driver_v2",) if _V2 else ("jaula.cgroups.v1.driver_v1",)
_CREATE = (*_CGROUPS, "jaula.security.seccomp.seccomp_filter")
COMMAND_MODULES = {
    "create": _CREATE,
    "run": (*_CREATE, "jaula.oci.foreground"),
    "exec": (*_CREATE, "jaula.oci.foreground"),
}
"""Modules that a command usually imports lazily, by command."""
OTHER_MODULES = (
    "jaula.cgroups.v1.driver_v1",
    "jaula.cgroups.v2.driver_v2",
    "jaula.runtime.init.oci_hooks",
    "jaula.runtime.init.enter_landlock",
)
"""Modules that are imported lazily, and only sometimes."""
_RECORD = """
import sys
sys.path[:0] = sys.argv[1:3]
from _frozen_importlib_external import SourceFileLoader
plain = SourceFileLoader.exec_module
def exec_module(self, module):
    plain(self, module)
    name = module.__name__
    parent = name.rpartition(".")[0]
    if not parent or parent in order:
        order[name] = None
order = {}
SourceFileLoader.exec_module = exec_module
{prepare}
for name in sys.argv[3:]:
    __import__(name)
if "msgspec" not in sys.modules:
    order.pop("jaula.oci.fast_import", None)
print(*order)
"""
_IN_PART = """
sys.modules["typing_extensions"] = None
from jaula.oci import fast_import
fast_import.install()
"""


_staged = ""


def main(staged: str = "") -> None:
    """Load what the commands load, and write the files.

    ``staged`` is the directory that is ``/`` on the machine where a package is installed. The files
    name their modules without it.

    :raises OSError: when a file cannot be written.
    """
    install_below(staged)
    sys.modules["typing_extensions"] = None  # type: ignore[assignment] # as the commands do
    fast_import.install()
    order = {
        command: record_order(command_modules(command), prepare=_IN_PART) for command in COMMANDS
    }
    names = {name for names in order.values() for name in names}
    for name in (*sorted(names), *OTHER_MODULES):
        __import__(name)
    path = pyc_archive.archive_path()
    write(path, sorted(sys.modules), order)
    directory = os.path.dirname(path)
    write_script(f"{directory}/{pyc_archive.SCRIPT}")
    if os.uname().machine == clone_exec.MACHINE:
        _write(f"{directory}/{clone_exec.NAME}", clone_exec.program(), 0o755)


def install_below(staged: str) -> None:
    """Name the modules of files written from now on without the directory ``staged``."""
    global _staged
    _staged = staged


def command_modules(command: str) -> tuple[str, ...]:
    """Return the modules that a command of ``jaula-runtime`` imports by itself, in their order."""
    protection = ("jaula.oci.cloned_binary",) if command in CONTAINER_COMMANDS else ()
    return (
        "jaula.oci.runtime_entry",
        *protection,
        "jaula.oci.runtime_main",
        f"jaula.oci.commands.oci_{command}",
        *COMMAND_MODULES.get(command, ()),
    )


def record_order(names: Sequence[str], *, prepare: str = "") -> tuple[str, ...]:
    """Return modules and those that they import, in the order in which their execution ends.

    They are imported in a new interpreter, which executes ``prepare`` before.
    """
    return tuple(output(_RECORD.replace("{prepare}", prepare), names).split())


def output(script: str, names: Sequence[str]) -> str:
    """Return what a script prints in a new interpreter; it gets this path of modules and names."""
    start = [sys.executable, "-I", "-S", "-X", "utf8", "-c", script, *sys.path[:2]]
    return subprocess.run([*start, *names], check=True, stdout=subprocess.PIPE).stdout.decode()


def write(path: str, names: list[str], order: dict[str, tuple[str, ...]]) -> None:
    """Write an archive of the loaded modules ``names`` that have a file.

    ``order`` has the modules of each command. Those of the same commands are one group.
    """
    write_files(
        path, {name: file for name in names if (file := _file(sys.modules[name], name))}, order
    )


def write_files(path: str, files: dict[str, str], order: dict[str, tuple[str, ...]]) -> None:
    """Write an archive of modules by their files; the rest is as with :func:`write`."""
    members: dict[object, list[str]] = {}
    for name, file in files.items():
        if file.endswith(".py"):
            users = tuple(command for command in order if name in order[command])
            members.setdefault(users or name, []).append(name)
    index: dict[str, tuple[object, ...]] = {}
    bounds = []
    data = bytearray()
    for group, group_names in enumerate(members.values()):
        start = len(data)
        data += marshal.dumps([compile_stripped(files[name]) for name in group_names])
        bounds.append((start, len(data)))
        for position, name in enumerate(group_names):
            index[name] = (*_file_facts(files[name]), group, position)
    for name in sorted(files.keys() - index.keys()):
        index[name] = (*_file_facts(files[name]), -1, 0)
    archived = {
        command: tuple(name for name in modules if name in index)
        for command, modules in order.items()
    }
    index_data = marshal.dumps((index, bounds, archived))
    _write(path, MAGIC_NUMBER + len(index_data).to_bytes(4, "little") + index_data + data)


def _file(module: ModuleType, name: str) -> str:
    """Return the file of a module in source form, or of an extension module; "" for others."""
    spec = getattr(module, "__spec__", None)
    if spec is None or spec.name != name or not (spec.origin or "").endswith((".py", ".so")):
        return ""
    return str(spec.origin)


def _file_facts(file: str) -> tuple[object, ...]:
    st = os.stat(file)
    directory, _, last = file.rpartition("/")
    path = [_installed(directory)] if last == "__init__.py" else None
    return _installed(file), st.st_mtime_ns, st.st_size, path


def _installed(path: str) -> str:
    """Return the path of a file where the package is installed."""
    return path.removeprefix(_staged)


def write_script(path: str) -> None:
    """Write the compiled form of :mod:`jaula.oci.pyc_archive`, for a launcher to run."""
    code = marshal.dumps(compile_stripped(pyc_archive.__file__))
    _write(path, MAGIC_NUMBER + bytes(12) + code)


def _write(path: str, data: bytes, mode: int = 0o644) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    temporary = f"{path}.{os.getpid()}"
    with open(temporary, "wb") as file:
        file.write(data)
        os.fchmod(file.fileno(), mode)
    os.rename(temporary, path)


def compile_stripped(file: str) -> CodeType:
    """Compile a module without docstrings, annotations of functions and imports of __future__."""
    import __future__

    import ast

    with open(file, "rb") as source:
        tree = ast.parse(source.read(), file)
    flags = 0
    for statement in tree.body[:]:
        if isinstance(statement, ast.ImportFrom) and statement.module == "__future__":
            tree.body.remove(statement)
            for name in statement.names:
                flags |= getattr(__future__, name.name).compiler_flag
    for node in ast.walk(tree):
        if isinstance(node, ast.arg):
            node.annotation = None
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.returns = None
        elif not isinstance(node, ast.Module | ast.ClassDef):
            continue
        if ast.get_docstring(node, clean=False) is None:
            continue
        if len(node.body) > 1 or isinstance(node, ast.Module):
            del node.body[0]
        else:
            node.body[0] = ast.copy_location(ast.Pass(), node.body[0])
    code: CodeType = compile(tree, _installed(file), "exec", flags, dont_inherit=True)
    return code

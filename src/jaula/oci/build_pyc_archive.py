"""Build the archive of compiled modules, for ``scripts/setup``.

It holds the modules that the commands load: ours, the standard library's and msgspec's. Docstrings
and annotations of functions are left out, and with ``-X no_debug_ranges`` the columns of source
lines. That halves the size.
"""

from __future__ import annotations

import marshal
import os
import sys
from _frozen_importlib_external import MAGIC_NUMBER

from jaula.oci import commands, fast_import, pyc_archive

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType

LAZY_MODULES = (
    "jaula.oci.main",
    "jaula.oci.foreground",
    "jaula.cgroups.v1.driver",
    "jaula.cgroups.v2.driver",
    "jaula.security.seccomp.seccomp",
    "jaula.runtime.init.hooks",
    "jaula.runtime.init.landlock",
)
"""Modules that are imported lazily, besides the commands."""


def main() -> None:
    """Load what the commands load, and write it to the archive.

    :raises OSError: when the archive cannot be written.
    """
    sys.modules["typing_extensions"] = None  # type: ignore[assignment] # as the commands do
    sys.meta_path.insert(0, fast_import.Finder())
    for file in os.listdir(commands.__path__[0]):
        if file.endswith(".py"):
            __import__(f"{commands.__name__}.{file.removesuffix('.py')}")
    for name in LAZY_MODULES:
        __import__(name)
    write(pyc_archive.archive_path(), sorted(sys.modules))


def write(path: str, names: list[str]) -> None:
    """Write an archive of the loaded modules ``names`` that have a source file."""
    index: dict[str, tuple[object, ...]] = {}
    code = bytearray()
    for name in names:
        spec = getattr(sys.modules[name], "__spec__", None)
        if spec is None or spec.name != name or not (spec.origin or "").endswith(".py"):
            continue
        package_path = spec.submodule_search_locations
        st = os.stat(spec.origin)
        start = len(code)
        code += marshal.dumps(compile_stripped(spec.origin))
        index[name] = (
            spec.origin,
            st.st_mtime_ns,
            st.st_size,
            None if package_path is None else list(package_path),
            start,
            len(code),
        )
    index_data = marshal.dumps(index)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    temporary = f"{path}.{os.getpid()}"
    with open(temporary, "wb") as file:
        file.write(MAGIC_NUMBER + len(index_data).to_bytes(4, "little") + index_data + code)
    os.rename(temporary, path)


def compile_stripped(file: str) -> CodeType:
    """Compile a module without docstrings and annotations of functions."""
    import ast

    with open(file, "rb") as source:
        tree = ast.parse(source.read(), file)
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
    code: CodeType = compile(tree, file, "exec", dont_inherit=True)
    return code

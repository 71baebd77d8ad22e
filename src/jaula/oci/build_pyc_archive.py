"""Writing the archive of compiled modules, for ``scripts/setup``.

It holds whatever the commands load: modules of ours, of the standard library and of msgspec. Texts
that only document and the types of functions are left out, and with ``-X no_debug_ranges`` the
columns of source lines; half of the bytes are left.
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

LATER = (
    "jaula.oci.main",
    "jaula.oci.foreground",
    "jaula.cgroups.v1.driver",
    "jaula.cgroups.v2.driver",
    "jaula.security.seccomp.seccomp",
    "jaula.runtime.init.hooks",
    "jaula.runtime.init.landlock",
)
"""What is imported only once it is needed, besides the commands."""


def main() -> None:
    """Load what the commands load, and write the archive of it. Raises ``OSError``."""
    sys.modules["typing_extensions"] = None  # type: ignore[assignment] # as the commands do
    sys.meta_path.insert(0, fast_import.Finder())
    for file in os.listdir(commands.__path__[0]):
        if file.endswith(".py"):
            __import__(f"{commands.__name__}.{file.removesuffix('.py')}")
    for name in LATER:
        __import__(name)
    write(pyc_archive.place(), sorted(sys.modules))


def write(path: str, names: list[str]) -> None:
    """Write an archive of those of the loaded modules ``names`` that have a source."""
    index: dict[str, tuple[object, ...]] = {}
    codes = bytearray()
    for name in names:
        spec = getattr(sys.modules[name], "__spec__", None)
        if spec is None or spec.name != name or not (spec.origin or "").endswith(".py"):
            continue
        places = spec.submodule_search_locations
        facts = os.stat(spec.origin)
        start = len(codes)
        codes += marshal.dumps(compiled(spec.origin))
        index[name] = (
            spec.origin,
            facts.st_mtime_ns,
            facts.st_size,
            None if places is None else list(places),
            start,
            len(codes),
        )
    head = marshal.dumps(index)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    temporary = f"{path}.{os.getpid()}"
    with open(temporary, "wb") as file:
        file.write(MAGIC_NUMBER + len(head).to_bytes(4, "little") + head + codes)
    os.rename(temporary, path)


def compiled(file: str) -> CodeType:
    """A module's code, without documentation and without its functions' annotations."""
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

"""Entry points of ``jaula-runtime``: of the launcher's scripts, and of an installed package."""

from __future__ import annotations

import gc
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import NoReturn


CONTAINER_COMMANDS = frozenset({"create", "run", "exec"})
"""Commands that put a process into a container."""


def main() -> NoReturn:
    """Run the command of ``sys.argv``; the script of an installed package calls this."""
    start(None)


def start(load_modules: Callable[[Sequence[str]], None] | None) -> NoReturn:
    """Run the command of ``sys.argv``; ``load_modules`` loads those of the command's words.

    The first step protects the interpreter's file from containers, since that may start the
    interpreter again. msgspec works without typing_extensions, and skipping it saves 12 ms.
    """
    argv = sys.argv[1:]
    if not CONTAINER_COMMANDS.isdisjoint(argv):
        from jaula.oci import cloned_binary

        cloned_binary.ensure(argv)
    gc.disable()  # imported objects are never garbage, so a collection would free nothing
    sys.modules["typing_extensions"] = None  # type: ignore[assignment]
    if load_modules is not None:
        load_modules(argv)
    else:
        from jaula.oci import fast_import

        fast_import.install()
    from jaula.oci.runtime_main import main

    main()

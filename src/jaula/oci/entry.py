"""Entry point of the scripts that the launcher runs."""

from __future__ import annotations

import gc
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import NoReturn


def start(load_modules: Callable[[Sequence[str]], None] | None) -> NoReturn:
    """Run the command of ``sys.argv``; ``load_modules`` loads those of the command's words.

    The first step protects the interpreter's file from containers, since that may start the
    interpreter again. msgspec works without typing_extensions, and skipping it saves 12 ms. Only
    the used part of msgspec is loaded.
    """
    from jaula.oci import cloned_binary

    cloned_binary.ensure(sys.argv[1:])
    gc.disable()  # imported objects are never garbage, so a collection would free nothing
    sys.modules["typing_extensions"] = None  # type: ignore[assignment]
    from jaula.oci import fast_import

    fast_import.install()
    if load_modules is not None:
        load_modules(sys.argv[1:])
    from jaula.oci.main import main

    main()

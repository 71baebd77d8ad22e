"""The document names every module that is needed before the first paint.

A module without a preload is requested when the modules that import it have arrived.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

from jaula.features.web.static_files import DIRECTORY

_IMPORT = re.compile(r"^(?:import|export)\b[^;]*?\bfrom '(\.[^']+)';", re.MULTILINE)
_PRELOAD = re.compile(r'<link rel="modulepreload" href="/static/([^"]+)">')


def imported(directory: Path, name: str) -> Iterator[str]:
    """Yield the modules of a static import; a third-party module has none."""
    if not name.startswith("vendor/"):
        for found in _IMPORT.findall((directory / name).read_text()):
            yield posixpath.normpath(posixpath.join(posixpath.dirname(name), found))


def test_each_module_that_the_shell_imports_is_preloaded_once() -> None:
    needed = {"app.js"}
    pending = ["app.js"]
    while pending:
        for name in imported(DIRECTORY, pending.pop()):
            if name not in needed:
                needed.add(name)
                pending.append(name)
    assert {"ui.js", "i18n/es.js", "vendor/preact.js"} <= needed
    preloaded = _PRELOAD.findall((DIRECTORY / "index.html").read_text())
    assert sorted(preloaded) == sorted(needed - {"app.js"})

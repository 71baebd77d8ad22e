"""The programs in ``scripts``, loaded as modules."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

from harness.engine import PROJECT


def load_script(name: str) -> ModuleType:
    """Return a program as a module; it may import others of its directory."""
    sys.path.insert(0, str(PROJECT / "scripts"))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(PROJECT / "scripts"))

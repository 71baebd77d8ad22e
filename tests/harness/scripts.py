"""The programs in ``scripts``, loaded as modules."""

from __future__ import annotations

import importlib
import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from types import ModuleType

from harness.engine import PROJECT


def load_script(name: str) -> ModuleType:
    """Return a program as a module; it may import others of its directory."""
    sys.path.insert(0, str(PROJECT / "scripts"))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(PROJECT / "scripts"))


def load_program(name: str) -> ModuleType:
    """Return a program whose file has no extension as a module."""
    loader = SourceFileLoader(f"scripts_{name.replace('-', '_')}", str(PROJECT / "scripts" / name))
    specification = spec_from_loader(loader.name, loader)
    assert specification is not None
    module = module_from_spec(specification)
    loader.exec_module(module)
    return module

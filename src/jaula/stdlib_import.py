"""Import modules of the standard library without the modules that they hardly need.

Facts about asyncio: three of its modules import ``ssl``, which maps OpenSSL into the process: 6 MB
of resident memory. They work without it, as in an interpreter that was built without OpenSSL. Then
their variable ``ssl`` is None, and ``sslproto`` has no names of its errors.

Facts about ``inspect``, which asyncio and ``dataclasses`` import: it uses ``ast`` and ``tokenize``
to read source files. They take more than 1 MB, most of it for the types of syntax trees. The table
of aliases in ``locale`` is of use to ``subprocess`` only without UTF-8 mode.

Facts about ``shutil``: it imports ``bz2`` and ``lzma`` for archives only, and works without them.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

_RARELY_USED = ("ast", "locale", "tokenize")
_OF_SHUTIL = ("bz2", "lzma")


def import_asyncio() -> None:
    """Import asyncio without these modules, unless one of them is loaded."""
    if "asyncio" in sys.modules or "ssl" in sys.modules:
        return
    for name in _RARELY_USED:
        if name not in sys.modules:
            sys.modules[name] = _stand_in(name)
    _import_without("asyncio", "ssl")


def import_shutil() -> None:
    """Import shutil without formats of compression, unless it is loaded."""
    if "shutil" not in sys.modules:
        _import_without("shutil", *(name for name in _OF_SHUTIL if name not in sys.modules))


def _import_without(name: str, *absent: str) -> None:
    sys.modules.update(dict.fromkeys(absent))  # type: ignore[arg-type]
    try:
        importlib.import_module(name)
    finally:
        for each in absent:
            del sys.modules[each]


def enable_tls() -> None:
    """Let connections of asyncio use TLS from now on."""
    import ssl
    from asyncio import base_events, selector_events, sslproto

    for module in (base_events, selector_events):
        module.ssl = ssl  # type: ignore[attr-defined,unused-ignore]
    if not hasattr(sslproto, "SSLAgainErrors"):
        importlib.reload(sslproto)


def _stand_in(name: str) -> ModuleType:
    """Return a module that loads the one of this name when an attribute of it is used."""
    module = ModuleType(name)

    def load(attribute: str) -> Any:
        if attribute.startswith("__"):  # the import system looks for __path__
            raise AttributeError(f"module {name!r} has no attribute {attribute!r}")
        if sys.modules.get(name) is module:
            del sys.modules[name]
        return getattr(importlib.import_module(name), attribute)

    module.__getattr__ = load  # type: ignore[method-assign]
    return module

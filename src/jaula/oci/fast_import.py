"""msgspec with what this command uses of it: structs and JSON.

msgspec's package loads all of its formats, JSON schemas and the tools for them, and its core looks
up the types of ``uuid``, ``decimal`` and ``re`` in case a document has fields of these: 5 of its
8 ms. No document here has such a field, so the package is made of the core alone, and the core
finds stand-ins for these modules while it is loaded. Whoever imports them afterwards gets the real
ones, and a pattern that is compiled after all is compiled by them.

Without this hook ``run`` takes 4 ms more: 55.0 ms in place of 51.0, medians of 100 paired runs with
the archive of compiled modules. Commands that load no msgspec (``state``, ``--version``) do not
differ. Remove the hook if that falls below 3 ms.

Where anything here does not fit the msgspec that is installed, that is loaded as it is.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

_JSON = {
    "Decoder": "JSONDecoder",
    "Encoder": "JSONEncoder",
    "decode": "json_decode",
    "encode": "json_encode",
    "format": "json_format",
}


class Finder:
    """Finds msgspec; a member of ``sys.meta_path``."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """See importlib.abc.MetaPathFinder."""
        if name != "msgspec":
            return None
        for finder in sys.meta_path:
            found = finder.find_spec(name, None) if finder is not self else None
            if found is not None:
                found.loader = Loader(found.loader)  # type: ignore[assignment]
                return found
        return None


class Loader:
    """Fills the package, in place of ``whole``, which runs all of its code."""

    def __init__(self, whole: Any) -> None:
        self._whole = whole

    def create_module(self, spec: ModuleSpec) -> None:
        """As the interpreter does it."""

    def exec_module(self, module: ModuleType) -> None:
        """Make the core and JSON of the package."""
        try:
            _fill(module)
        except (ImportError, AttributeError):
            for name in [name for name in sys.modules if name.startswith("msgspec.")]:
                del sys.modules[name]
            self._whole.exec_module(module)


def _fill(package: Any) -> None:
    stand_ins = {
        "uuid": _module("uuid", UUID=_UUID, SafeUUID=_SafeUUID),
        "decimal": _module("decimal", Decimal=_Decimal),
        "re": _module("re", compile=_compile),
    }
    stand_ins = {name: module for name, module in stand_ins.items() if name not in sys.modules}
    sys.modules.update(stand_ins)
    try:
        from msgspec import _core
    finally:
        for name in stand_ins:
            del sys.modules[name]
    for name in dir(_core):
        if name[0] != "_":
            setattr(package, name, getattr(_core, name))
    package.field = _field
    json = _module("msgspec.json", **{name: getattr(_core, inner) for name, inner in _JSON.items()})
    package.json = sys.modules["msgspec.json"] = json
    from msgspec import structs

    package.structs = structs


class _UUID:
    """No value is one."""


class _SafeUUID:
    unknown = None


class _Decimal:
    """No value is one."""


def _module(name: str, **content: object) -> Any:
    module: ModuleType = type(sys)(name)
    module.__dict__.update(content)
    return module


def _compile(pattern: str) -> object:
    import re

    return re.compile(pattern)


def _field(**options: Any) -> Any:
    from msgspec import Field  # type: ignore[attr-defined]

    return Field(**options)

"""Modules of which this command uses a part: msgspec, typing, collections and signal.

msgspec's package loads all of its formats, JSON schemas and the tools for them. Its core looks up
the types of ``uuid``, ``decimal``, ``enum`` and ``re`` in case a document has fields of these. No
document here has such a field, so the package is made of the core alone. The core finds stand-ins
of these modules while it is loaded, and an import gets the real ones afterwards. A pattern that is
compiled after all is compiled by ``re``. The core gets the fields of a struct from a function in
Python. That of msgspec handles generic classes too and needs ``typing``; here it is a shorter one.

``typing`` is 110 KB of code and imports five modules, but at run time its names are not used. Its
stand-in has those that are imported for annotations. ``signal`` only adds enumerations to its core
``_signal``, and of ``collections`` only the abstract classes are used. An attribute that a stand-in
does not have is that of the real module, which replaces the stand-in at that moment. Fields of a
struct must not have types of ``typing`` then.

Without this hook the modules of ``run`` take 9 to 12 ms more of processor time, see
docs/performance.md. A msgspec that does not fit these assumptions is loaded whole.
"""

from __future__ import annotations

import sys
from _frozen_importlib import ModuleSpec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType
    from typing import Any, NoReturn

_JSON = {
    "Decoder": "JSONDecoder",
    "Encoder": "JSONEncoder",
    "decode": "json_decode",
    "encode": "json_encode",
    "format": "json_format",
}


def install() -> None:
    """Use the parts from now on, in place of the modules that are not imported yet."""
    sys.meta_path.insert(0, Finder())


def install_msgspec() -> None:
    """Use msgspec's core from now on, if it is not imported yet; other modules stay whole."""
    _STAND_INS.clear()
    install()


class Finder:
    """Finds msgspec and the stand-ins; a member of ``sys.meta_path``."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """See importlib.abc.MetaPathFinder."""
        if name in _STAND_INS:
            return ModuleSpec(name, StandInLoader(), origin="stand-in")  # type: ignore[arg-type]
        if name != "msgspec":
            return None
        for finder in sys.meta_path:
            found = finder.find_spec(name, None) if finder is not self else None
            if found is not None:
                found.loader = Loader(found.loader)  # type: ignore[assignment]
                return found
        return None


class StandInLoader:
    """Loads a stand-in of a module."""

    def create_module(self, spec: ModuleSpec) -> None:
        """Use the interpreter's default."""

    def exec_module(self, module: ModuleType) -> None:
        """Set the attributes, and load the real module for any other."""
        name = module.__name__

        def missing(attribute: str) -> Any:
            if attribute.startswith("__"):
                raise AttributeError(f"module {name!r} has no attribute {attribute!r}")
            if _STAND_INS.pop(name, None) is not None:
                del sys.modules[name]
            return getattr(__import__(name), attribute)

        module.__dict__.update(_STAND_INS[name](), __getattr__=missing)


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
        "enum": _module("enum", EnumMeta=_EnumMeta),
        "types": _module("types", UnionType=type(int | str)),
    }
    stand_ins = {name: module for name, module in stand_ins.items() if name not in sys.modules}
    if "typing" in _STAND_INS and sys.version_info < (3, 14):  # annotations are lazy from 3.14 on
        sys.modules["msgspec._utils"] = _utilities()
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


def _utilities() -> Any:
    """Return what the core needs of ``msgspec._utils`` for structs without type parameters."""
    import _collections_abc as abc

    lists = (abc.Collection, abc.MutableSequence, abc.Sequence)
    concrete: dict[object, type] = {kind: kind for kind in (list, tuple, set, frozenset, dict)}
    concrete |= dict.fromkeys(lists, list) | dict.fromkeys((abc.MutableMapping, abc.Mapping), dict)
    concrete |= dict.fromkeys((abc.MutableSet, abc.Set), set)
    return _module(
        "msgspec._utils",
        _CONCRETE_TYPES=concrete,
        _AnnotatedAlias=_AnnotatedAlias,
        get_class_annotations=_class_annotations,
        **dict.fromkeys(
            (
                "call_annotate_forwardref",
                "convert_generic_alias",
                "get_dataclass_info",
                "get_type_hints",
                "get_typeddict_info",
                "rebuild",
            ),
            _refuse,
        ),
    )


def _class_annotations(kind: type) -> dict[str, object]:
    """Return the types of the fields of a struct."""
    hints: dict[str, object] = {}
    for base in kind.__mro__:
        for name, value in getattr(base, "__annotations__", {}).items():
            if name in hints:
                continue
            if isinstance(value, str):
                value = eval(value, sys.modules[base.__module__].__dict__)  # noqa: S307 - our source
            hints[name] = type(None) if value is None else value
    return hints


def _refuse(*_: object) -> NoReturn:
    raise TypeError("jaula-runtime decodes structs only")


def _typing() -> dict[str, object]:
    """Return the names that are imported from ``typing``, and those that msgspec looks up."""
    import _typing as core  # type: ignore[import-not-found]

    forms = ("Any", "ClassVar", "Final", "Literal", "NoReturn", "Self", "Union", "_GenericAlias")
    return {
        **{name: type(name, (), {}) for name in forms},
        "Generic": core.Generic,
        "Protocol": object,
        "TYPE_CHECKING": False,
        "TypeAliasType": core.TypeAliasType,
        "TypeVar": core.TypeVar,
        "cast": lambda kind, value: value,
    }


def _signal() -> dict[str, object]:
    import _signal as core  # type: ignore[import-not-found]

    return {name: value for name, value in core.__dict__.items() if name[:2] != "__"}


def _collections() -> dict[str, object]:
    import _collections_abc

    sys.modules["collections.abc"] = _collections_abc
    return {"abc": _collections_abc}


_STAND_INS: dict[str, Callable[[], dict[str, object]]] = {
    "collections": _collections,
    "signal": _signal,
    "typing": _typing,
}
"""Stand-ins by the name of the module. On Python 3.11, typing has no core of its own."""
if sys.version_info < (3, 12):
    del _STAND_INS["typing"]


class _AnnotatedAlias:
    """No type is one."""


class _EnumMeta(type):
    """No type has it."""


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

"""YAML with Kubernetes' objects, read with limits.

Source: YAML 1.2, Kubernetes API conventions. Facts about YAML: an alias repeats what its anchor
holds, so nine lines can mean billions of values, and one long text can be repeated. Each value and
its text count once more for each alias here, and nesting has an end, before anything is built from
it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

MAX_SIZE = 1 << 20  # bytes of a file
_MAX_VALUES = 50_000
_MAX_TEXT = 4 << 20  # characters of all values, with those that aliases repeat
_MAX_DEPTH = 48
_MAX_MESSAGE = 500  # characters of an error
_NULL = ("", "~", "null", "Null", "NULL")
_BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False,
             "FALSE": False}  # fmt: skip


class InvalidDocument(Exception):
    """YAML or an object that cannot be used; the text says where and why, in few characters."""

    def __init__(self, text: str) -> None:
        super().__init__(text if len(text) <= _MAX_MESSAGE else text[:_MAX_MESSAGE] + "...")


def load(text: bytes) -> list[dict[str, Any]]:
    """Return the objects of a file; those of a ``List`` one by one.

    :raises InvalidDocument: when it is not YAML, too large, or no object.
    """
    if len(text) > MAX_SIZE:
        raise InvalidDocument(f"it is larger than {MAX_SIZE} bytes")
    result: list[dict[str, Any]] = []
    for number, document in enumerate(_Reader().read(text), 1):
        if document is None:
            continue
        if not isinstance(document, dict):
            raise InvalidDocument(f"document {number} is not an object of Kubernetes")
        result += _objects(document, number)
    if not result:
        raise InvalidDocument("it has no object")
    return result


def _objects(document: dict[str, Any], number: int) -> list[dict[str, Any]]:
    if not isinstance(document.get("kind"), str) or not document["kind"]:
        raise InvalidDocument(f"document {number} has no kind")
    if document["kind"] != "List":
        return [document]
    items = document.get("items") or []
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise InvalidDocument(f"document {number}: items is not a list of objects")
    return [entry for item in items for entry in _objects(item, number)]


class _Size(NamedTuple):
    """The number of values in a value, itself counted, and the characters of their texts."""

    values: int
    text: int


class _Reader:
    """Builds values from the events of the parser, without recursion."""

    def __init__(self) -> None:
        self._left = _Size(_MAX_VALUES, _MAX_TEXT)
        self._anchors: dict[str, tuple[Any, _Size]] = {}

    def read(self, text: bytes) -> list[Any]:
        import yaml

        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        documents: list[Any] = []
        stack: list[_Collection] = []
        try:
            for event in yaml.parse(text, Loader=loader):
                if isinstance(event, yaml.DocumentStartEvent):
                    self._anchors.clear()
                elif isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
                    if len(stack) >= _MAX_DEPTH:
                        raise InvalidDocument(f"{_line(event)}: more than {_MAX_DEPTH} levels")
                    is_mapping = isinstance(event, yaml.MappingStartEvent)
                    stack.append(_Collection({} if is_mapping else [], event.anchor, self._left))
                elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
                    ended = stack.pop()
                    if ended.anchor:
                        self._anchors[ended.anchor] = (ended.value, self._size_since(ended.left))
                    self._put(stack, documents, ended.value, _Size(1, 0), event)
                elif isinstance(event, yaml.ScalarEvent):
                    value, size = _scalar(event), _Size(1, len(event.value))
                    if event.anchor:
                        self._anchors[event.anchor] = (value, size)
                    self._put(stack, documents, value, size, event)
                elif isinstance(event, yaml.AliasEvent):
                    if event.anchor not in self._anchors:
                        raise InvalidDocument(
                            f"{_line(event)}: the anchor {event.anchor[:40]!r} does not exist"
                        )
                    value, size = self._anchors[event.anchor]
                    self._put(stack, documents, value, size, event)
        except yaml.YAMLError as error:
            raise InvalidDocument(" ".join(str(error).split())) from None
        except UnicodeDecodeError as error:
            raise InvalidDocument(f"it is not text: {error}") from None
        return documents

    def _size_since(self, before: _Size) -> _Size:
        return _Size(before.values - self._left.values + 1, before.text - self._left.text)

    def _put(
        self, stack: list[_Collection], documents: list[Any], value: Any, size: _Size, event: Any
    ) -> None:
        self._left = _Size(self._left.values - size.values, self._left.text - size.text)
        if self._left.values < 0:
            raise InvalidDocument(f"{_line(event)}: it has more than {_MAX_VALUES} values")
        if self._left.text < 0:
            raise InvalidDocument(f"{_line(event)}: it has more than {_MAX_TEXT} characters")
        if not stack:
            documents.append(value)
        elif problem := stack[-1].add(value):
            raise InvalidDocument(f"{_line(event)}: {problem}")


class _Collection:
    """A mapping or sequence that is being read. ``left`` is what was left when it began."""

    def __init__(self, value: dict[str, Any] | list[Any], anchor: str | None, left: _Size) -> None:
        self.value = value
        self.anchor = anchor
        self.left = left
        self._key: str | None = None

    def add(self, value: Any) -> str:
        """Add a value, in a mapping by turns a key; return what is wrong with it."""
        if isinstance(self.value, list):
            self.value.append(value)
        elif self._key is None:
            if isinstance(value, dict | list):
                return "a key is not a word"
            self._key = _key_text(value)
            if self._key in self.value:
                return f"the key {self._key[:40]!r} occurs twice"
        else:
            self.value[self._key] = value
            self._key = None
        return ""


def _key_text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)


def _line(event: Any) -> str:
    return f"line {event.start_mark.line + 1}"


def _scalar(event: Any) -> Any:
    """Return the value of a scalar: only a plain one may be a number, a boolean or null."""
    text = str(event.value)
    if not event.implicit[0] or event.style:
        return text
    if text in _NULL:
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    digits = text[1:] if text[0] in "+-" else text
    if digits.isascii() and digits.isdigit() and len(digits) < 19:
        if digits[0] != "0" or digits == "0":
            return int(text)
        return int(text, 8) if all(digit < "8" for digit in digits) else text
    if digits.startswith("0x") and len(digits) < 19:
        try:
            return int(text, 16)
        except ValueError:
            return text
    if digits[:1].isdigit() and any(char in digits for char in ".eE"):
        try:
            return float(text) if len(text) < 40 else text
        except ValueError:
            return text
    return text

"""A value in an object of Kubernetes, with the path to it: for errors, and for what is not used."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from jaula.features.kubernetes.kube.kube_documents import InvalidDocument


class Node:
    """A mapping at ``path``. It knows which of its members were read, also by several readers."""

    def __init__(self, value: Any, path: str) -> None:
        if value is None:
            value = {}
        if not isinstance(value, dict):
            raise InvalidDocument(f"{path} is not an object")
        self.value: dict[str, Any] = value
        self.path = path
        self._used: set[str] = set()
        self._children: dict[str, Node] = {}  # by their paths

    def get(self, key: str) -> Any:
        """Return a member as it is, None if it is absent."""
        self._used.add(key)
        return self.value.get(key)

    def has(self, key: str) -> bool:
        return self.value.get(key) is not None

    def node(self, key: str) -> Node:
        """Return a member that is an object, an empty one if it is absent.

        :raises InvalidDocument: when it is something else.
        """
        return self._child(self.get(key), f"{self.path}.{key}")

    def _child(self, value: Any, path: str) -> Node:
        if path not in self._children:
            self._children[path] = Node(value, path)
        return self._children[path]

    def nodes(self, key: str) -> Iterator[Node]:
        """Return the objects of a list.

        :raises InvalidDocument: when it is something else.
        """
        for number, value in enumerate(self._list(key)):
            yield self._child(value, f"{self.path}.{key}[{number}]")

    def text(self, key: str, default: str = "") -> str:
        """Return a text.

        :raises InvalidDocument: when it is something else.
        """
        value = self.get(key)
        if value is None:
            return default
        if not isinstance(value, str):
            raise InvalidDocument(f"{self.path}.{key} is not a text: {value!r}; quotes make it one")
        if "\0" in value:
            raise InvalidDocument(f"{self.path}.{key} has a byte 0")
        return value

    def number(self, key: str, default: int = 0) -> int:
        """Return a whole number.

        :raises InvalidDocument: when it is something else.
        """
        value = self.get(key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int):
            raise InvalidDocument(f"{self.path}.{key} is not a whole number: {value!r}")
        return value

    def on(self, key: str, default: bool = False) -> bool:
        """Return a boolean.

        :raises InvalidDocument: when it is something else.
        """
        value = self.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise InvalidDocument(f"{self.path}.{key} is not true or false: {value!r}")
        return value

    def texts(self, key: str) -> list[str]:
        """Return a list of texts.

        :raises InvalidDocument: when it is something else.
        """
        values = self._list(key)
        for value in values:
            if not isinstance(value, str) or "\0" in value:
                raise InvalidDocument(f"{self.path}.{key} has {value!r}, which is not a text")
        return values

    def _list(self, key: str) -> list[Any]:
        value = self.get(key)
        if value is None:
            return []
        if not isinstance(value, list):
            raise InvalidDocument(f"{self.path}.{key} is not a list")
        return value

    def pairs(self, key: str) -> dict[str, str]:
        """Return a mapping of texts, such as labels.

        :raises InvalidDocument: when it is something else.
        """
        child = Node(self.get(key), f"{self.path}.{key}")
        return {name: child.text(name) for name in child.value}

    def required(self, key: str) -> str:
        """Return a text that may not be absent or empty.

        :raises InvalidDocument: when it is.
        """
        if not (value := self.text(key)):
            raise InvalidDocument(f"{self.path}.{key} is missing")
        return value

    def unused(self) -> Iterator[str]:
        """Return the paths of members that were not read."""
        for key in self.value:
            if key not in self._used:
                yield f"{self.path}.{key}"
        for child in self._children.values():
            yield from child.unused()

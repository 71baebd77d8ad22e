"""A unit file: sections with keys and comments, in their order.

Source: systemd.syntax(7). A section that occurs twice is one section. A line that ends with a
backslash continues on the next one; comments between are ignored.
"""

from __future__ import annotations

from jaula.features.quadlet import unit_words

MAX_SIZE = 1 << 20  # bytes of one file
_TRUE = ("1", "yes", "true", "on")
_COMMENT = ""  # the key of a comment or empty line


class InvalidUnit(Exception):
    """A unit file, or a value in it, that cannot be used."""


class UnitFile:
    """The sections of a unit file: each a list of pairs of key and value.

    ``name`` is the file's name, ``path`` its place, '' if it has none.
    """

    def __init__(self, name: str = "", path: str = "") -> None:
        self.name = name
        self.path = path
        self.sections: dict[str, list[tuple[str, str]]] = {}
        self._headers: dict[str, list[str]] = {}  # comments above a section
        self._pending: list[str] = []

    # -- reading ---------------------------------------------------------------------------------

    def read(self, text: str) -> None:
        """Append the sections of ``text``.

        :raises InvalidUnit: when a line is not a section, a key or a comment.
        """
        section: list[tuple[str, str]] | None = None
        started = ""
        lines = text.removesuffix("\n").split("\n")
        for number, raw in enumerate(lines, 1):
            line = raw.strip()
            if line == "" or line[0] in "#;":
                if not started:
                    self._pending.append(line)
                continue
            if line.endswith("\\") and number < len(lines):
                started += line[:-1]
                continue
            line, started = started + line.removesuffix("\\"), ""
            if line[:1] == "[" and line.rstrip().endswith("]"):
                section = self._section(line.rstrip()[1:-1], number)
                continue
            key, equals, value = line.partition("=")
            key = key.rstrip()
            if not equals or not key:
                raise InvalidUnit(
                    f"line {number}: {line[:80]!r} is not a key with a value, section or comment"
                )
            if section is None:
                raise InvalidUnit(f"line {number}: {key[:40]!r} is before the first section")
            if "\0" in line:
                raise InvalidUnit(f"line {number}: {key[:40]!r} has a byte 0")
            section += [(_COMMENT, comment) for comment in self._pending]
            section.append((key, value.strip()))
            self._pending.clear()
        if section is not None:
            section += [(_COMMENT, comment) for comment in self._pending if comment]
        self._pending.clear()

    def _section(self, name: str, number: int) -> list[tuple[str, str]]:
        if not name or set(name) & set("[]") or not name.isprintable():
            raise InvalidUnit(f"line {number}: {name[:40]!r} is not the name of a section")
        if self._pending and not self._pending[0]:
            del self._pending[0]  # text() writes an empty line above each section
        self._headers.setdefault(name, []).extend(self._pending)
        self._pending.clear()
        return self.sections.setdefault(name, [])

    # -- values ----------------------------------------------------------------------------------

    def keys(self, section: str) -> list[str]:
        """Return the keys of a section, each once, in their order."""
        return [key for key in dict(self.sections.get(section, ())) if key != _COMMENT]

    def has(self, section: str, key: str) -> bool:
        """Return whether the key occurs, also without a value."""
        return any(name == key for name, _ in self.sections.get(section, ()))

    def text(self, section: str, key: str) -> str:
        """Return the last value of a key without quotes around it; '' if there is none."""
        values = [value for name, value in self.sections.get(section, ()) if name == key]
        return values[-1].strip('"') if values else ""

    def texts(self, section: str, key: str) -> list[str]:
        """Return all values of a key. An empty value removes those before it."""
        result: list[str] = []
        for name, value in self.sections.get(section, ()):
            if name == key:
                result = [*result, value] if value else []
        return result

    def on(self, section: str, key: str, default: bool = False) -> bool:
        """Return a boolean value."""
        return self.text(section, key).lower() in _TRUE if self.has(section, key) else default

    def names(self, section: str, key: str) -> list[str]:
        """Return the words of all values, where a backslash is an ordinary character.

        :raises InvalidUnit: when a quote is not closed.
        """
        return self._words(section, key, self.texts(section, key), escapes=False)

    def words(self, section: str, key: str) -> list[str]:
        """Return the words of all values, by the rules of command lines.

        :raises InvalidUnit: when an escape is unknown.
        """
        return self._words(section, key, self.texts(section, key), escapes=True)

    def last_words(self, section: str, key: str) -> list[str]:
        """Return the words of the last value, by the rules of command lines.

        :raises InvalidUnit: when an escape is unknown.
        """
        return self._words(section, key, self.texts(section, key)[-1:], escapes=True)

    def _words(self, section: str, key: str, values: list[str], *, escapes: bool) -> list[str]:
        try:
            return [word for value in values for word in unit_words.split(value, escapes=escapes)]
        except ValueError as error:
            raise InvalidUnit(f"{key} in section {section}: {error}") from None

    def pairs(self, section: str, key: str) -> dict[str, str]:
        """Return the words of the form NAME=VALUE of all values.

        :raises InvalidUnit: when an escape is unknown.
        """
        split = (word.partition("=") for word in self.words(section, key))
        return {name: value for name, equals, value in split if equals}

    # -- changes ---------------------------------------------------------------------------------

    def copy(self) -> UnitFile:
        """Return a copy with the same name and no path."""
        result = UnitFile(self.name)
        result.merge(self)
        return result

    def merge(self, other: UnitFile) -> None:
        """Append the sections of ``other``."""
        for name, lines in other.sections.items():
            self.sections.setdefault(name, []).extend(lines)
            self._headers.setdefault(name, []).extend(other._headers.get(name, ()))

    def add(self, section: str, key: str, value: str) -> None:
        """Append a value."""
        self.sections.setdefault(section, []).append((key, value))

    def insert(self, section: str, key: str, value: str) -> None:
        """Add a value before the others of its section."""
        self.sections.setdefault(section, []).insert(0, (key, value))

    def put(self, section: str, key: str, value: str) -> None:
        """Replace the last value of a key; add it if there is none."""
        lines = self.sections.setdefault(section, [])
        for number in reversed(range(len(lines))):
            if lines[number][0] == key:
                lines[number] = (key, value)
                return
        lines.append((key, value))

    def rename(self, section: str, name: str) -> None:
        """Give a section another name, at its place."""
        if section in self.sections:
            self.sections = {
                name if old == section else old: lines for old, lines in self.sections.items()
            }
            self._headers[name] = self._headers.pop(section, [])

    def render(self, title: str = "") -> str:
        """Return the text of the file, with ``title`` as a comment above it."""
        blocks = []
        for name, lines in self.sections.items():
            rows = [*self._headers.get(name, ()), f"[{name}]"]
            rows += [f"{key}={value}" if key else value for key, value in lines]
            blocks.append("\n".join(rows) + "\n")
        return (f"# {title}\n" if title else "") + "\n".join(blocks)


def load(path: str) -> UnitFile:
    """Return the unit file at ``path``.

    :raises InvalidUnit: when it cannot be parsed.
    :raises OSError: when it cannot be read.
    """
    with open(path, "rb") as file:
        data = file.read(MAX_SIZE + 1)
    if len(data) > MAX_SIZE:
        raise InvalidUnit(f"it is larger than {MAX_SIZE} bytes")
    unit = UnitFile(path.rpartition("/")[2], path)
    unit.read(data.decode("utf-8", "surrogateescape"))
    return unit

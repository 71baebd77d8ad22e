"""``.dockerignore``: which paths are excluded from a build context.

Source: Docker's documentation, '.dockerignore files', and the behaviour of Docker's client where it
is silent. The last pattern that matches decides; ``!`` makes an exception. A pattern that matches a
directory matches everything below it. ``*`` and ``?`` match within one name, ``**`` matches any
number of directories, ``[a-z]`` and ``[^a-z]`` are character classes, a backslash escapes the next
character. ``--exclude`` of COPY and ADD uses the same patterns.

The client imports this module too, so it has no dependencies. A pattern is matched as the set of
all reachable positions in the path, one bit each, so matching is fast for every pattern and path.
"""

from __future__ import annotations

import posixpath

from jaula.errors import InvalidRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

NAME = ".dockerignore"

_MAX_PATTERNS = 10_000
_MAX_LENGTH = 4096
"""Limits of a file: its number of patterns, and the characters of a pattern."""

_CACHE_SIZE = 4096
"""Directories whose result is cached for the paths in them."""


def files(dockerfile: str) -> tuple[str, str]:
    """Return the paths of the ignore file; the first one that exists is used."""
    return (f"{dockerfile}{NAME}", NAME)


class Dockerignore:
    """Patterns in order.

    :raises InvalidRequest: if a pattern is malformed.
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        self._patterns: list[_Pattern] = []
        self._results: dict[str, tuple[int, bool]] = {}
        for text in patterns:
            text = text.strip()
            is_exception = text.startswith("!")
            cleaned = _clean(text[1:].strip() if is_exception else text)
            if not cleaned:
                if is_exception:
                    raise InvalidRequest('illegal exclusion pattern: "!"')
                continue
            if len(self._patterns) == _MAX_PATTERNS:
                raise InvalidRequest(f"more than {_MAX_PATTERNS} patterns")
            self._patterns.append(_Pattern(cleaned, is_exception=is_exception))

    @classmethod
    def read(cls, text: str) -> Dockerignore:
        """Parse a file: one pattern per line; lines that start with ``#`` are comments."""
        lines = text.removeprefix("\ufeff").split("\n")
        return cls(line for line in lines if not line.startswith("#"))

    def __bool__(self) -> bool:
        return bool(self._patterns)

    @property
    def texts(self) -> tuple[str, ...]:
        """The cleaned patterns, in order, exceptions with their ``!``."""
        return tuple(f"{'!' * p.is_exception}{p.text}" for p in self._patterns)

    def excludes_path(self, path: str) -> bool:
        """Return whether ``path``, relative to the root of the context, is excluded."""
        parent, _, _ = path.rpartition("/")
        return self._match(path, self._match_directory(parent) if parent else (0, False))[1]

    def _match_directory(self, path: str) -> tuple[int, bool]:
        """Return the result of :meth:`_match` for a directory, cached."""
        result = self._results.get(path)
        if result is None:
            result = (0, False)
            end = -1
            while end < len(path):
                end = path.find("/", end + 1)
                end = len(path) if end < 0 else end
                part = path[:end]
                result = self._results.get(part) or self._match(part, result)
                self._results[part] = result
            if len(self._results) > _CACHE_SIZE:
                self._results = {path: result}
        return result

    def _match(self, path: str, parent: tuple[int, bool]) -> tuple[int, bool]:
        """Return the patterns that match (one bit each), and whether the path is excluded.

        ``parent`` is the result for the parent directory: a pattern that matches it matches the
        path too. A pattern that would not change the result is skipped, so it does not count for
        paths below either.
        """
        matched = parent[0]
        excluded = False
        positions: _Path | None = None
        bit = 1
        for pattern in self._patterns:
            matches = bool(matched & bit)
            if not matches and pattern.is_exception is excluded:
                if pattern.literal:
                    matches = path == pattern.text
                elif pattern.longest_literal in path:
                    positions = positions or _Path(path)
                    matches = positions.matches(pattern)
                if matches:
                    matched |= bit
            if matches:
                excluded = not pattern.is_exception
            bit <<= 1
        return matched, excluded

    def may_contain_exception(self, directory: str) -> bool:
        """Return whether an exception may match something below an excluded ``directory``."""
        start = f"{directory}/"
        return any(
            pattern.is_exception
            and (start.startswith(pattern.prefix) or pattern.prefix.startswith(start))
            for pattern in self._patterns
        )

    def keeping(self, *paths: str) -> Dockerignore:
        """Return a copy with exceptions for ``paths``: the builder always needs the Dockerfile."""
        copy = Dockerignore(())
        copy._patterns = [
            *self._patterns,
            *(
                _Pattern(_escape(path), is_exception=True)
                for path in paths
                if self.excludes_path(path)
            ),
        ]
        return copy


def _clean(text: str) -> str:
    """Return the path as Go's ``filepath.Clean`` does, without a leading slash."""
    if not text:
        return ""
    return posixpath.normpath(text).lstrip("/") or "/"


def _escape(path: str) -> str:
    return "".join("\\" + char if char in "\\*?[]" else char for char in path)


class _Wild:
    """A wildcard token; each has one instance. Not an Enum, whose import would slow the client."""


_ANY = _Wild()
"""One character except a slash."""

_RUN = _Wild()
"""Any number of characters except slashes."""

_DIRECTORIES = _Wild()
"""Nothing, or any characters up to and including a slash."""

_ALL = _Wild()
"""Any characters: the rest of the path."""


class _Class:
    """A character class such as ``[a-z]``. It never matches a slash."""

    def __init__(self, ranges: list[tuple[str, str]], *, negated: bool) -> None:
        self.ranges, self.negated = ranges, negated

    def contains(self, char: str) -> bool:
        return char != "/" and self.negated is not any(a <= char <= b for a, b in self.ranges)


_Token = str | _Wild | _Class


class _Pattern:
    def __init__(self, text: str, *, is_exception: bool) -> None:
        if len(text) > _MAX_LENGTH:
            raise InvalidRequest(
                f"a pattern has {len(text)} characters, the limit is {_MAX_LENGTH}"
            )
        self.is_exception = is_exception
        self.tokens = _tokens(text)
        self.literal = all(isinstance(token, str) for token in self.tokens)
        self.text = "".join(self.tokens) if self.literal else text  # type: ignore[arg-type]
        self.below = f"{self.text}/"
        runs = _runs(self.tokens)
        self.longest_literal = max(runs, key=len, default="")
        first = runs[0] if runs and isinstance(self.tokens[0], str) else ""
        self.prefix = self.below if self.literal else first[: first.rfind("/") + 1]


def _runs(tokens: list[_Token]) -> list[str]:
    """Return the literal parts of a pattern."""
    runs: list[str] = []
    in_run = False
    for token in tokens:
        if isinstance(token, str):
            if not in_run:
                runs.append("")
            runs[-1] += token
        in_run = isinstance(token, str)
    return runs


def _tokens(text: str) -> list[_Token]:
    tokens: list[_Token] = []
    at, size = 0, len(text)
    while at < size:
        char = text[at]
        at += 1
        if char == "*" and text[at : at + 1] == "*":
            at += 1
            if text[at : at + 1] == "/":
                at += 1
            if at == size:
                tokens.append(_ALL)
            elif at == 2 and not any(c in "*?[\\" for c in text[at:]):
                return [_ALL, *text[at:]]  # '**name' matches all paths that end with it
            else:
                tokens.append(_DIRECTORIES)
        elif char == "*":
            tokens.append(_RUN)
        elif char == "?":
            tokens.append(_ANY)
        elif char == "[":
            character_class, at = _class(text, at)
            tokens.append(character_class)
        elif char == "\\":
            if at == size:
                raise _malformed(text)
            tokens.append(text[at])
            at += 1
        else:
            tokens.append(char)
    return tokens


def _class(text: str, at: int) -> tuple[_Class, int]:
    """Parse a class after its ``[``; return it and the position after its end."""
    negated = text[at : at + 1] == "^"
    at += negated
    ranges: list[tuple[str, str]] = []
    while text[at : at + 1] != "]" or not ranges:
        first, at = _member(text, at)
        last = first
        if text[at : at + 1] == "-":
            last, at = _member(text, at + 1)
        ranges.append((first, last))
    return _Class(ranges, negated=negated), at + 1


def _member(text: str, at: int) -> tuple[str, int]:
    if text[at : at + 1] == "\\":
        at += 1
    elif text[at : at + 1] in ("-", "]"):
        raise _malformed(text)
    if at >= len(text):
        raise _malformed(text)
    return text[at], at + 1


def _malformed(text: str) -> InvalidRequest:
    return InvalidRequest(
        f"syntax error in pattern {text[:200]!r}",
        hint=r"close each [ with ], and escape a literal [ as \[",
    )


class _Path:
    """A path and sets of positions in it: bit i is the position before character i."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._masks: dict[str, int] = {}
        bit = 1
        for char in path:
            self._masks[char] = self._masks.get(char, 0) | bit
            bit <<= 1
        self._end = bit
        self._slashes = self._masks.get("/", 0)
        self._names = (bit - 1) & ~self._slashes

    def matches(self, pattern: _Pattern) -> bool:
        """Return whether the pattern matches the whole path."""
        at = 1
        for token in pattern.tokens:
            if isinstance(token, str):
                at = (at & self._masks.get(token, 0)) << 1
            elif token is _ANY:
                at = (at & self._names) << 1
            elif token is _RUN:
                at = self._run(at)
            elif token is _DIRECTORIES:
                at |= self._slashes << 1 & -(at & -at)
            elif token is _ALL:
                at = (self._end << 1) - (at & -at)
            elif isinstance(token, _Class):
                matching = (bits for char, bits in self._masks.items() if token.contains(char))
                at = (at & sum(matching)) << 1
            if not at:
                return False
        return bool(at & self._end)

    def _run(self, at: int) -> int:
        """Return all positions reachable from those of ``at`` within their names."""
        into, step = self._names << 1, 1
        while into:
            at |= into & at << step
            into &= into << step
            step <<= 1
        return at

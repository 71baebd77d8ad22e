"""``.dockerignore``: which paths of a context stay out.

Source: Docker's documentation, '.dockerignore files', and for what that leaves open the way in
which Docker's client matches. The last pattern that matches decides; ``!`` makes an exception. A
pattern that matches a directory matches all below it. ``*`` and ``?`` stay within one name, ``**``
is any number of directories, ``[a-z]`` and ``[^a-z]`` are classes, a backslash takes the next
character as it is. ``--exclude`` of COPY and ADD has the same patterns.

The client imports this as well as the engine: it needs nothing. A pattern is matched as the set of
all positions that it can have come to, one bit each, so no pattern and no path takes long.
"""

from __future__ import annotations

import posixpath

from jaula.errors import InvalidRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

NAME = ".dockerignore"

_PATTERNS = 10_000
_LONGEST = 4096
"""Bounds of a file: patterns, and characters of one."""

_REMEMBERED = 4096
"""Directories whose judgement is kept for what is in them."""


def files(dockerfile: str) -> tuple[str, str]:
    """Where patterns are looked for; the first that is there counts."""
    return (f"{dockerfile}{NAME}", NAME)


class Dockerignore:
    """Patterns in their order; raises :class:`InvalidRequest` where one is malformed."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self._patterns: list[_Pattern] = []
        self._judged: dict[str, tuple[int, bool]] = {}
        for text in patterns:
            text = text.strip()
            except_ = text.startswith("!")
            cleaned = _clean(text[1:].strip() if except_ else text)
            if not cleaned:
                if except_:
                    raise InvalidRequest('illegal exclusion pattern: "!"')
                continue
            if len(self._patterns) == _PATTERNS:
                raise InvalidRequest(f"more than {_PATTERNS} patterns")
            self._patterns.append(_Pattern(cleaned, except_=except_))

    @classmethod
    def read(cls, text: str) -> Dockerignore:
        """The patterns of a file: one a line, without those that begin with ``#``."""
        lines = text.removeprefix("\ufeff").split("\n")
        return cls(line for line in lines if not line.startswith("#"))

    def __bool__(self) -> bool:
        return bool(self._patterns)

    def leaves_out(self, path: str) -> bool:
        """Whether ``path``, relative to the context's root, stays out."""
        above, _, _ = path.rpartition("/")
        return self._judge(path, self._of_directory(above) if above else (0, False))[1]

    def _of_directory(self, path: str) -> tuple[int, bool]:
        """As :meth:`_judge`, for a path that others lie below."""
        known = self._judged.get(path)
        if known is None:
            known = (0, False)
            end = -1
            while end < len(path):
                end = path.find("/", end + 1)
                end = len(path) if end < 0 else end
                part = path[:end]
                known = self._judged.get(part) or self._judge(part, known)
                self._judged[part] = known
            if len(self._judged) > _REMEMBERED:
                self._judged = {path: known}
        return known

    def _judge(self, path: str, above: tuple[int, bool]) -> tuple[int, bool]:
        """The patterns that match (a bit each), and whether the path stays out.

        ``above`` is the same for the directory that it is in: what matched that matches this. A
        pattern that would change nothing is not looked at, and so does not count below either.
        """
        matched = above[0]
        out = False
        seen: _Path | None = None
        bit = 1
        for pattern in self._patterns:
            found = bool(matched & bit)
            if not found and pattern.except_ is out:
                if pattern.literal:
                    found = path == pattern.text
                elif pattern.needed in path:
                    seen = seen or _Path(path)
                    found = seen.matches(pattern)
                if found:
                    matched |= bit
            if found:
                out = not pattern.except_
            bit <<= 1
        return matched, out

    def may_hold(self, directory: str) -> bool:
        """Whether something below a ``directory`` that stays out may be an exception."""
        here = f"{directory}/"
        return any(
            pattern.except_ and (here.startswith(pattern.lead) or pattern.lead.startswith(here))
            for pattern in self._patterns
        )

    def keeping(self, *paths: str) -> Dockerignore:
        """The same with exceptions for ``paths``: a builder needs the Dockerfile in any case."""
        kept = Dockerignore(())
        kept._patterns = [
            *self._patterns,
            *(_Pattern(_escaped(path), except_=True) for path in paths if self.leaves_out(path)),
        ]
        return kept


def _clean(text: str) -> str:
    """As Go's ``filepath.Clean``, without a slash at the beginning; '' for nothing."""
    if not text:
        return ""
    return posixpath.normpath(text).lstrip("/") or "/"


def _escaped(path: str) -> str:
    return "".join("\\" + char if char in "\\*?[]" else char for char in path)


class _Wild:
    """What stands for characters; there is one of each. No Enum: the client would wait for it."""


_ANY = _Wild()
"""One character but a slash."""

_RUN = _Wild()
"""Any number of them."""

_DIRECTORIES = _Wild()
"""Nothing, or anything up to a slash."""

_ALL = _Wild()
"""Anything at all: the rest of the path."""


class _Class:
    """``[a-z]``; a slash is never in it."""

    def __init__(self, ranges: list[tuple[str, str]], *, negated: bool) -> None:
        self.ranges, self.negated = ranges, negated

    def holds(self, char: str) -> bool:
        return char != "/" and self.negated is not any(a <= char <= b for a, b in self.ranges)


_Token = str | _Wild | _Class


class _Pattern:
    def __init__(self, text: str, *, except_: bool) -> None:
        if len(text) > _LONGEST:
            raise InvalidRequest(f"a pattern of {len(text)} characters, at most {_LONGEST}")
        self.except_ = except_
        self.tokens = _tokens(text)
        self.literal = all(isinstance(token, str) for token in self.tokens)
        self.text = "".join(self.tokens) if self.literal else text  # type: ignore[arg-type]
        self.below = f"{self.text}/"
        runs = _runs(self.tokens)
        self.needed = max(runs, key=len, default="")
        first = runs[0] if runs and isinstance(self.tokens[0], str) else ""
        self.lead = self.below if self.literal else first[: first.rfind("/") + 1]


def _runs(tokens: list[_Token]) -> list[str]:
    """The literal parts."""
    found: list[str] = []
    going = False
    for token in tokens:
        if isinstance(token, str):
            if not going:
                found.append("")
            found[-1] += token
        going = isinstance(token, str)
    return found


def _tokens(text: str) -> list[_Token]:
    made: list[_Token] = []
    at, size = 0, len(text)
    while at < size:
        char = text[at]
        at += 1
        if char == "*" and text[at : at + 1] == "*":
            at += 1
            if text[at : at + 1] == "/":
                at += 1
            if at == size:
                made.append(_ALL)
            elif at == 2 and not any(c in "*?[\\" for c in text[at:]):
                return [_ALL, *text[at:]]  # '**name' is all that ends with it
            else:
                made.append(_DIRECTORIES)
        elif char == "*":
            made.append(_RUN)
        elif char == "?":
            made.append(_ANY)
        elif char == "[":
            found, at = _class(text, at)
            made.append(found)
        elif char == "\\":
            if at == size:
                raise _malformed(text)
            made.append(text[at])
            at += 1
        else:
            made.append(char)
    return made


def _class(text: str, at: int) -> tuple[_Class, int]:
    """What follows a ``[``, and where it ends."""
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
        hint=r"a [ needs its ], a backslash something behind it; \[ is the character",
    )


class _Path:
    """A path as sets of positions: bit i stands before its character i."""

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
        """Whether the pattern matches the whole path."""
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
                inside = (bits for char, bits in self._masks.items() if token.holds(char))
                at = (at & sum(inside)) << 1
            if not at:
                return False
        return bool(at & self._end)

    def _run(self, at: int) -> int:
        """All positions that are reached from those of ``at`` within their names."""
        into, step = self._names << 1, 1
        while into:
            at |= into & at << step
            into &= into << step
            step <<= 1
        return at

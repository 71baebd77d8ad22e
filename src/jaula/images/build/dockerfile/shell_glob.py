"""Patterns of ``${name#pattern}``: ``*`` is anything, ``?`` one character, ``\\*`` a star.

A pattern is matched as a set of states, all at once, one bit each: the time is the length of the
value, whatever the pattern (no pattern can make it try again and again).
"""

from __future__ import annotations

from jaula.images.build.dockerfile.errors import DockerfileError, plain

_LONGEST = 4096
"""Characters of a pattern."""


class Glob:
    """A pattern without anchors; raises :class:`DockerfileError` where an escape means nothing."""

    def __init__(self, text: str) -> None:
        if len(text) > _LONGEST:
            raise DockerfileError(
                f"a pattern of {len(text)} characters, at most {_LONGEST} are accepted"
            )
        tokens: list[str | None] = []  # None is any character
        stars: list[int] = []  # the states that stay, whatever comes
        at = 0
        while at < len(text):
            char = text[at]
            at += 1
            if char == "*":
                stars.append(len(tokens))
                continue
            if char == "?":
                tokens.append(None)
                continue
            if char == "\\":
                char = text[at : at + 1]
                at += 1
                if char not in ("*", "?", "\\", "}", "/"):
                    raise DockerfileError(
                        f"invalid pattern ({plain(text)}): invalid escape '\\{char}'"
                    )
            tokens.append(char)
        self._tokens = tokens
        self._ahead = _Machine(tokens, stars)
        self._back = _Machine(tokens[::-1], [len(tokens) - star for star in stars])

    def prefix(self, value: str, *, longest: bool) -> int:
        """The length of the shortest or longest beginning that matches; 0 where none does."""
        return self._ahead.reach(value, 0, longest=longest) or 0

    def suffix(self, value: str, *, longest: bool) -> int:
        """The length of the shortest or longest end that matches; 0 where none does."""
        return self._back.reach(value[::-1], 0, longest=longest) or 0

    def replace(self, value: str, text: str, *, every: bool, limit: int) -> str | None:
        """``value`` with the first or each match replaced; None if longer than ``limit``."""
        starts = self._starts(value)
        done: list[str] = []
        length = at = 0
        for start in starts:
            if start < at:
                continue
            size = self._ahead.reach(value, start, longest=True)
            if size is None:
                continue  # what began here ends before the end of an earlier match
            done += (value[at:start], text)
            length += start - at + len(text)
            if length > limit:
                return None
            at = start + size
            if size == 0:
                done.append(value[at : at + 1])
                at += 1
            if not every:
                break
        done.append(value[at:])
        return "".join(done)

    def _starts(self, value: str) -> list[int]:
        """All positions where a match begins, found from the end in one go."""
        ends = self._back.ends(value[::-1])
        return [len(value) - end for end in reversed(ends)]


class _Machine:
    """State i: the first i tokens have matched."""

    def __init__(self, tokens: list[str | None], stars: list[int]) -> None:
        self._last = 1 << len(tokens)
        self._stay = sum({1 << star for star in stars})
        self._other = sum(1 << i for i, token in enumerate(tokens) if token is None)
        self._masks: dict[str, int] = {}
        for i, token in enumerate(tokens):
            if token is not None:
                self._masks[token] = self._masks.get(token, self._other) | 1 << i

    def reach(self, value: str, start: int, *, longest: bool) -> int | None:
        """How far a match from ``start`` goes; None where there is none."""
        state, last, stay, other, masks = 1, self._last, self._stay, self._other, self._masks
        found = 0 if state & last else None
        if found is not None and not longest:
            return found
        for at in range(start, len(value)):
            state = (state & masks.get(value[at], other)) << 1 | state & stay
            if not state:
                break
            if state & last:
                found = at + 1 - start
                if not longest:
                    break
        return found

    def ends(self, value: str) -> list[int]:
        """Where matches end that begin anywhere."""
        state, last, stay, other, masks = 1, self._last, self._stay, self._other, self._masks
        found = [0] if state & last else []
        for at, char in enumerate(value):
            state = (state & masks.get(char, other)) << 1 | state & stay | 1
            if state & last:
                found.append(at + 1)
        return found

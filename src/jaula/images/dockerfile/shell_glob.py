r"""Patterns of ``${name#pattern}``: ``*`` is any text, ``?`` one character, ``\*`` a literal star.

A pattern is matched as a set of states, one bit each, without backtracking. The time is
proportional to the length of the value for every pattern.
"""

from __future__ import annotations

from jaula.images.dockerfile.dockerfile_error import DockerfileError, printable

_MAX_LENGTH = 4096
"""Characters of a pattern."""


class Glob:
    """A pattern without anchors.

    :raises DockerfileError: if it is too long or contains an invalid escape.
    """

    def __init__(self, text: str) -> None:
        if len(text) > _MAX_LENGTH:
            raise DockerfileError(
                f"a pattern has {len(text)} characters, the limit is {_MAX_LENGTH}"
            )
        tokens: list[str | None] = []  # None is any character
        stars: list[int] = []  # the states that stay for any character
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
                        f"invalid pattern ({printable(text)}): invalid escape '\\{char}'"
                    )
            tokens.append(char)
        self.length = len(tokens)
        self._forward = _Machine(tokens, stars)
        self._backward = _Machine(tokens[::-1], [len(tokens) - star for star in stars])

    def prefix(self, value: str, *, longest: bool) -> int:
        """Return the length of the shortest or longest prefix that matches, 0 if none does."""
        return self._forward.reach(value, 0, longest=longest) or 0

    def suffix(self, value: str, *, longest: bool) -> int:
        """Return the length of the shortest or longest suffix that matches, 0 if none does."""
        return self._backward.reach(value[::-1], 0, longest=longest) or 0

    def replace(self, value: str, text: str, *, every: bool, limit: int) -> str | None:
        """Return ``value`` with the first or each match replaced, None if longer than ``limit``."""
        starts = self._starts(value)
        parts: list[str] = []
        length = at = 0
        for start in starts:
            if start < at:
                continue
            size = self._forward.reach(value, start, longest=True)
            if size is None:
                continue  # this match ends within an earlier one
            parts += (value[at:start], text)
            length += start - at + len(text)
            if length > limit:
                return None
            at = start + size
            if size == 0:
                parts.append(value[at : at + 1])
                at += 1
            if not every:
                break
        parts.append(value[at:])
        return "".join(parts)

    def _starts(self, value: str) -> list[int]:
        """Return all positions where a match starts, in one pass from the end."""
        ends = self._backward.ends(value[::-1])
        return [len(value) - end for end in reversed(ends)]


class _Machine:
    """An automaton. State i: the first i tokens have matched."""

    def __init__(self, tokens: list[str | None], stars: list[int]) -> None:
        self._last = 1 << len(tokens)
        self._stay = sum({1 << star for star in stars})
        self._other = sum(1 << i for i, token in enumerate(tokens) if token is None)
        self._masks: dict[str, int] = {}
        for i, token in enumerate(tokens):
            if token is not None:
                self._masks[token] = self._masks.get(token, self._other) | 1 << i

    def reach(self, value: str, start: int, *, longest: bool) -> int | None:
        """Return the length of a match from ``start``, or None."""
        state, last, stay, other, masks = 1, self._last, self._stay, self._other, self._masks
        length = 0 if state & last else None
        if length is not None and not longest:
            return length
        for at in range(start, len(value)):
            state = (state & masks.get(value[at], other)) << 1 | state & stay
            if not state:
                break
            if state & last:
                length = at + 1 - start
                if not longest:
                    break
        return length

    def ends(self, value: str) -> list[int]:
        """Return the end positions of matches that start anywhere."""
        state, last, stay, other, masks = 1, self._last, self._stay, self._other, self._masks
        positions = [0] if state & last else []
        for at, char in enumerate(value):
            state = (state & masks.get(char, other)) << 1 | state & stay | 1
            if state & last:
                positions.append(at + 1)
        return positions

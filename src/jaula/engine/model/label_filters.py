"""Docker's filters ``label``, ``label!`` and ``until``, and the truth values of other filters.

Source: moby ``api/types/filters``, and ``matchLabels`` and ``getUntilFromPruneFilters`` of its
prunes. Pure, except for the clock from which a duration is counted back.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import lru_cache

from jaula.errors import InvalidRequest
from jaula.spec import units

Filters = dict[str, list[str]]
"""Values by the name of their filter."""

_PLAIN = re.compile(r"[\w-]*", re.ASCII)
_MAX_PATTERN_MEMORY = 1 << 20  # bytes
_MAX_EXPRESSIONS = 64  # of one filter
_LATEST = 253402300799.0  # the end of the year 9999


def has_label(labels: Mapping[str, str], selector: str) -> bool:
    """Return whether there is a label ``NAME``, or ``NAME=VALUE`` with that value."""
    name, equals, value = selector.partition("=")
    present = labels.get(name)
    return present is not None and (not equals or present == value)


def has_labels(labels: Mapping[str, str], selectors: Iterable[str]) -> bool:
    """Return whether every selector of :func:`has_label` fits."""
    return all(has_label(labels, selector) for selector in selectors)


def check_expressions(name: str, values: Iterable[str]) -> None:
    """Check the number of regular expressions of a filter. Words do not count.

    :raises InvalidRequest: when there are too many to keep them compiled for all objects.
    """
    number = sum(_PLAIN.fullmatch(value) is None for value in frozenset(values))
    if number > _MAX_EXPRESSIONS:
        raise InvalidRequest(
            f"filter '{name}': {number} regular expressions; at most {_MAX_EXPRESSIONS} are allowed"
        )


def has_match(pattern: str, text: str) -> bool:
    """Return whether a regular expression, or else a part, is in the text."""
    if _PLAIN.fullmatch(pattern):
        return pattern in text
    search = _search(pattern)
    return pattern in text if search is None else search(text)


@lru_cache(maxsize=_MAX_EXPRESSIONS)
def _search(pattern: str) -> Callable[[str], bool] | None:
    """Return the search for an expression of a client, None if it is not valid.

    RE2 has Docker's syntax, and its time grows with the length of the text. Python's own
    expressions take exponential time for some patterns.
    """
    import re2  # loads for some milliseconds, and few filters need it

    options = re2.Options()
    options.max_mem = _MAX_PATTERN_MEMORY
    options.log_errors = False
    try:
        compiled = re2.compile(pattern.encode(errors="surrogateescape"), options)
    except re2.error:
        return None
    return lambda text: compiled.search(text.encode(errors="surrogateescape")) is not None


def check_names(filters: Filters, known: Collection[str]) -> None:
    """Check that every filter is known.

    :raises InvalidRequest: when a name is not in ``known``.
    """
    for name in filters:
        if name not in known:
            raise InvalidRequest(f"invalid filter '{name}'")


def check_prune(filters: Filters, *more: str) -> None:
    """Check the filters of a prune; ``more`` are those of one kind of object.

    :raises InvalidRequest: when a name is unknown, ``until`` has several values, or one that is
        not a time.
    """
    check_names(filters, ("until", "label", "label!", *more))
    if len(filters.get("until", ())) > 1:
        raise InvalidRequest("more than one until filter specified")
    for value in filters.get("until", ()):
        parse_time(value)


def prune_selects(filters: Filters, labels: Mapping[str, str], created: float) -> bool:
    """Return whether prune may remove an object that was created at ``created`` (Unix seconds).

    Only ``until``, ``label`` and ``label!`` are evaluated. As in moby, an object is spared if it
    has all values of ``label!``.

    :raises InvalidRequest: when a value of ``until`` is not a time.
    """
    if any(created >= parse_time(value) for value in filters.get("until", ())):
        return False
    if not has_labels(labels, filters.get("label", ())):
        return False
    spared = filters.get("label!")
    return not (spared and has_labels(labels, spared))


def parse_time(text: str) -> float:
    """Return the Unix seconds of a Unix time, an RFC 3339 time or a duration ago (``24h``).

    :raises InvalidRequest: when the text is none of these, or a year after 9999.
    """
    try:
        seconds = _seconds(text)
    except ValueError:
        seconds = -1.0
    if not 0.0 <= seconds <= _LATEST:
        raise InvalidRequest(f'failed to parse value as time or duration: "{text[:100]}"')
    return seconds


def _seconds(text: str) -> float:
    if units.is_decimal(text):
        return float(text)
    try:
        ago = units.nanoseconds(text) / 1e9
    except ValueError:
        return units.unix_time(text)
    return max(0.0, time.time() - ago)


def truth(name: str, values: Collection[str]) -> bool:
    """Return the truth value of a filter, as moby's ``GetBoolOrDefault`` reads it.

    :raises InvalidRequest: when the values are neither or both of true and false.
    """
    yes, no = bool({"1", "true"} & set(values)), bool({"0", "false"} & set(values))
    if yes == no:
        raise InvalidRequest(f"invalid filter '{name}=[{' '.join(values)}]'")
    return yes

"""Exceptions: controls that may fail, with a reason and an end.

Format, TOML 1.0::

    [[exception]]
    id = "5.13"
    subject = "database"    # a container or image; absent: every subject
    reason = "it writes to its own files"
    until = 2027-01-31      # the last day
"""

from __future__ import annotations

import datetime
from collections.abc import Collection, Iterable

import msgspec

from jaula.errors import InvalidRequest
from jaula.spec import toml

LIMIT = 1 << 20  # bytes of a file


class Exemption(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One exception; an empty subject is every one. It holds on the day ``until`` too."""

    id: str
    reason: str
    until: datetime.date
    subject: str = ""

    def expired(self, today: datetime.date) -> bool:
        """Return whether it has ended."""
        return today > self.until


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    exception: tuple[Exemption, ...] = ()


def parse(data: bytes, ids: Collection[str], name: str) -> tuple[Exemption, ...]:
    """Return the exceptions in a file. Pure.

    :param ids: the numbers of all controls.
    :param name: names the file in errors.
    :raises InvalidRequest: when it is not valid.
    """
    if len(data) > LIMIT:
        raise InvalidRequest(f"exceptions {name} have more than {LIMIT} bytes")
    try:
        document = toml.loads(data)
        file = msgspec.convert(document, _File)
    except ValueError as error:  # of TOML and msgspec
        raise InvalidRequest(
            f"exceptions {name}: {str(error)[:300]}",
            hint='each has [[exception]], id = "5.13", reason = "...", until = 2027-01-31',
        ) from None
    for number, each in enumerate(file.exception, 1):
        if each.id not in ids:
            raise InvalidRequest(
                f"exceptions {name}: exception {number} is for {each.id[:40]!r}, which is not a "
                "control",
                hint="jaula audit --list has the controls",
            )
        if not each.reason.strip():
            raise InvalidRequest(f"exceptions {name}: exception {number} ({each.id}) has no reason")
    return file.exception


def select(
    exemptions: Iterable[Exemption], id: str, subject: str, today: datetime.date
) -> Exemption | None:
    """Return the exception for a subject of a control: one in force, else one that ended. Pure."""
    own = [e for e in exemptions if e.id == id and e.subject in ("", subject)]
    own.sort(key=lambda e: (e.expired(today), e.subject == ""))
    return own[0] if own else None

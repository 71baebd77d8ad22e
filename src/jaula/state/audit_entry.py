"""The lines of the audit log: what they say, and how they are written.

What clients said is bounded, and always text that can be written.
"""

from __future__ import annotations

import time

import msgspec

_MAX_TEXT = 512  # characters of a name or an error
_MAX_ARGV = 16384  # characters of all arguments together


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One request: who, what, on what, with which relaxations, how it ended.

    ``login_uid`` is who logged in, whoever they have become since. ``argv_cut`` counts characters
    of arguments that were left out; values of environment variables are never here.
    """

    uid: int | None = None
    pid: int = 0
    login_uid: int | None = None
    command: str = ""
    certificate: str = ""  # its name; of a client that came over the network
    fingerprint: str = ""
    address: str = ""
    action: str = ""
    object: str = ""
    name: str = ""
    image: str = ""
    asks: tuple[str, ...] = ()
    argv: tuple[str, ...] = ()
    argv_cut: int = 0
    status: int = 0
    error: str = ""
    up_to: int = 0
    up_to_hash: str = ""


def encode(n: int, now: int, prev: str, entry: AuditEntry) -> bytes:
    """A line without its newline; ``now`` is in nanoseconds since the epoch, UTC."""
    seconds, rest = divmod(now, 1_000_000_000)
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    start = f'{{"n":{n},"time":"{moment}.{rest // 1000:06d}Z","prev":"{prev}",'
    return start.encode() + msgspec.json.encode(_bounded(entry))[1:]


def _bounded(entry: AuditEntry) -> AuditEntry:
    argv, room, cut = [], _MAX_ARGV, 0
    for word in entry.argv:
        argv.append(_text(word, room))
        cut += max(0, len(word) - room)
        room = max(0, room - len(word))
    while argv and not argv[-1] and cut:
        argv.pop()
    return msgspec.structs.replace(
        entry,
        certificate=_text(entry.certificate),
        object=_text(entry.object),
        name=_text(entry.name),
        image=_text(entry.image),
        error=_text(entry.error),
        asks=tuple(_text(ask) for ask in entry.asks[:_MAX_TEXT]),
        argv=tuple(argv),
        argv_cut=cut,
    )


def _text(text: str, most: int = _MAX_TEXT) -> str:
    """Bounded, and encodable whatever it holds."""
    short = text[:most]
    return short if short.isascii() else short.encode("utf-8", "backslashreplace").decode()

"""Who asks: the process at the other end of the socket, as the kernel knows it."""

from __future__ import annotations

import msgspec

from jaula.spec.calls import Peer

ROOT = 0


class Caller(msgspec.Struct, frozen=True):
    """One client. ``uid`` is None for a client that proved a certificate's name instead.

    ``groups`` are all of its group ids. ``name`` is the user's for people, empty where the host
    has none for the id.
    """

    uid: int | None = None
    gid: int = 0
    groups: frozenset[int] = frozenset()
    pid: int = 0
    name: str = ""
    certificate: str = ""

    @property
    def key(self) -> str:
        """What a container's record says of its owner."""
        return f"certificate {self.certificate}" if self.uid is None else str(self.uid)

    def __str__(self) -> str:
        if self.uid is None:
            return f"certificate {self.certificate!r}"
        return f"user {self.name} (uid {self.uid})" if self.name else f"uid {self.uid}"


def of(peer: Peer | None) -> Caller:
    """The caller behind a connection; nobody at all where the kernel could not say who it is."""
    if peer is None:
        return Caller(certificate="unknown")
    groups = frozenset((peer.gid, *peer.groups))
    return Caller(uid=peer.uid, gid=peer.gid, groups=groups, pid=peer.pid)

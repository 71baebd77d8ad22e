"""Who asks: the process at the other end of the socket, or whom a certificate proves."""

from __future__ import annotations

import msgspec

from jaula.spec.api_params import Origin, Remote

ROOT = 0
ANONYMOUS = "nobody"
"""What records call a client that the kernel could not name and that proved nothing."""


class Caller(msgspec.Struct, frozen=True):
    """One client. ``uid`` is None for one that came over the network.

    ``groups`` are all of its group ids. ``name`` is the user's for people, empty where the host
    has none for the id. ``certificate`` is the name that a certificate proves, or its fingerprint
    where it has none; both are empty for a client that proved nothing.
    """

    uid: int | None = None
    gid: int = 0
    groups: frozenset[int] = frozenset()
    pid: int = 0
    name: str = ""
    certificate: str = ""
    fingerprint: str = ""

    @property
    def key(self) -> str:
        """What a container's record says of its owner."""
        if self.uid is not None:
            return str(self.uid)
        return f"certificate {self.certificate}" if self.certificate else ANONYMOUS

    def __str__(self) -> str:
        if self.uid is None:
            return f"certificate {self.certificate!r}" if self.certificate else "whoever this is"
        return f"user {self.name} (uid {self.uid})" if self.name else f"uid {self.uid}"


def of(peer: Origin | None) -> Caller:
    """The caller behind a connection."""
    if peer is None:
        return Caller()
    if isinstance(peer, Remote):
        return Caller(certificate=peer.name or peer.fingerprint, fingerprint=peer.fingerprint)
    groups = frozenset((peer.gid, *peer.groups))
    return Caller(uid=peer.uid, gid=peer.gid, groups=groups, pid=peer.pid)

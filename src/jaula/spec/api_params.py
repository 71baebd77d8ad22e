"""What API and engine hand each other that is no document of a client: queries read, results told.

The queries are those of the Docker Engine API 1.45 (attach, logs); the results are what its answers
are made of.
"""

from __future__ import annotations

import msgspec

from jaula.spec.api import ContainerCreate


class Peer(msgspec.Struct, frozen=True):
    """Who is at the other end of a unix socket (``SO_PEERCRED``, when it connected).

    ``groups`` are the supplementary ones (``SO_PEERGROUPS``); ``login_uid`` who logged in
    (``/proc/PID/loginuid``, None where nobody did), ``command`` the process's name.
    """

    pid: int
    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    login_uid: int | None = None
    command: str = ""


class Remote(msgspec.Struct, frozen=True):
    """Who is at the other end of a TCP connection, as far as a certificate proved it.

    ``fingerprint`` is ``sha256:`` and the digest of the certificate, ``name`` the one common name
    of its subject, if it has one. Both are empty for a client without TLS. ``address`` is the
    client's.
    """

    address: str
    name: str = ""
    fingerprint: str = ""


Origin = Peer | Remote
"""Who a connection comes from; None where the kernel could not say."""


class AttachOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The query of an attach request.

    ``stream`` asks for live output (and input where ``stdin``), ``logs`` for what was written
    before. ``detach_keys`` is decoded (see :mod:`jaula.spec.detach_keys`); None takes the default.
    ``early`` holds bytes of stdin that arrived together with the request's head.
    """

    stream: bool = False
    logs: bool = False
    stdin: bool = False
    stdout: bool = False
    stderr: bool = False
    detach_keys: bytes | None = None
    early: bytes = b""
    framed: bool = True  # with Docker's header before each piece, unless there is a terminal


class LogOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The query of a logs request: times in nanoseconds since the epoch, both inclusive.

    ``tail`` is None for all lines. With ``timestamps`` the engine starts each line with its RFC
    3339 time and a blank.
    """

    stdout: bool = False
    stderr: bool = False
    since: int | None = None
    until: int | None = None
    tail: int | None = None
    follow: bool = False
    timestamps: bool = False
    details: bool = False  # with the container's attributes before each line


class CommitOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The query of a commit request, and its body: a configuration that goes before the own."""

    repo: str = ""
    tag: str = ""
    author: str = ""
    comment: str = ""
    pause: bool = True
    changes: tuple[str, ...] = ()
    config: ContainerCreate | None = None


class WaitResult(msgspec.Struct, frozen=True):
    """How a container ended; ``error`` says why it could not be waited for."""

    status_code: int
    error: str | None = None


class ContainerCreated(msgspec.Struct, frozen=True):
    """The answer to ``POST /containers/create``."""

    id: str
    warnings: tuple[str, ...] = ()

"""Values between the API and the engine that are not client documents: parsed queries and results.

The queries are those of the Docker Engine API 1.45 (attach, logs); the responses are built from the
results.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from jaula.spec.api_documents import ContainerCreate


class Peer(msgspec.Struct, frozen=True):
    """The client process of a unix socket (``SO_PEERCRED`` at the time of the connect).

    ``groups`` are its supplementary groups (``SO_PEERGROUPS``). ``login_uid`` is the audit login
    uid (``/proc/PID/loginuid``), None if unset. ``command`` is the process name.

    ``via`` and ``address`` are set for a user of the web view: ``web``, and the browser's address.
    """

    pid: int
    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    login_uid: int | None = None
    command: str = ""
    via: str = ""
    address: str = ""


class Remote(msgspec.Struct, frozen=True):
    """The client of a TCP connection, as far as its certificate identifies it.

    ``fingerprint`` is ``sha256:`` and the digest of the certificate; ``name`` is the common name of
    its subject, if there is exactly one. Both are empty for a client without TLS. ``address`` is
    the client's. ``via`` is ``web`` for a user of the web view.
    """

    address: str
    name: str = ""
    fingerprint: str = ""
    via: str = ""


class ContainerPeer(msgspec.Struct, frozen=True):
    """The client of a container's engine socket: the container, not the process in it.

    ``container`` is the id. ``entry`` is the entry of the policy that was authorized when the
    container was created. ``pid`` and ``command`` are those of the process on the host.
    """

    container: str
    entry: str
    pid: int = 0
    command: str = ""


class WebUser(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """The user of a web view: a user of this host, or the subject of a client certificate.

    ``uid`` is None for a certificate. ``name`` is for people. ``address`` is the browser's.
    """

    uid: int | None = None
    gid: int = 0
    groups: tuple[int, ...] = ()
    login_uid: int | None = None
    name: str = ""
    certificate: str = ""
    fingerprint: str = ""
    address: str = ""


Origin = Peer | Remote | ContainerPeer
"""The client of a connection; None if the kernel could not identify it."""


SendStream = Callable[[int, bool, Callable[[], Awaitable[None]]], Awaitable[bool]]
"""Sends the body of an answer to a socket, which it closes.

The second argument is whether the body is chunked. The third is awaited before anything is sent,
when no error can prevent the body any more. It returns whether everything was sent. Cancelling it
ends the output.
"""


class AttachOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The query of an attach request.

    ``stream`` requests live output (and input with ``stdin``), ``logs`` the output so far.
    ``detach_keys`` is decoded (see :mod:`jaula.spec.detach_keys`); None selects the default.
    ``early`` holds bytes of stdin that arrived together with the request's head.
    """

    stream: bool = False
    logs: bool = False
    stdin: bool = False
    stdout: bool = False
    stderr: bool = False
    detach_keys: bytes | None = None
    early: bytes = b""
    framed: bool = True  # with Docker's stream headers, unless there is a terminal


class LogOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The query of a logs request; times are nanoseconds since the epoch, both inclusive.

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
    details: bool = False  # with the container's log attributes before each line


class CommitOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The query of a commit request; ``config`` is its body, which overrides the container's."""

    repo: str = ""
    tag: str = ""
    author: str = ""
    comment: str = ""
    pause: bool = True
    changes: tuple[str, ...] = ()
    config: ContainerCreate | None = None


class WaitResult(msgspec.Struct, frozen=True):
    """The exit of a container; ``error`` is set when waiting failed."""

    status_code: int
    error: str | None = None


class ImportedCheckpoint(msgspec.Struct, frozen=True):
    """The result of an import of a checkpoint.

    ``created`` says whether the container is a new one.
    """

    container: str
    checkpoint: str
    created: bool
    warnings: tuple[str, ...] = ()


class ContainerCreated(msgspec.Struct, frozen=True):
    """The response to ``POST /containers/create``."""

    id: str
    warnings: tuple[str, ...] = ()

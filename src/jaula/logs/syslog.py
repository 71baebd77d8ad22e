"""The log driver ``syslog``: each line as a message to a syslog daemon.

Follows docker docs "Syslog logging driver" for the options, RFC 3164 and RFC 5424 for the forms,
and RFC 6587 section 3.4.2 (a line feed ends a message) on streams. TLS is not spoken.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping

import msgspec

from jaula.errors import InvalidRequest
from jaula.logs import options
from jaula.logs.outlet import Outlet
from jaula.logs.remote import COMMON, RemoteWriter, buffer_size
from jaula.logs.timestamp import Clock

LOCAL = "/dev/log"
_FACILITIES = (
    *("kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron"),
    *("authpriv", "ftp", "ntp", "security", "console", "solaris-cron"),
    *(f"local{number}" for number in range(8)),
)
"""In the order of their numbers: RFC 5424, section 6.2.1."""
_SEVERITY = {"stdout": 6, "stderr": 3}  # info, err
_MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
_FORMATS = ("", "rfc3164", "rfc5424", "rfc5424micro")
_OWN = ("syslog-address", "syslog-facility", "syslog-format")


class Settings(msgspec.Struct, frozen=True):
    """``scheme`` is unixgram, unix, udp or tcp; ``place`` a path or ``host:port``."""

    scheme: str
    place: str
    facility: int
    form: str
    limit: int


def check(given: Mapping[str, str]) -> Settings:
    """The options, read. Raises ``InvalidRequest``."""
    options.known("syslog", given, (*_OWN, *COMMON))
    scheme, place = _address(given.get("syslog-address", ""))
    form = given.get("syslog-format", "")
    if form not in _FORMATS:
        raise InvalidRequest(f"invalid syslog format {form!r}", hint=", ".join(_FORMATS[1:]))
    return Settings(
        scheme,
        place,
        _facility(given.get("syslog-facility", "daemon")),
        form,
        buffer_size("syslog", given),
    )


def _facility(text: str) -> int:
    if text in _FACILITIES:
        return _FACILITIES.index(text)
    if text.isascii() and text.isdecimal() and len(text) <= 2 and int(text) < 24:
        return int(text)
    raise InvalidRequest(f"invalid syslog facility {text!r}", hint="daemon, user, local0, ...")


def _address(text: str) -> tuple[str, str]:
    if not text:
        return "unixgram", LOCAL
    scheme, separator, place = text.partition("://")
    if scheme == "tcp+tls":
        raise InvalidRequest("syslog over TLS is not spoken", hint="send to a relay on this host")
    if not separator or scheme not in ("tcp", "udp", "unix", "unixgram"):
        raise InvalidRequest(
            f"invalid syslog address {text!r}",
            hint="unix:///dev/log, unixgram:///dev/log, udp://host:514 or tcp://host:514",
        )
    if scheme.startswith("unix"):
        if not place.startswith("/") or len(place) > 107:
            raise InvalidRequest(f"syslog address {text!r} has no path of a socket")
        return scheme, place
    host, _, port = place.rpartition(":")
    if not host or host.endswith(":"):
        host, port = place, "514"
    if not (port.isascii() and port.isdecimal() and 0 < int(port) < 65536):
        raise InvalidRequest(f"syslog address {text!r} has no valid port")
    return scheme, f"{host.strip('[]')}:{port}"


def open_writer(given: Mapping[str, str]) -> RemoteWriter:
    """Raises ``InvalidRequest`` for an option, ``OSError`` where nobody listens locally."""
    settings = check(given)
    stream = settings.scheme in ("tcp", "unix")
    outlet = Outlet(_connector(settings), settings.limit, stream=stream)
    tag = given.get("tag", "") or given.get("container-id", "")[:12]
    form = _form(settings, tag, b"\n" if stream else b"")
    return RemoteWriter(outlet, form)


def _connector(settings: Settings) -> Callable[[], socket.socket]:
    kind = socket.SOCK_STREAM if settings.scheme in ("tcp", "unix") else socket.SOCK_DGRAM
    if settings.scheme.startswith("unix"):
        family, target = socket.AF_UNIX, settings.place
    else:
        host, _, port = settings.place.rpartition(":")
        found = socket.getaddrinfo(host, int(port), type=kind)[0]
        family, target = found[0], found[4]  # type: ignore[assignment]

    def connect() -> socket.socket:
        sock = socket.socket(family, kind)
        try:
            sock.setblocking(False)
            try:
                sock.connect(target)
            except BlockingIOError:
                if settings.scheme != "tcp":
                    raise  # who listens there does not keep up
        except BaseException:
            sock.close()
            raise
        return sock

    return connect


def _form(settings: Settings, tag: str, end: bytes) -> Callable[[str, bytes, bool], bytes]:
    clock, pid = Clock(), os.getpid()
    host = os.uname().nodename
    clean = "".join(c if "!" <= c <= "~" else "_" for c in tag)

    def old(stream: str, line: bytes, whole: bool) -> bytes:
        now = time.localtime()
        stamp = f"{_MONTHS[now.tm_mon - 1]} {now.tm_mday:2d} " + time.strftime("%H:%M:%S", now)
        origin = f"{host} " if settings.form else ""
        head = f"<{settings.facility * 8 + _SEVERITY[stream]}>{stamp} {origin}{clean}[{pid}]: "
        return head.encode() + line + end

    def new(stream: str, line: bytes, whole: bool) -> bytes:
        stamp = clock.now()
        stamp = stamp[:-4] + "Z" if settings.form == "rfc5424micro" else stamp[:19] + "Z"
        priority = settings.facility * 8 + _SEVERITY[stream]
        head = f"<{priority}>1 {stamp} {host} {clean[:48]} {pid} - - "
        return head.encode() + line + end

    return new if settings.form.startswith("rfc5424") else old

"""The log driver ``syslog``: each line as a message to a syslog daemon.

Follows docker docs "Syslog logging driver" for the options, RFC 3164 and RFC 5424 for the forms,
RFC 6587 section 3.4.2 (a line feed ends a message) on streams, and RFC 5425 for TLS, with that
same end of a message, as Docker has it.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping

import msgspec

from jaula.errors import InvalidRequest
from jaula.logs import options
from jaula.logs.buffered_sender import BufferedSender, Transport
from jaula.logs.drivers.remote_base import COMMON, RemoteWriter, buffer_size
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
_TLS_FILES = ("syslog-tls-ca-cert", "syslog-tls-cert", "syslog-tls-key")
_OWN = (
    *("syslog-address", "syslog-facility", "syslog-format"),
    *(*_TLS_FILES, "syslog-tls-skip-verify"),
)
_TLS = "tcp+tls"
_SETTLE = 2.0  # seconds


class Settings(msgspec.Struct, frozen=True):
    """``scheme`` is unixgram, unix, udp, tcp or tcp+tls; ``place`` a path or ``host:port``.

    ``files`` are those of TLS, empty where they are not given.
    """

    scheme: str
    place: str
    facility: int
    form: str
    limit: int
    files: tuple[str, ...] = ("", "", "")
    verify: bool = True


def tls_files(given: Mapping[str, str]) -> tuple[str, ...]:
    """Files of the host that are read for these options."""
    return tuple(given[name] for name in _TLS_FILES if given.get(name))


def check(given: Mapping[str, str]) -> Settings:
    """The options, read. Raises ``InvalidRequest``."""
    options.check_names("syslog", given, (*_OWN, *COMMON))
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
        *_secured(scheme, given),
    )


def _secured(scheme: str, given: Mapping[str, str]) -> tuple[tuple[str, ...], bool]:
    found = tuple(given.get(name, "") for name in _TLS_FILES)
    skip = given.get("syslog-tls-skip-verify", "")
    if skip not in ("", "true", "false", "1", "0"):
        raise InvalidRequest(f"syslog-tls-skip-verify {skip!r}: true or false is wanted")
    if scheme != _TLS and (any(found) or skip):
        raise InvalidRequest("syslog-tls options are for tcp+tls:// addresses")
    for path in found:
        if path and (not path.startswith("/") or "\0" in path):
            raise InvalidRequest(f"syslog TLS file {path!r}: an absolute path is wanted")
    if bool(found[1]) != bool(found[2]):
        raise InvalidRequest("syslog-tls-cert and syslog-tls-key are wanted together")
    return found, skip not in ("true", "1")


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
    if not separator or scheme not in ("tcp", _TLS, "udp", "unix", "unixgram"):
        raise InvalidRequest(
            f"invalid syslog address {text!r}",
            hint="unix:///dev/log, unixgram:///dev/log, udp://host:514, tcp://host:514 or"
            " tcp+tls://host:6514",
        )
    if scheme.startswith("unix"):
        if not place.startswith("/") or len(place) > 107:
            raise InvalidRequest(f"syslog address {text!r} has no path of a socket")
        return scheme, place
    host, _, port = place.rpartition(":")
    if not host or host.endswith(":"):
        host, port = place, "6514" if scheme == _TLS else "514"
    if not (port.isascii() and port.isdecimal() and 0 < int(port) < 65536):
        raise InvalidRequest(f"syslog address {text!r} has no valid port")
    return scheme, f"{host.strip('[]')}:{port}"


def open_writer(given: Mapping[str, str]) -> RemoteWriter:
    """Raises ``InvalidRequest`` for an option, ``OSError`` where nobody listens locally."""
    settings = check(given)
    stream = settings.scheme in ("tcp", _TLS, "unix")
    outlet = BufferedSender(_connector(settings), settings.limit, stream=stream)
    tag = given.get("tag", "") or given.get("container-id", "")[:12]
    form = _form(settings, tag, b"\n" if stream else b"")
    return RemoteWriter(outlet, form)


def _connector(settings: Settings) -> Callable[[], Transport]:
    if settings.scheme == _TLS:
        return _securing(settings)
    return _plain_connector(settings)


def _securing(settings: Settings) -> Callable[[], Transport]:
    from jaula import tls
    from jaula.logs.tls_sender import TlsSocket

    context = tls.client_context(*settings.files, verify=settings.verify)
    connect = _plain_connector(settings)
    name = settings.place.rpartition(":")[0]
    patience = _SETTLE  # for the first connection only: later ones are made while it writes

    def secured() -> TlsSocket:
        nonlocal patience
        link = TlsSocket(connect(), tls.TlsCodec(context, server=False, name=name))
        link.settle(patience)
        patience = 0.0
        return link

    return secured


def _plain_connector(settings: Settings) -> Callable[[], socket.socket]:
    stream = settings.scheme in ("tcp", _TLS, "unix")
    kind = socket.SOCK_STREAM if stream else socket.SOCK_DGRAM
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
                if settings.scheme not in ("tcp", _TLS):
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

"""The log driver ``syslog``: send each line as a message to a syslog server.

Follows docker docs "Syslog logging driver" for the options and RFC 3164 and RFC 5424 for the
formats. On streams a line feed ends a message (RFC 6587 section 3.4.2). TLS follows RFC 5425, but
messages end in a line feed there too, as in Docker.
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
from jaula.logs.options import TLS_FILES
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
_OPTIONS = (
    *("syslog-address", "syslog-facility", "syslog-format"),
    *(*TLS_FILES, "syslog-tls-skip-verify"),
)
_TLS = "tcp+tls"
_HANDSHAKE_TIMEOUT = 2.0  # seconds


class Settings(msgspec.Struct, frozen=True):
    """The parsed options.

    ``scheme`` is unixgram, unix, udp, tcp or tcp+tls. ``address`` is a path or ``host:port``.
    ``limit`` is the buffer size in bytes. ``files`` are the paths of the CA certificate, the client
    certificate and its key, empty if absent.
    """

    scheme: str
    address: str
    facility: int
    format: str
    limit: int
    files: tuple[str, ...] = ("", "", "")
    verify: bool = True


def check(log_opts: Mapping[str, str]) -> Settings:
    """Parse the options.

    :raises InvalidRequest: when one is not valid.
    """
    options.check_names("syslog", log_opts, (*_OPTIONS, *COMMON))
    scheme, address = _address(log_opts.get("syslog-address", ""))
    format = log_opts.get("syslog-format", "")
    if format not in _FORMATS:
        raise InvalidRequest(f"invalid syslog format {format!r}", hint=", ".join(_FORMATS[1:]))
    return Settings(
        scheme,
        address,
        _facility(log_opts.get("syslog-facility", "daemon")),
        format,
        buffer_size("syslog", log_opts),
        *_tls_options(scheme, log_opts),
    )


def _tls_options(scheme: str, log_opts: Mapping[str, str]) -> tuple[tuple[str, ...], bool]:
    files = tuple(log_opts.get(name, "") for name in TLS_FILES)
    skip = log_opts.get("syslog-tls-skip-verify", "")
    if skip not in ("", "true", "false", "1", "0"):
        raise InvalidRequest(f"syslog-tls-skip-verify {skip!r} must be true or false")
    if scheme != _TLS and (any(files) or skip):
        raise InvalidRequest("syslog-tls options are for tcp+tls:// addresses")
    for path in files:
        if path and (not path.startswith("/") or "\0" in path):
            raise InvalidRequest(f"syslog TLS file {path!r} must be an absolute path")
    if bool(files[1]) != bool(files[2]):
        raise InvalidRequest("syslog-tls-cert and syslog-tls-key must be set together")
    return files, skip not in ("true", "1")


def _facility(text: str) -> int:
    if text in _FACILITIES:
        return _FACILITIES.index(text)
    if text.isascii() and text.isdecimal() and len(text) <= 2 and int(text) < 24:
        return int(text)
    raise InvalidRequest(f"invalid syslog facility {text!r}", hint="daemon, user, local0, ...")


def _address(text: str) -> tuple[str, str]:
    if not text:
        return "unixgram", LOCAL
    scheme, separator, address = text.partition("://")
    if not separator or scheme not in ("tcp", _TLS, "udp", "unix", "unixgram"):
        raise InvalidRequest(
            f"invalid syslog address {text!r}",
            hint="unix:///dev/log, unixgram:///dev/log, udp://host:514, tcp://host:514 or"
            " tcp+tls://host:6514",
        )
    if scheme.startswith("unix"):
        if not address.startswith("/") or len(address) > 107:
            raise InvalidRequest(f"syslog address {text!r} has no valid socket path")
        return scheme, address
    host, _, port = address.rpartition(":")
    if not host or host.endswith(":"):
        host, port = address, "6514" if scheme == _TLS else "514"
    if not (port.isascii() and port.isdecimal() and 0 < int(port) < 65536):
        raise InvalidRequest(f"syslog address {text!r} has no valid port")
    return scheme, f"{host.strip('[]')}:{port}"


def open_writer(log_opts: Mapping[str, str]) -> RemoteWriter:
    """Connect to the syslog server.

    :raises InvalidRequest: when an option is not valid.
    :raises OSError: when no server listens at a local address.
    """
    settings = check(log_opts)
    stream = settings.scheme in ("tcp", _TLS, "unix")
    sender = BufferedSender(_connector(settings), settings.limit, stream=stream)
    tag = log_opts.get("tag", "") or log_opts.get("container-id", "")[:12]
    return RemoteWriter(sender, _formatter(settings, tag, b"\n" if stream else b""))


def _connector(settings: Settings) -> Callable[[], Transport]:
    if settings.scheme == _TLS:
        return _tls_connector(settings)
    return _plain_connector(settings)


def _tls_connector(settings: Settings) -> Callable[[], Transport]:
    from jaula import tls
    from jaula.logs.tls_sender import TlsSocket

    context = tls.client_context(*settings.files, verify=settings.verify)
    connect = _plain_connector(settings)
    name = settings.address.rpartition(":")[0]
    timeout = _HANDSHAKE_TIMEOUT  # only the first connection waits: later ones are made in write

    def connect_tls() -> TlsSocket:
        nonlocal timeout
        sock = TlsSocket(connect(), tls.TlsCodec(context, server=False, name=name))
        sock.handshake(timeout)
        timeout = 0.0
        return sock

    return connect_tls


def _plain_connector(settings: Settings) -> Callable[[], socket.socket]:
    stream = settings.scheme in ("tcp", _TLS, "unix")
    kind = socket.SOCK_STREAM if stream else socket.SOCK_DGRAM
    if settings.scheme.startswith("unix"):
        family, target = socket.AF_UNIX, settings.address
    else:
        host, _, port = settings.address.rpartition(":")
        resolved = socket.getaddrinfo(host, int(port), type=kind)[0]
        family, target = resolved[0], resolved[4]  # type: ignore[assignment]

    def connect() -> socket.socket:
        sock = socket.socket(family, kind)
        try:
            sock.setblocking(False)
            try:
                sock.connect(target)
            except BlockingIOError:
                if settings.scheme not in ("tcp", _TLS):
                    raise  # the backlog of the listening socket is full
        except BaseException:
            sock.close()
            raise
        return sock

    return connect


def _formatter(settings: Settings, tag: str, end: bytes) -> Callable[[str, bytes, bool], bytes]:
    clock, pid = Clock(), os.getpid()
    host = os.uname().nodename
    clean = "".join(c if "!" <= c <= "~" else "_" for c in tag)

    def rfc3164(stream: str, line: bytes, complete: bool) -> bytes:
        now = time.localtime()
        stamp = f"{_MONTHS[now.tm_mon - 1]} {now.tm_mday:2d} " + time.strftime("%H:%M:%S", now)
        origin = f"{host} " if settings.format else ""
        head = f"<{settings.facility * 8 + _SEVERITY[stream]}>{stamp} {origin}{clean}[{pid}]: "
        return head.encode() + line + end

    def rfc5424(stream: str, line: bytes, complete: bool) -> bytes:
        stamp = clock.now()
        stamp = stamp[:-4] + "Z" if settings.format == "rfc5424micro" else stamp[:19] + "Z"
        priority = settings.facility * 8 + _SEVERITY[stream]
        head = f"<{priority}>1 {stamp} {host} {clean[:48]} {pid} - - "
        return head.encode() + line + end

    return rfc5424 if settings.format.startswith("rfc5424") else rfc3164

"""The log driver ``syslog``: send each line as a message to a syslog server.

Follows docker docs "Syslog logging driver" for the options and RFC 3164 and RFC 5424 for the
formats. On streams a line feed ends a message (RFC 6587 section 3.4.2). TLS follows RFC 5425, but
messages end in a line feed there too, as in Docker.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

import msgspec

from jaula.errors import InvalidRequest
from jaula.logs import log_opt
from jaula.logs.address import TLS, LogAddress
from jaula.logs.address import parse as parse_address
from jaula.logs.buffered_sender import BufferedSender
from jaula.logs.drivers.remote_base import COMMON, Message, RemoteWriter, buffer_size
from jaula.logs.log_connection import connector
from jaula.logs.log_opt import ADDRESS, OUTSIDE, TLS_FILES
from jaula.logs.timestamp import Clock

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
    *(ADDRESS, "syslog-facility", "syslog-format"),
    *(*TLS_FILES, "syslog-tls-skip-verify"),
)


class Settings(msgspec.Struct, frozen=True):
    """The parsed options.

    ``limit`` is the buffer size in bytes. ``files`` are the paths of the CA certificate, the client
    certificate and its key, empty if absent. With ``outside`` the server's name may not resolve to
    an address of the host.
    """

    address: LogAddress
    facility: int
    format: str
    limit: int
    files: tuple[str, ...] = ("", "", "")
    verify: bool = True
    outside: bool = False


def check(log_opts: Mapping[str, str]) -> Settings:
    """Parse the options.

    :raises InvalidRequest: when one is not valid.
    """
    log_opt.check_names("syslog", log_opts, (*_OPTIONS, *COMMON, OUTSIDE))
    address = parse_address(log_opts.get(ADDRESS, ""))
    format = log_opts.get("syslog-format", "")
    if format not in _FORMATS:
        raise InvalidRequest(f"invalid syslog format {format!r}", hint=", ".join(_FORMATS[1:]))
    return Settings(
        address,
        _facility(log_opts.get("syslog-facility", "daemon")),
        format,
        buffer_size("syslog", log_opts),
        *_tls_options(address.scheme, log_opts),
        outside=OUTSIDE in log_opts,
    )


def _tls_options(scheme: str, log_opts: Mapping[str, str]) -> tuple[tuple[str, ...], bool]:
    files = tuple(log_opts.get(name, "") for name in TLS_FILES)
    skip = log_opts.get("syslog-tls-skip-verify", "")
    if skip not in ("", "true", "false", "1", "0"):
        raise InvalidRequest(f"syslog-tls-skip-verify {skip!r} must be true or false")
    if scheme != TLS and (any(files) or skip):
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


def open_writer(log_opts: Mapping[str, str]) -> RemoteWriter:
    """Connect to the syslog server.

    :raises InvalidRequest: when an option is not valid.
    :raises OSError: when no server listens at a local address.
    """
    settings = check(log_opts)
    stream = settings.address.stream
    connect = connector(
        settings.address, outside=settings.outside, files=settings.files, verify=settings.verify
    )
    sender = BufferedSender(connect, settings.limit, stream=stream)
    tag = log_opts.get("tag", "") or log_opts.get("container-id", "")[:12]
    return RemoteWriter(sender, _formatter(settings, tag, b"\n" if stream else b""))


def _formatter(settings: Settings, tag: str, end: bytes) -> Message:
    clock, pid = Clock(), os.getpid()
    host = os.uname().nodename
    clean = "".join(c if "!" <= c <= "~" else "_" for c in tag)

    def rfc3164(stream: str, line: bytes, complete: bool) -> tuple[bytes]:
        now = time.localtime()
        stamp = f"{_MONTHS[now.tm_mon - 1]} {now.tm_mday:2d} " + time.strftime("%H:%M:%S", now)
        origin = f"{host} " if settings.format else ""
        head = f"<{settings.facility * 8 + _SEVERITY[stream]}>{stamp} {origin}{clean}[{pid}]: "
        return (head.encode() + line + end,)

    def rfc5424(stream: str, line: bytes, complete: bool) -> tuple[bytes]:
        stamp = clock.now()
        stamp = stamp[:-4] + "Z" if settings.format == "rfc5424micro" else stamp[:19] + "Z"
        priority = settings.facility * 8 + _SEVERITY[stream]
        head = f"<{priority}>1 {stamp} {host} {clean[:48]} {pid} - - "
        return (head.encode() + line + end,)

    return rfc5424 if settings.format.startswith("rfc5424") else rfc3164

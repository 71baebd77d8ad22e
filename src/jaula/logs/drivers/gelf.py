"""The log driver ``gelf``: each line becomes a message for Graylog, Logstash and others.

Follows docker docs "Graylog Extended Format logging driver" and the GELF specification 1.1. Over
UDP a message is compressed, and split into at most 128 chunks if it exceeds a datagram. Over TCP a
zero byte ends it. JSON contains no zero byte.
"""

from __future__ import annotations

import os
import time
import zlib
from collections.abc import Mapping

import msgspec

from jaula.errors import InvalidRequest
from jaula.logs import log_opt
from jaula.logs.address import LogAddress
from jaula.logs.address import parse as parse_log_address
from jaula.logs.buffered_sender import BufferedSender
from jaula.logs.drivers.remote_base import COMMON, RemoteWriter, attributes, buffer_size
from jaula.logs.log_connection import connector
from jaula.logs.log_opt import OUTSIDE

_OPTIONS = (
    *("gelf-address", "gelf-compression-type", "gelf-compression-level"),
    *("gelf-tcp-max-reconnect", "gelf-tcp-reconnect-delay"),
    *log_opt.ATTRIBUTES,
)
_WINDOW_BITS = {"gzip": 31, "zlib": 15, "none": 0}  # of zlib.compressobj
_LEVEL = {"stdout": 6, "stderr": 3}  # syslog(3): info, err
_CHUNK_SIZE = 1420  # bytes of a datagram, as Graylog's libraries; fits an Ethernet frame
_CHUNK_HEAD = b"\x1e\x0f"
_MAX_CHUNKS = 128

_encode = msgspec.json.Encoder().encode


class Settings(msgspec.Struct, frozen=True):
    """The parsed options; ``limit`` is the buffer size in bytes. Compression is for UDP."""

    address: LogAddress
    limit: int
    compression: str
    level: int
    outside: bool


def parse_address(text: str) -> LogAddress:
    """Parse ``gelf-address``.

    :raises InvalidRequest: when it is not valid, or has no port.
    """
    scheme, separator, rest = text.partition("://")
    host, _, port = rest.rpartition(":")
    if not separator or scheme not in ("udp", "tcp") or not host or not port:
        raise InvalidRequest(
            f"invalid gelf-address {text!r}", hint="udp://host:12201 or tcp://host:12201"
        )
    return parse_log_address(text)


def check(log_opts: Mapping[str, str]) -> Settings:
    """Parse the options.

    :raises InvalidRequest: when one is not valid, or the address is absent.
    """
    log_opt.check_names("gelf", log_opts, (*_OPTIONS, *COMMON, OUTSIDE))
    if not log_opts.get("gelf-address"):
        raise InvalidRequest("gelf-address is a required parameter", hint="udp://host:12201")
    address = parse_address(log_opts["gelf-address"])
    for prefix, scheme in (("gelf-compression-", "udp"), ("gelf-tcp-", "tcp")):
        for name in log_opts:
            if name.startswith(prefix) and address.scheme != scheme:
                raise InvalidRequest(f"{name} is for a {scheme} address, not {address}")
    compression = log_opts.get("gelf-compression-type", "gzip")
    if compression not in _WINDOW_BITS:
        raise InvalidRequest(
            f"invalid gelf-compression-type {compression!r}", hint="gzip, zlib or none"
        )
    for name in ("gelf-tcp-max-reconnect", "gelf-tcp-reconnect-delay"):
        _number(name, log_opts.get(name, "0"), 0, 1_000_000)
    level = log_opts.get("gelf-compression-level", "1")
    return Settings(
        address,
        buffer_size("gelf", log_opts),
        compression,
        _number("gelf-compression-level", level, -1, 9),
        OUTSIDE in log_opts,
    )


def _number(name: str, text: str, low: int, high: int) -> int:
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdecimal() and len(digits) < 8):
        raise InvalidRequest(f"{name} {text!r} is not a number")
    if not low <= int(text) <= high:
        raise InvalidRequest(f"{name} must be from {low} to {high}: got {text}")
    return int(text)


def open_writer(log_opts: Mapping[str, str]) -> RemoteWriter:
    """Connect to the server; if a TCP server does not answer, lines are buffered meanwhile.

    :raises InvalidRequest: when an option is not valid.
    :raises OSError: when the server's name is not known.
    """
    settings = check(log_opts)
    connect = connector(settings.address, outside=settings.outside)
    stream = settings.address.stream
    host = os.uname().nodename
    fields: dict[str, str] = {
        "_container_id": log_opts.get("container-id", ""),
        "_container_name": log_opts.get("container-name", ""),
        "_tag": log_opts.get("tag", ""),
        **{f"_{name}": text for name, text in attributes(log_opts).items()},
    }

    def messages(source: str, line: bytes, complete: bool) -> tuple[bytes, ...]:
        document = _encode(
            {
                "version": "1.1",
                "host": host,
                "short_message": line.decode("utf-8", "replace"),
                "timestamp": time.time_ns() // 1_000_000 / 1000,
                "level": _LEVEL[source],
                **fields,
            }
        )
        if stream:
            return (document + b"\0",)
        return chunks(compressed(document, settings.compression, settings.level))

    return RemoteWriter(BufferedSender(connect, settings.limit, stream=stream), messages)


def compressed(data: bytes, kind: str, level: int) -> bytes:
    """Return a message as gzip, zlib or plain JSON."""
    if kind == "none":
        return data
    compressor = zlib.compressobj(level, zlib.DEFLATED, _WINDOW_BITS[kind])
    return compressor.compress(data) + compressor.flush()


def chunks(data: bytes) -> tuple[bytes, ...]:
    """Return the datagrams of a message; none if it is too large for the protocol.

    A chunk has two magic bytes, eight of the message's id, its number and the number of chunks.
    """
    if len(data) <= _CHUNK_SIZE:
        return (data,)
    size = _CHUNK_SIZE - 12
    parts = [data[at : at + size] for at in range(0, len(data), size)]
    if len(parts) > _MAX_CHUNKS:
        return ()
    identity = os.urandom(8)
    return tuple(
        _CHUNK_HEAD + identity + bytes((number, len(parts))) + part
        for number, part in enumerate(parts)
    )

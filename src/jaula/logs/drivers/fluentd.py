"""The log driver ``fluentd``: each line becomes an event of fluentd's forward protocol.

Follows docker docs "Fluentd logging driver" and the Fluentd Forward Protocol Specification v1: in
message mode an event is the MessagePack array of tag, time and record. msgspec encodes it.

A container never waits for its log. So the options about retries, time-outs and asynchronous
connections, which Docker's blocking client needs, are checked and have no other effect, and
acknowledgements cannot be requested.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

import msgspec.msgpack

from jaula.errors import InvalidRequest
from jaula.logs import log_opt
from jaula.logs.address import TLS, LogAddress
from jaula.logs.address import parse as parse_log_address
from jaula.logs.buffered_sender import BufferedSender
from jaula.logs.drivers.remote_base import COMMON, RemoteWriter, attributes, buffer_size
from jaula.logs.log_connection import connector
from jaula.logs.log_opt import OUTSIDE
from jaula.spec import units

_BOOLEANS = ("fluentd-async", "fluentd-request-ack", "fluentd-sub-second-precision")
_DURATIONS = (*("fluentd-async-reconnect-interval", "fluentd-retry-wait", "fluentd-write-timeout"),)
_OPTIONS = (
    *("fluentd-address", "fluentd-buffer-limit", "fluentd-max-retries"),
    *_BOOLEANS,
    *_DURATIONS,
    *log_opt.ATTRIBUTES,
)
_EVENT_TIME = 0  # the extension type of a time with nanoseconds

_encode = msgspec.msgpack.Encoder().encode
PORT = 24224


class Settings(msgspec.Struct, frozen=True):
    """The parsed options; ``limit`` is the buffer size in bytes."""

    address: LogAddress
    limit: int
    nanoseconds: bool
    outside: bool


def parse_address(text: str) -> LogAddress:
    """Parse ``fluentd-address``; scheme and port are optional.

    :raises InvalidRequest: when it is not valid.
    """
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "tcp", text or f"127.0.0.1:{PORT}"
    if scheme == "unix":
        return parse_log_address(text)
    if scheme not in ("tcp", "tls", TLS):
        raise InvalidRequest(
            f"invalid fluentd-address {text!r}", hint="tcp://host:24224 or unix:///path"
        )
    host, colon, _ = rest.rpartition(":")
    if not colon or host.endswith(":") or rest.endswith("]"):
        rest = f"{rest}:{PORT}"
    return parse_log_address(f"{TLS if scheme == 'tls' else scheme}://{rest}")


def check(log_opts: Mapping[str, str]) -> Settings:
    """Parse the options.

    :raises InvalidRequest: when one is not valid.
    """
    log_opt.check_names("fluentd", log_opts, (*_OPTIONS, *COMMON, OUTSIDE))
    flags = {
        name: log_opt.parse_boolean(name, log_opts[name]) for name in _BOOLEANS if name in log_opts
    }
    if flags.get("fluentd-request-ack"):
        raise InvalidRequest(
            "fluentd-request-ack is not supported: a container does not wait for its log"
        )
    for name in _DURATIONS:
        if name in log_opts:
            _check_duration(name, log_opts[name])
    if "fluentd-max-retries" in log_opts and not log_opts["fluentd-max-retries"].isdecimal():
        raise InvalidRequest(f"fluentd-max-retries {log_opts['fluentd-max-retries']!r}: no number")
    limit = buffer_size("fluentd", log_opts)
    if "fluentd-buffer-limit" in log_opts and "max-buffer-size" not in log_opts:
        name = "fluentd-buffer-limit"
        limit = log_opt.parse_size(name, log_opts[name]) or log_opt.BUFFER
    return Settings(
        parse_address(log_opts.get("fluentd-address", "")),
        limit,
        flags.get("fluentd-sub-second-precision", False),
        OUTSIDE in log_opts,
    )


def _check_duration(name: str, text: str) -> None:
    try:
        units.nanoseconds(text)
    except ValueError:
        raise InvalidRequest(f"{name} {text!r} is not a duration", hint="500ms, 3s") from None


def open_writer(log_opts: Mapping[str, str]) -> RemoteWriter:
    """Connect to the server; if it does not answer, lines are buffered meanwhile.

    :raises InvalidRequest: when an option is not valid.
    :raises OSError: when there is no socket at a local address.
    """
    settings = check(log_opts)
    connect = connector(settings.address, outside=settings.outside)
    tag = log_opts.get("tag", "") or log_opts.get("container-id", "")[:12]
    fields = {
        "container_id": log_opts.get("container-id", ""),
        "container_name": f"/{log_opts.get('container-name', '')}",
        **attributes(log_opts),
    }

    def message(stream: str, line: bytes, complete: bool) -> tuple[bytes]:
        record = fields | {"source": stream, "log": line.decode("utf-8", "replace")}
        if not complete:
            record["partial_message"] = "true"
        seconds, fraction = divmod(time.time_ns(), 1_000_000_000)
        moment: int | msgspec.msgpack.Ext = seconds
        if settings.nanoseconds:
            data = seconds.to_bytes(4, "big") + fraction.to_bytes(4, "big")
            moment = msgspec.msgpack.Ext(_EVENT_TIME, data)
        return (_encode((tag, moment, record)),)

    return RemoteWriter(BufferedSender(connect, settings.limit, stream=True), message)

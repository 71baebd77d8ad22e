"""``POST /build``: its parameters from the command line, its body and its answer."""

from __future__ import annotations

import os

from jaula.cli.cli_errors import Unreachable, UsageError
from jaula.cli.client.api_client import checked, target
from jaula.cli.images import platform_flag
from jaula.spec.fast_json import decode_lines, encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from jaula.cli.client.api_client import Client
    from jaula.cli.command_parser import Options
    from jaula.features.build.cli.client_context import Context

    Query = list[tuple[str, object]]

_EPOCH = "SOURCE_DATE_EPOCH"
_CHUNK = 1 << 18  # bytes of one chunk


def query(options: Options, context: Context, names: list[str]) -> Query:
    """Return the parameters that depend on the command line only.

    :raises UsageError: when a value is invalid.
    """
    from jaula.cli.containers.create_body import host_line, ulimit

    parameters: Query = [("t", name) for name in names]
    parameters += [
        ("remote", context.remote),
        ("dockerfile", context.dockerfile),
        ("target", options.text("target")),
        ("platform", platform_flag.requested(options)),
        ("buildargs", _json(_build_args(options.texts("build-arg")))),
        ("labels", _json(_pairs(options.texts("label")))),
        ("cachefrom", _json([_cache_image(word) for word in options.texts("cache-from")])),
        ("nocache", options.on("no-cache")),
        ("pull", options.on("pull")),
        ("squash", options.on("squash")),
        ("rm", options.on("rm", default=True)),
        ("forcerm", options.on("force-rm")),
        ("networkmode", options.text("network")),
        ("cgroupparent", options.text("cgroup-parent")),
        ("cpuperiod", options.number("cpu-period") or ""),
        ("cpuquota", options.number("cpu-quota") or ""),
        ("cpushares", options.number("cpu-shares") or ""),
        ("cpusetcpus", options.text("cpuset-cpus")),
        ("cpusetmems", options.text("cpuset-mems")),
        ("memory", options.number("memory") or ""),
        ("memswap", options.number("memory-swap") or ""),
        ("shmsize", options.number("shm-size") or ""),
        ("isolation", options.text("isolation")),
        ("ulimits", _json([ulimit(word) for word in options.texts("ulimit")])),
        ("securityopt", _json(options.texts("security-opt"))),
        ("progress", "steps"),
    ]
    parameters += [("extrahosts", host_line(word)) for word in options.texts("add-host")]
    parameters += [("allow", word) for word in options.texts("allow")]
    return parameters


def _json(value: object) -> str:
    return encode(value) if value else ""


def _build_args(words: list[str]) -> dict[str, str | None]:
    """Return the values of ``--build-arg``.

    A name without a value takes the value of the client's environment variable, or None if it is
    not set.
    """
    values: dict[str, str | None] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not name:
            raise UsageError(
                f'invalid argument "{word}" for "--build-arg" flag: must be NAME[=VALUE]'
            )
        values[name] = value if equals else os.environ.get(name)
    if _EPOCH in os.environ and _EPOCH not in values:
        values[_EPOCH] = os.environ[_EPOCH]
    return values


def _pairs(words: list[str]) -> dict[str, str]:
    return dict(word.partition("=")[::2] for word in words)


def _cache_image(word: str) -> str:
    """Return the image of a ``--cache-from``: ``NAME`` or ``type=registry,ref=NAME``."""
    if "=" not in word:
        return word
    from jaula.features.build.cli.build_secrets import parse_fields

    values = parse_fields(word, "cache-from", ("type", "ref"))
    if values.get("type", "registry") != "registry" or not values.get("ref"):
        raise UsageError(
            f'invalid argument "{word}" for "--cache-from" flag: must be an image '
            "(NAME, or type=registry,ref=NAME)"
        )
    return values["ref"]


def headers() -> tuple[tuple[str, str], ...]:
    """Return ``X-Registry-Config``: the credentials in the user's configuration file."""
    from os import path

    from jaula.images.registry.auth.authfile import auth_file_path

    if not path.exists(auth_file_path()):
        return ()
    from base64 import urlsafe_b64encode

    from jaula.cli.images import registry_auth

    document = registry_auth.credential_file().document()
    servers = [*(document.get("auths") or {}), *(document.get("credHelpers") or {})]
    credentials: dict[str, dict[str, Any]] = {}
    for server in servers:
        login = registry_auth.stored_login(server)
        if login.known:
            credentials[registry_auth.key(server)] = registry_auth.auth_config(server, login)
    if not credentials:
        return ()
    return (("X-Registry-Config", urlsafe_b64encode(encode(credentials).encode()).decode()),)


def send(
    client: Client, parameters: Query, context: Context, *, compress: bool
) -> Iterator[dict[str, Any]]:
    """Send the context and yield the engine's messages as they arrive.

    :raises EngineError: when the engine refuses the request.
    """
    connection = client.connection()
    all_headers = (
        ("Content-Type", "application/x-tar"),
        ("Transfer-Encoding", "chunked"),
        *headers(),
    )
    connection.send("POST", target("/build", parameters), None, all_headers)
    body = _ChunkedBody(connection, compress=compress)
    try:
        context.send(body.write)
        body.finish()
    except Unreachable:
        connection.reusable = False  # the engine's error answer may be unread
    return decode_lines(checked(connection.response()).chunks())


class _ChunkedBody:
    """Writes few large chunks instead of one for each tar header. ``compress`` applies gzip."""

    def __init__(self, connection: Any, *, compress: bool) -> None:
        self._connection = connection
        self._buffer = bytearray()
        self._compressor = None
        if compress:
            import zlib

            self._compressor = zlib.compressobj(wbits=31)

    def write(self, data: bytes | memoryview) -> None:
        self._buffer += self._compressor.compress(data) if self._compressor else data
        if len(self._buffer) >= _CHUNK:
            self._flush()

    def finish(self) -> None:
        if self._compressor:
            self._buffer += self._compressor.flush()
        self._flush()
        self._connection.send_raw(b"0\r\n\r\n")

    def _flush(self) -> None:
        if self._buffer:
            self._connection.send_raw(b"%x\r\n%s\r\n" % (len(self._buffer), bytes(self._buffer)))
            self._buffer.clear()

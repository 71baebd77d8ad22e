"""``POST /build``: its parameters from the command line, its body, its answer."""

from __future__ import annotations

import os

from jaula.cli.client.client import checked, target
from jaula.cli.errors import Unreachable, UsageError
from jaula.spec.fast_json import decode_lines, encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from jaula.cli.build.context import Context
    from jaula.cli.client.client import Client
    from jaula.cli.command import Options

    Query = list[tuple[str, object]]

_EPOCH = "SOURCE_DATE_EPOCH"
_PIECE = 1 << 18


def query(options: Options, context: Context, names: list[str]) -> Query:
    """The parameters that need nothing but the command line. Raises UsageError."""
    from jaula.cli.containers.options import host_line, ulimit

    found: Query = [("t", name) for name in names]
    found += [
        ("remote", context.remote),
        ("dockerfile", context.dockerfile),
        ("target", options.text("target")),
        ("platform", options.text("platform")),
        ("buildargs", _json(_build_args(options.texts("build-arg")))),
        ("labels", _json(_pairs(options.texts("label")))),
        ("cachefrom", _json([_cache(word) for word in options.texts("cache-from")])),
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
    found += [("extrahosts", host_line(word)) for word in options.texts("add-host")]
    found += [("allow", word) for word in options.texts("allow")]
    return found


def _json(value: object) -> str:
    return encode(value) if value else ""


def _build_args(words: list[str]) -> dict[str, str | None]:
    """A name alone has the value of that variable here, and none where there is none."""
    found: dict[str, str | None] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not name:
            raise UsageError(f'invalid argument "{word}" for "--build-arg" flag: NAME[=VALUE]')
        found[name] = value if equals else os.environ.get(name)
    if _EPOCH in os.environ and _EPOCH not in found:
        found[_EPOCH] = os.environ[_EPOCH]
    return found


def _pairs(words: list[str]) -> dict[str, str]:
    return dict(word.partition("=")[::2] for word in words)


def _cache(word: str) -> str:
    """An image's name, which may be written ``type=registry,ref=NAME``."""
    if "=" not in word:
        return word
    from jaula.cli.build.secrets import fields

    given = fields(word, "cache-from", ("type", "ref"))
    if given.get("type", "registry") != "registry" or not given.get("ref"):
        raise UsageError(
            f'invalid argument "{word}" for "--cache-from" flag: an image is wanted '
            "(NAME, or type=registry,ref=NAME)"
        )
    return given["ref"]


def headers() -> tuple[tuple[str, str], ...]:
    """``X-Registry-Config``: the credentials that this person's file has."""
    from os import path

    from jaula.images.registry.auth.authfile import auth_file_path

    if not path.exists(auth_file_path()):
        return ()
    from base64 import urlsafe_b64encode

    from jaula.cli.images import registry_auth

    document = registry_auth.file().document()
    servers = [*(document.get("auths") or {}), *(document.get("credHelpers") or {})]
    found: dict[str, dict[str, Any]] = {}
    for server in servers:
        login = registry_auth.found(server)
        if login.known:
            found[registry_auth.key(server)] = registry_auth.document(server, login)
    if not found:
        return ()
    return (("X-Registry-Config", urlsafe_b64encode(encode(found).encode()).decode()),)


def send(
    client: Client, parameters: Query, context: Context, *, compress: bool
) -> Iterator[dict[str, Any]]:
    """Send the context; the engine's messages as they come. Raises EngineError."""
    connection = client.connection()
    sent = (
        ("Content-Type", "application/x-tar"),
        ("Transfer-Encoding", "chunked"),
        *headers(),
    )
    connection.send("POST", target("/build", parameters), None, sent)
    body = _Body(connection, compress=compress)
    try:
        context.send(body.write)
        body.finish()
    except Unreachable:
        connection.reusable = False  # a refusal may be waiting to be read
    return decode_lines(checked(connection.response()).chunks())


class _Body:
    """Few large chunks instead of one for each header of the tar."""

    def __init__(self, connection: Any, *, compress: bool) -> None:
        self._connection = connection
        self._held = bytearray()
        self._packer = None
        if compress:
            import zlib

            self._packer = zlib.compressobj(wbits=31)

    def write(self, data: bytes | memoryview) -> None:
        self._held += self._packer.compress(data) if self._packer else data
        if len(self._held) >= _PIECE:
            self._flush()

    def finish(self) -> None:
        if self._packer:
            self._held += self._packer.flush()
        self._flush()
        self._connection.send_raw(b"0\r\n\r\n")

    def _flush(self) -> None:
        if self._held:
            self._connection.send_raw(b"%x\r\n%s\r\n" % (len(self._held), bytes(self._held)))
            self._held.clear()

"""The servers of a registry in containerd's form: ``hosts.toml``.

Source: containerd ``docs/hosts.md``. The file is ``HOST/hosts.toml`` in a directory of
certificates. Its tables ``host."URL"`` are tried in their order, then ``server``.

An unknown key is an error, since a misspelt ``skip_verify`` or ``capabilities`` has another
meaning than its author expects. Relative paths are below the directory of the file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from jaula import trusted_file
from jaula.errors import InvalidRequest
from jaula.images.registry.http import url as http_url
from jaula.images.registry.http.certs_d import Certificates
from jaula.images.registry.http.url import Url
from jaula.spec import toml, units

NAME: Final = "hosts.toml"
API_ROOT: Final = "/v2"
PULL: Final = "pull"
RESOLVE: Final = "resolve"
PUSH: Final = "push"
CAPABILITIES: Final = frozenset({PULL, RESOLVE, PUSH})
_REFERRERS: Final = "referrers"  # signatures are read from every server that has the image

_SIZE_LIMIT: Final = 1 << 16  # bytes
_HOSTS_LIMIT: Final = 32
_TIMEOUT_LIMIT: Final = 600 * 10**9  # nanoseconds
_HEADER: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}", re.ASCII)  # RFC 9110, token
_VALUE: Final = re.compile(r"[ -~]{0,4096}", re.ASCII)
_OWN_HEADERS: Final = frozenset(
    {
        *("accept-encoding", "connection", "content-length", "content-range", "content-type"),
        *("host", "proxy-authorization", "range", "te", "trailer", "transfer-encoding", "upgrade"),
    }
)
"""Headers of which a request needs its own values."""


class HostSettings(msgspec.Struct, frozen=True):
    """The settings of one server.

    ``url`` is None for the registry itself. ``root`` is the path of the API. ``verify`` is None if
    the file does not state it, and so is ``capabilities``. ``dial_timeout`` is in seconds, 0 for
    the default.
    """

    url: Url | None = None
    root: str = API_ROOT
    capabilities: frozenset[str] | None = None
    certificates: Certificates = Certificates()
    verify: bool | None = None
    headers: tuple[tuple[str, str], ...] = ()
    dial_timeout: float = 0.0


class HostsFile(msgspec.Struct, frozen=True):
    """A file: the hosts in the order of trial, and the server that is tried last."""

    path: str
    hosts: tuple[HostSettings, ...]
    server: HostSettings


def read(path: str) -> HostsFile | None:
    """Return a file; None if it is absent.

    :raises InvalidRequest: if it is not valid, or other users may write it.
    """
    data = trusted_file.read(path, _SIZE_LIMIT, "hosts file", required=False)
    return None if data is None else parse(data, path)


def parse(data: bytes, path: str) -> HostsFile:
    """Parse a file. Pure. ``path`` is that of the file.

    :raises InvalidRequest: if it is not valid; the error names the file and the key.
    """
    try:
        document = toml.loads(data)
    except ValueError as error:
        raise InvalidRequest(f"hosts file {path}: it is not a TOML document: {error}") from None
    try:
        return _read_document(document, path)
    except InvalidRequest as error:
        raise InvalidRequest(f"hosts file {path}: {error.message}", hint=error.hint) from None


def _read_document(document: dict[str, Any], path: str) -> HostsFile:
    top = dict(document)
    server = _typed("server", top.pop("server", ""), str, "a URL")
    tables = _typed("host", top.pop("host", {}), dict, "a table")
    if len(tables) > _HOSTS_LIMIT:
        raise InvalidRequest(f"host: {len(tables)} hosts, the limit is {_HOSTS_LIMIT}")
    directory = os.path.dirname(path)
    hosts = []
    for address, table in tables.items():
        key = f'host."{ascii(address[:200])[1:-1]}"'
        settings = _typed(key, table, dict, "a table")
        hosts.append(_settings(settings, f"{key}.", key, address, directory))
    return HostsFile(path, tuple(hosts), _settings(top, "", "server", server, directory))


def _settings(
    table: Mapping[str, Any], prefix: str, key: str, address: str, directory: str
) -> HostSettings:
    """Return the settings in a table. ``key`` names its address in errors, ``prefix`` its keys."""
    for name in table:
        if name not in _KEYS:
            raise InvalidRequest(
                f"{prefix}{ascii(name[:80])[1:-1]}: unknown key", hint=f"known: {', '.join(_KEYS)}"
            )
    values = {
        name: read(prefix + name, table[name]) for name, read in _KEYS.items() if name in table
    }
    override = values.get("override_path", False)
    url, root = None, API_ROOT
    if address or key != "server":
        url, root = _address(key, address, override=override)
    elif override:
        raise InvalidRequest(f"{prefix}override_path: it needs a server")
    return HostSettings(
        url,
        root,
        values.get("capabilities"),
        Certificates(
            tuple(os.path.join(directory, path) for path in values.get("ca", ())),
            tuple(
                (os.path.join(directory, path), os.path.join(directory, own) if own else "")
                for path, own in values.get("client", ())
            ),
        ),
        None if "skip_verify" not in values else not values["skip_verify"],
        values.get("header", ()),
        values.get("dial_timeout", 0.0),
    )


def _address(key: str, address: str, *, override: bool) -> tuple[Url, str]:
    """Return the URL of a server, and the path of its API."""
    try:
        url = http_url.parse(address if "://" in address else f"https://{address}")
    except InvalidRequest:
        url = None
    if url is None or "?" in url.target or "#" in address:
        raise InvalidRequest(
            f"{key}: {address[:200]!a} is not the URL of a server",
            hint="use https://HOST[:PORT][/PATH]",
        )
    root = url.target.rstrip("/")
    if "//" in root or any(part in (".", "..") for part in root.split("/")):
        raise InvalidRequest(f"{key}: the path {root[:200]!r} is not normalised")
    if not override and not root.endswith(API_ROOT):
        root += API_ROOT
    return url.at("/"), root


def _typed(key: str, value: Any, kind: type[Any], description: str) -> Any:
    if not isinstance(value, kind):
        raise InvalidRequest(f"{key}: it must be {description}")
    return value


def _path(key: str, value: Any) -> str:
    if not isinstance(value, str) or not value or "\0" in value:
        raise InvalidRequest(f"{key}: it must be a path or a list of paths")
    return value


def _capabilities(key: str, value: Any) -> frozenset[str] | None:
    known = CAPABILITIES | {_REFERRERS}
    names = [n.lower() if isinstance(n, str) else n for n in _typed(key, value, list, "a list")]
    for name in names:
        if not isinstance(name, str) or name not in known:
            raise InvalidRequest(
                f"{key}: unknown capability {str(name)[:80]!r}",
                hint=f"known: {', '.join(sorted(known))}",
            )
    return frozenset(names) & CAPABILITIES if names else None


def _authorities(key: str, value: Any) -> tuple[str, ...]:
    return tuple(_path(key, path) for path in (value if isinstance(value, list) else [value]))


def _clients(key: str, value: Any) -> tuple[tuple[str, str], ...]:
    pairs = []
    for item in value if isinstance(value, list) else [value]:
        if not isinstance(item, list):
            pairs.append((_path(key, item), ""))
            continue
        if len(item) != 2 or (item[1] != "" and not isinstance(item[1], str)) or "\0" in item[1]:
            raise InvalidRequest(f"{key}: a list in it must be a certificate and its key")
        pairs.append((_path(key, item[0]), item[1]))
    return tuple(pairs)


def _flag(key: str, value: Any) -> bool:
    flag: bool = _typed(key, value, bool, "true or false")
    return flag


def _headers(key: str, value: Any) -> tuple[tuple[str, str], ...]:
    headers: dict[str, str] = {}
    for name, content in _typed(key, value, dict, "a table").items():
        about = f"{key}.{ascii(name[:80])[1:-1]}"
        lines = content if isinstance(content, list) else [content]
        if not _HEADER.fullmatch(name) or name.lower() in _OWN_HEADERS:
            raise InvalidRequest(f"{about}: a request cannot have this header")
        if name.lower() in headers:
            raise InvalidRequest(f"{about}: the header is there twice")
        if not all(isinstance(line, str) and _VALUE.fullmatch(line) for line in lines):
            raise InvalidRequest(f"{about}: the value must be printable ASCII, or a list of these")
        headers[name.lower()] = ", ".join(lines)
    return tuple(headers.items())


def _timeout(key: str, value: Any) -> float:
    text = _typed(key, value, str, "a duration, for example 5s")
    try:
        nanoseconds = units.nanoseconds(text)
    except ValueError:
        raise InvalidRequest(
            f"{key}: {text[:80]!a} is not a duration", hint="for example 5s or 500ms"
        ) from None
    if not 0 < nanoseconds <= _TIMEOUT_LIMIT:
        raise InvalidRequest(f"{key}: it must be more than 0 and at most 10m")
    return nanoseconds / 1e9


_KEYS: Final[dict[str, Callable[[str, Any], Any]]] = {
    "capabilities": _capabilities,
    "ca": _authorities,
    "client": _clients,
    "skip_verify": _flag,
    "header": _headers,
    "override_path": _flag,
    "dial_timeout": _timeout,
}

"""Network configurations: the files that name the plugins of a network and their settings.

Source: CNI specification 1.1, section 1; libcni/conf.go; go-cni, which loads the first file of a
directory in lexical order. A ``.conflist`` has a list of plugins. A ``.conf`` or ``.json`` has one
plugin, and is read as a list of one.

A member that the protocol does not define belongs to the plugin. It is kept as the bytes that the
file has, so a plugin gets its numbers and strings unchanged.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import msgspec

from jaula import trusted_file
from jaula.errors import InvalidRequest, Unavailable
from jaula.features.kubernetes.cni import cni_version

DIRECTORY = "/etc/cni/net.d"

_FILE_LIMIT = 1 << 20  # bytes of one file
_PLUGIN_LIMIT = 64  # plugins of one network
_INVALID_LIMIT = 100  # invalid files of a directory, after which no other file is read
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,127}")
_SUFFIXES = (".conf", ".conflist", ".json")
_DESCRIPTION = "network configuration"

_Kind = TypeVar("_Kind")


class PluginConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One plugin of a network: the program, and the members of its configuration as JSON text."""

    type: str
    capabilities: frozenset[str] = frozenset()
    members: dict[str, msgspec.Raw]


class NetworkConfig(msgspec.Struct, frozen=True, kw_only=True):
    """A network: its plugins in the order of ADD, and the version of the protocol.

    ``versions`` are the versions that the configuration and this runtime support, oldest first;
    ``version`` is one of them.
    """

    name: str
    version: str
    versions: tuple[str, ...]
    plugins: tuple[PluginConfig, ...]
    disable_check: bool = False
    disable_gc: bool = False
    source: str = ""

    def encode(self) -> bytes:
        """Return the configuration list as JSON, complete without any other file."""
        return msgspec.json.encode(
            {
                "cniVersion": self.version,
                "name": self.name,
                "disableCheck": self.disable_check,
                "disableGC": self.disable_gc,
                "loadOnlyInlinedPlugins": True,
                "plugins": [plugin.members for plugin in self.plugins],
            }
        )

    def with_version(self, chosen: str) -> NetworkConfig:
        """Return the configuration with another of its versions."""
        return msgspec.structs.replace(self, version=chosen)


class _List(msgspec.Struct, frozen=True, rename="camel"):
    """The members of a ``.conflist`` that the protocol defines."""

    name: str = ""
    cni_version: str = ""
    cni_versions: list[str] = []
    disable_check: bool | str = False
    disable_gc: bool | str = msgspec.field(default=False, name="disableGC")
    load_only_inlined_plugins: bool | str = False
    plugins: list[dict[str, msgspec.Raw]] | None = None


class _Plugin(msgspec.Struct, frozen=True, rename="camel"):
    """The members of a plugin's configuration that the protocol defines."""

    type: str = ""
    name: str = ""
    cni_version: str = ""
    capabilities: dict[str, bool] | None = None
    ipam: dict[str, msgspec.Raw] | None = None


class _Document(NamedTuple):
    config: NetworkConfig
    only_inlined: bool


def parse_list(data: bytes, source: str) -> NetworkConfig:
    """Return the network of a configuration list; ``source`` names the document in errors. Pure.

    :raises InvalidRequest: when the document is malformed or has no plugin.
    """
    document = _parse_list(data, source)
    return _complete(document.config)


def parse_single(data: bytes, source: str) -> NetworkConfig:
    """Return the network of a configuration with one plugin. Pure.

    :raises InvalidRequest: when the document is malformed.
    """
    members = _decode(data, dict[str, msgspec.Raw], source)
    if "type" not in members and "plugins" in members:
        raise InvalidRequest(
            f"{_DESCRIPTION} {source} is a list of plugins", hint="rename it to .conflist"
        )
    plugin = _plugin(members, source)
    head = msgspec.json.decode(msgspec.json.encode(members), type=_Plugin)
    return _network(_List(head.name, head.cni_version), (plugin,), source)


def load_file(path: str) -> NetworkConfig:
    """Return the network of a file, with the plugins of the directory that has the network's name.

    That directory, beside the file, has a ``.conf`` for each plugin that other software adds.

    :raises InvalidRequest: when a file is malformed, not a regular file, too large, or writable by
        other users.
    """
    data = trusted_file.read(path, _FILE_LIMIT, _DESCRIPTION, required=True) or b""
    if not path.endswith(".conflist"):
        return parse_single(data, path)
    document = _parse_list(data, path)
    config = document.config
    if not document.only_inlined:
        added = _added_plugins(os.path.join(os.path.dirname(path), config.name))
        config = msgspec.structs.replace(config, plugins=config.plugins + added)
    return _complete(config)


class LoadedConfig(NamedTuple):
    """The network of a directory, and the error of each file before it."""

    config: NetworkConfig
    skipped: tuple[InvalidRequest, ...]


def load_directory(directory: str) -> LoadedConfig:
    """Return the network of the first valid file of a directory, in lexical order.

    :raises Unavailable: when no file is valid.
    """
    skipped: list[InvalidRequest] = []
    for name in _files(directory, _SUFFIXES):
        try:
            return LoadedConfig(load_file(os.path.join(directory, name)), tuple(skipped))
        except InvalidRequest as error:
            skipped.append(error)
        if len(skipped) == _INVALID_LIMIT:
            break
    if skipped:
        others = f" (and {len(skipped) - 1} other files)" if len(skipped) > 1 else ""
        raise Unavailable(
            f"no valid {_DESCRIPTION} in {directory}: {skipped[0].message}{others}",
            hint=skipped[0].hint,
        )
    raise Unavailable(
        f"no {_DESCRIPTION} in {directory}", hint="install a network plugin, which writes one"
    )


def _files(directory: str, suffixes: Sequence[str]) -> list[str]:
    """Return the names with these suffixes, sorted; none if the directory is absent.

    :raises Unavailable: when the directory cannot be read.
    """
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise Unavailable(f"cannot read {directory}: {error.strerror}") from None
    return sorted(name for name in names if os.path.splitext(name)[1] in suffixes)


def _added_plugins(directory: str) -> tuple[PluginConfig, ...]:
    try:
        names = _files(directory, (".conf",))
    except Unavailable as error:  # not a directory
        raise InvalidRequest(error.message) from None
    if len(names) > _PLUGIN_LIMIT:
        raise InvalidRequest(
            f"{directory} has {len(names)} plugins: at most {_PLUGIN_LIMIT} are possible"
        )
    result = []
    for name in names:
        path = os.path.join(directory, name)
        data = trusted_file.read(path, _FILE_LIMIT, _DESCRIPTION, required=True) or b""
        result.append(_plugin(_decode(data, dict[str, msgspec.Raw], path), path))
    return tuple(result)


def _parse_list(data: bytes, source: str) -> _Document:
    document = _decode(data, _List, source)
    only_inlined = _flag(document.load_only_inlined_plugins, "loadOnlyInlinedPlugins", source)
    if document.plugins is None and only_inlined:
        raise _invalid(source, "loadOnlyInlinedPlugins is true, and plugins is absent")
    rows = document.plugins or []
    _check_number(len(rows), source)
    plugins = tuple(_plugin(row, f"{source}: plugin {i}") for i, row in enumerate(rows, 1))
    return _Document(_network(document, plugins, source), only_inlined)


def _network(document: _List, plugins: tuple[PluginConfig, ...], source: str) -> NetworkConfig:
    if not _NAME.fullmatch(document.name):
        raise _invalid(
            source,
            f"name {document.name[:200]!r} must be up to 128 letters, digits and '_.-', and begin "
            "with a letter or digit",
        )
    listed = {*document.cni_versions, document.cni_version} - {""}
    versions = cni_version.supported(listed or {cni_version.OLDEST})
    if not versions:
        raise _invalid(
            source,
            f"no cniVersion is supported: {', '.join(sorted(listed))[:200]}; must be one of "
            f"{', '.join(cni_version.SUPPORTED)}",
        )
    return NetworkConfig(
        name=document.name,
        version=versions[-1],
        versions=versions,
        plugins=plugins,
        disable_check=_flag(document.disable_check, "disableCheck", source),
        disable_gc=_flag(document.disable_gc, "disableGC", source),
        source=source,
    )


def _complete(config: NetworkConfig) -> NetworkConfig:
    if not config.plugins:
        raise _invalid(config.source, "plugins is empty")
    _check_number(len(config.plugins), config.source)
    return config


def _check_number(number: int, source: str) -> None:
    if number > _PLUGIN_LIMIT:
        raise _invalid(source, f"{number} plugins: at most {_PLUGIN_LIMIT} are possible")


def _plugin(members: dict[str, msgspec.Raw], source: str) -> PluginConfig:
    try:
        head = msgspec.json.decode(msgspec.json.encode(members), type=_Plugin)
        ipam = msgspec.json.decode((head.ipam or {}).get("type", b'""'), type=str)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _invalid(source, str(error)) from None
    check_plugin_name(head.type, f"{source}: type")
    if ipam:
        check_plugin_name(ipam, f"{source}: type of ipam")
    capabilities = frozenset(name for name, on in (head.capabilities or {}).items() if on)
    return PluginConfig(type=head.type, capabilities=capabilities, members=members)


def check_plugin_name(name: str, description: str) -> None:
    """Check that the name of a plugin is a file name.

    :raises InvalidRequest: when it is empty, too long, or has a slash.
    """
    if (
        not name
        or name in (".", "..")
        or len(os.fsencode(name)) > 255
        or not name.isprintable()
        or "/" in name
        or "\\" in name
    ):
        raise InvalidRequest(f"{description} {name[:200]!r} must be the file name of a plugin")


def _flag(value: bool | str, name: str, source: str) -> bool:
    if isinstance(value, bool):
        return value
    if value.lower() in ("true", "false"):
        return value.lower() == "true"
    raise _invalid(source, f"{name} {value[:200]!r} must be true or false")


def _decode(data: bytes, kind: type[_Kind], source: str) -> _Kind:
    try:
        data.decode()  # members that the protocol does not define are not decoded
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _invalid(source, str(error)) from None


def _invalid(source: str, reason: str) -> InvalidRequest:
    return InvalidRequest(f"invalid {_DESCRIPTION} {source}: {reason}")

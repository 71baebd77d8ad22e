"""Members of documents that depend on the version of the API.

The engine returns every member. Here a document loses those that the client's version does not
have: removed ones for newer clients, added ones for older clients. A request loses members that its
version does not have.

Source: Docker Engine API, "API version history".
"""

from __future__ import annotations

from typing import Any

import msgspec

from jaula.spec.api_networks import NetworkCreate

Document = dict[str, Any]
Version = tuple[int, int]

_NO_EXECUTION_DRIVER = (1, 25)
_NO_KERNEL_MEMORY = (1, 42)
_NO_VIRTUAL_SIZE = (1, 44)
_NO_CONTAINER_CONFIG = (1, 45)
_DNS_NAMES = (1, 45)
_LIST_ANNOTATIONS = (1, 46)
_GATEWAY_PRIORITY = (1, 48)
_ENABLE_IPV4 = (1, 48)
_DESCRIPTOR = (1, 48)
_FIREWALL_BACKEND = (1, 49)
_DISCOVERED_DEVICES = (1, 50)
_IMAGE_CONFIG_ONLY = (1, 50)
_IMAGE_CONTAINERS = (1, 51)
_NO_LEGACY_FIELDS = (1, 52)
_HEALTH_SUMMARY = (1, 52)
_NETWORK_STATUS = (1, 52)
_OS_TYPE = (1, 52)
_USAGE = (1, 52)
_NO_LEGACY_USAGE = (1, 53)
IMAGE_IDENTITY_SINCE = (1, 53)

_CONTAINER_CONFIG: Document = {
    **dict.fromkeys(("Hostname", "Domainname", "User", "Image", "WorkingDir"), ""),
    **dict.fromkeys(("AttachStdin", "AttachStdout", "AttachStderr"), False),
    **dict.fromkeys(("Tty", "OpenStdin", "StdinOnce"), False),
    **dict.fromkeys(("Env", "Cmd", "Volumes", "Entrypoint", "OnBuild", "Labels"), None),
}
"""The configuration of the container that an image was made from; images do not store it."""

_NOT_OF_IMAGES = (
    *("Hostname", "Domainname", "AttachStdin", "AttachStdout", "AttachStderr"),
    *("Tty", "OpenStdin", "StdinOnce", "Image"),
)
"""Members of an image's ``Config`` that only containers have."""

_OPTIONAL_OF_CONFIG = (
    *("Cmd", "Entrypoint", "Env", "Labels", "OnBuild", "User", "Volumes", "WorkingDir"),
)
_OPTIONAL_OF_IMAGE = ("Parent", "Comment", "DockerVersion", "Author")

_LEGACY_NETWORK = (
    *("Bridge", "HairpinMode", "LinkLocalIPv6Address", "LinkLocalIPv6PrefixLen"),
    *("SecondaryIPAddresses", "SecondaryIPv6Addresses", "EndpointID", "Gateway"),
    *("GlobalIPv6Address", "GlobalIPv6PrefixLen", "IPAddress", "IPPrefixLen", "IPv6Gateway"),
    "MacAddress",
)
"""Members of ``NetworkSettings`` that belong to the default network."""

_LEGACY_USAGE: Document = {
    "LayersSize": 0,
    **dict.fromkeys(("Images", "Containers", "Volumes", "BuildCache")),
}
"""Members of older answers, with their values for kinds of object that were not requested."""
_LEGACY_USAGE_NAMES = (*_LEGACY_USAGE, "LayersReclaimable")


def _without(document: Document, names: tuple[str, ...]) -> Document:
    return {key: value for key, value in document.items() if key not in names}


def _without_empty(document: Document, names: tuple[str, ...]) -> Document:
    return {key: value for key, value in document.items() if value or key not in names}


# -- containers ----------------------------------------------------------------------------------


def container(document: Document, version: Version) -> Document:
    """Return the answer to ``GET /containers/{id}/json``."""
    document = _with_manifest(document, version)
    settings = document["NetworkSettings"]
    if version >= _NO_LEGACY_FIELDS:
        settings = _without(settings, _LEGACY_NETWORK)
        document = document | {"Config": _without_empty(document["Config"], ("OnBuild",))}
    return document | {"NetworkSettings": _networks(settings, version, document["Id"])}


def containers(documents: list[Document], version: Version) -> list[Document]:
    """Return the answer to ``GET /containers/json``."""
    return [_summary(document, version) for document in documents]


def _summary(document: Document, version: Version) -> Document:
    document = _with_manifest(document, version)
    document = document | {"NetworkSettings": _networks(document["NetworkSettings"], version)}
    if version < _LIST_ANNOTATIONS:
        document["HostConfig"] = _without(document["HostConfig"], ("Annotations",))
    return document if version >= _HEALTH_SUMMARY else _without(document, ("Health",))


def _with_manifest(document: Document, version: Version) -> Document:
    """Return a document without the image's manifest for older versions, or if it is gone."""
    if version >= _DESCRIPTOR and document.get("ImageManifestDescriptor"):
        return document
    return _without(document, ("ImageManifestDescriptor",))


def _networks(settings: Document, version: Version, container_id: str = "") -> Document:
    """Return ``NetworkSettings`` with the endpoints of a version.

    Before ``DNSNames``, the aliases of an inspected container had its short id.
    """
    endpoints = {name: dict(endpoint) for name, endpoint in settings["Networks"].items()}
    for endpoint in endpoints.values():
        if version < _GATEWAY_PRIORITY:
            endpoint.pop("GwPriority", None)
        if version < _DNS_NAMES and container_id and endpoint["Aliases"] is not None:
            endpoint["Aliases"] = [*endpoint["Aliases"], container_id[:12]]
    return settings | {"Networks": endpoints}


def stats(document: Document, version: Version) -> Document:
    """Return one message of ``GET /containers/{id}/stats``."""
    return document if version >= _OS_TYPE else _without(document, ("os_type",))


# -- images --------------------------------------------------------------------------------------


def image(document: Document, version: Version) -> Document:
    """Return the answer to ``GET /images/{name}/json``."""
    if version < _NO_CONTAINER_CONFIG:
        document = document | {"ContainerConfig": _CONTAINER_CONFIG}
    config = document["Config"]
    if version >= _IMAGE_CONFIG_ONLY:
        config = _without(config, _NOT_OF_IMAGES)
    if version >= _NO_LEGACY_FIELDS:
        config = _without_empty(config, _OPTIONAL_OF_CONFIG)
        document = _without_empty(document, _OPTIONAL_OF_IMAGE)
    return _versioned(document | {"Config": config}, version)


def images(documents: list[Document], version: Version) -> list[Document]:
    """Return the answer to ``GET /images/json``, and the images of ``GET /system/df``."""
    return [_versioned(document, version) for document in documents]


def listed_images(documents: list[Document], version: Version) -> list[Document]:
    """Return the answer to ``GET /images/json``, where older versions count no containers."""
    if version < _IMAGE_CONTAINERS:
        documents = [document | {"Containers": -1} for document in documents]
    return images(documents, version)


def _versioned(document: Document, version: Version) -> Document:
    if version < _DESCRIPTOR:
        document = _without(document, ("Descriptor",))
    if version < _NO_VIRTUAL_SIZE:
        return document | {"VirtualSize": document["Size"]}
    return document


# -- networks ------------------------------------------------------------------------------------


def network_create(body: NetworkCreate, version: Version) -> NetworkCreate:
    """Return the request of ``POST /networks/create``; older versions cannot switch IPv4 off."""
    return body if version >= _ENABLE_IPV4 else msgspec.structs.replace(body, enable_ipv4=None)


def networks(documents: list[Document], version: Version) -> list[Document]:
    """Return the answer to ``GET /networks``."""
    return [network(document, version) for document in documents]


def network(document: Document, version: Version) -> Document:
    """Return the answer to ``GET /networks/{id}``."""
    unknown = ("EnableIPv4",) if version < _ENABLE_IPV4 else ()
    if version < _NETWORK_STATUS:
        unknown = (*unknown, "Status")
    return _without(document, unknown)


# -- the engine ----------------------------------------------------------------------------------


def event(document: Document, version: Version) -> Document:
    """Return one message of ``GET /events``."""
    if version < _NO_LEGACY_FIELDS:
        return document
    return _without(document, ("status", "id", "from"))


def info(document: Document, version: Version) -> Document:
    """Return the answer to ``GET /info``."""
    if version < _NO_KERNEL_MEMORY:
        document = document | {"KernelMemory": False}
    if version < _NO_EXECUTION_DRIVER:
        document = document | {"ExecutionDriver": "<not supported>"}
    removed: tuple[str, ...] = ()
    if version < _FIREWALL_BACKEND:
        removed = (*removed, "FirewallBackend")
    else:
        document = document | {
            "RegistryConfig": _without(
                document["RegistryConfig"],
                ("AllowNondistributableArtifactsCIDRs", "AllowNondistributableArtifactsHostnames"),
            ),
            **{
                name: _without(document[name], ("Expected",))
                for name in ("ContainerdCommit", "RuncCommit", "InitCommit")
            },
        }
    if version < _DISCOVERED_DEVICES:
        removed = (*removed, "DiscoveredDevices")
    else:
        removed = (*removed, "BridgeNfIptables", "BridgeNfIp6tables")
    if version >= _NO_LEGACY_FIELDS:
        removed = (*removed, "KernelMemoryTCP")
    return _without(document, removed)


def disk_usage(document: Document, version: Version, *, verbose: bool) -> Document:
    """Return the answer to ``GET /system/df``.

    ``document`` has the members of the requested kinds of object. The ``*Usage`` members list
    objects only for ``verbose``, which has none of the older members.
    """
    names = _LEGACY_USAGE_NAMES
    legacy = _LEGACY_USAGE | {key: value for key, value in document.items() if key in names}
    if legacy.get("Images"):
        legacy["Images"] = images(legacy["Images"], version)
    if legacy.get("Containers"):
        legacy["Containers"] = containers(legacy["Containers"], version)
    if version < _USAGE:
        return legacy
    usage = _without(document, names)
    if verbose:
        return usage
    usage = {key: _without(value, ("Items",)) for key, value in usage.items()}
    return usage if version >= _NO_LEGACY_USAGE else legacy | usage

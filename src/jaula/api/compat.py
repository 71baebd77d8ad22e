"""Members of documents that API versions have removed or added, for clients of other versions.

Source: Docker Engine API, "API version history". Version 1.44 removed ``VirtualSize`` and version
1.45 ``ContainerConfig`` from images. Version 1.48 added ``Descriptor`` and version 1.53
``Identity`` to them. A member that a parameter asks for has the version of the client that knows
the parameter. Version 1.42 removed ``KernelMemory`` and version 1.25
``ExecutionDriver`` from the engine's information.
"""

from __future__ import annotations

from typing import Any

Version = tuple[int, int]

_NO_VIRTUAL_SIZE = (1, 44)
_NO_CONTAINER_CONFIG = (1, 45)
_DESCRIPTOR = (1, 48)
IMAGE_IDENTITY_SINCE = (1, 53)
_NO_KERNEL_MEMORY = (1, 42)
_NO_EXECUTION_DRIVER = (1, 25)

_CONTAINER_CONFIG: dict[str, Any] = {
    **dict.fromkeys(("Hostname", "Domainname", "User", "Image", "WorkingDir"), ""),
    **dict.fromkeys(("AttachStdin", "AttachStdout", "AttachStderr"), False),
    **dict.fromkeys(("Tty", "OpenStdin", "StdinOnce"), False),
    **dict.fromkeys(("Env", "Cmd", "Volumes", "Entrypoint", "OnBuild", "Labels"), None),
}
"""The configuration of the container that an image was made from; images do not store it."""


def image(document: dict[str, Any], version: Version) -> dict[str, Any]:
    """Complete the answer to ``GET /images/{name}/json``."""
    if version < _NO_CONTAINER_CONFIG:
        document = document | {"ContainerConfig": _CONTAINER_CONFIG}
    return _versioned(document, version)


def images(documents: list[dict[str, Any]], version: Version) -> list[dict[str, Any]]:
    """Complete the answer to ``GET /images/json``, and the images of ``GET /system/df``."""
    return [_versioned(document, version) for document in documents]


def _versioned(document: dict[str, Any], version: Version) -> dict[str, Any]:
    if version < _DESCRIPTOR:
        document = {key: value for key, value in document.items() if key != "Descriptor"}
    if version < _NO_VIRTUAL_SIZE:
        return document | {"VirtualSize": document["Size"]}
    return document


def info(document: dict[str, Any], version: Version) -> dict[str, Any]:
    """Complete the answer to ``GET /info``."""
    if version < _NO_KERNEL_MEMORY:
        document = document | {"KernelMemory": False}
    if version < _NO_EXECUTION_DRIVER:
        document = document | {"ExecutionDriver": "<not supported>"}
    return document

"""Checks of a pod's request that no other part of the engine makes, and the pod's log directory.

A list of pods or containers repeats the labels and annotations of each. A client of CRI refuses an
answer of more than 16 MiB, so one pod must not fill it: all later lists would fail. Kubernetes
limits the annotations of a pod to 256 KiB, and an object to 1.5 MiB.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
from collections.abc import Mapping, Sequence

import msgspec

from jaula.engine.containers.container_hostname import is_host_name
from jaula.errors import InvalidRequest, resource_error
from jaula.spec.pod import PodContainerRequest, PodMetadata, PodSandboxRequest

MAX_METADATA = 512 * 1024  # bytes of labels and annotations together
MAX_REQUEST = 2 << 20  # bytes of a request as the record keeps it
MAX_ARGUMENT, MAX_COMMAND = 128 * 1024 - 1, 256 * 1024  # bytes; the first is execve(2)'s
_NAME_LIMIT = 253  # characters of a name of Kubernetes
_PATH_LIMIT = 4095  # bytes: PATH_MAX without the final zero
_HOSTNAME_LIMIT = 64  # of sethostname(2), and of the kubelet with setHostnameAsFQDN
_SEPARATORS = frozenset("/;=")  # of paths, and of CNI_ARGS, which has the pod's names


def check_metadata(metadata: PodMetadata) -> None:
    """Check the identity of a sandbox.

    :raises InvalidRequest: when a part is missing, too long or has a character that separates
        others.
    """
    for field in ("name", "uid", "namespace"):
        value = getattr(metadata, field)
        if (
            not 0 < len(value) <= _NAME_LIMIT
            or not value.isprintable()
            or not _SEPARATORS.isdisjoint(value)
        ):
            raise InvalidRequest(f"the {field} {value[:80]!r} of a pod is not valid")


def check_sandbox(request: PodSandboxRequest) -> None:
    """Check a request for a sandbox.

    :raises InvalidRequest: when it is too large, or a name or path of it is not valid.
    """
    check_metadata(request.metadata)
    _check_size(request, request.labels, request.annotations)
    if request.log_directory:
        _check_log_directory(request.log_directory)
    hostname = request.body.hostname
    if hostname and not is_host_name(hostname, _HOSTNAME_LIMIT):
        raise InvalidRequest(
            f"invalid hostname {hostname[:80]!r} of a pod",
            hint="it must have up to 64 letters, digits and '-._'",
        )


def check_container(request: PodContainerRequest) -> None:
    """Check a request for a container of a pod.

    :raises InvalidRequest: when it is too large, or its name is not valid.
    """
    name = request.name
    if len(name) > _NAME_LIMIT or not name.isprintable() or "/" in name:
        raise InvalidRequest(f"the name {name[:80]!r} of a container is not valid")
    _check_size(request, request.labels, request.annotations)


def check_command(command: Sequence[str]) -> None:
    """Check the command of an exec.

    :raises InvalidRequest: when the kernel would not execute it.
    """
    if not command or not command[0]:
        raise InvalidRequest("the request has no command")
    sizes = [len(os.fsencode(argument)) for argument in command]
    if max(sizes) > MAX_ARGUMENT or sum(sizes) > MAX_COMMAND:
        raise InvalidRequest(
            f"the command has {sum(sizes)} bytes",
            hint=f"the limit is {MAX_COMMAND} bytes, of one argument {MAX_ARGUMENT}",
        )
    if any("\0" in argument for argument in command):
        raise InvalidRequest("an argument of the command contains a NUL byte")


def _check_size(
    request: PodSandboxRequest | PodContainerRequest,
    labels: Mapping[str, str],
    annotations: Mapping[str, str],
) -> None:
    """Check what the record would keep of a request.

    :raises InvalidRequest: when it is too large, or has a text that is not Unicode.
    """
    try:
        size = len(msgspec.json.encode((labels, annotations)))
        total = len(msgspec.json.encode(request))
    except UnicodeEncodeError:
        raise InvalidRequest(
            "the request has a text that is not UTF-8",
            hint="names and values of variables, labels and arguments are texts",
        ) from None
    if size > MAX_METADATA:
        raise InvalidRequest(
            f"labels and annotations have {size} bytes", hint=f"the limit is {MAX_METADATA} bytes"
        )
    if total > MAX_REQUEST:
        raise InvalidRequest(
            f"the request has {total} bytes", hint=f"the limit is {MAX_REQUEST} bytes"
        )


def _check_log_directory(path: str) -> None:
    if (
        not path.startswith("/")
        or "\0" in path
        or ".." in path.split("/")
        or len(os.fsencode(path)) > _PATH_LIMIT
        or posixpath.normpath(path) == "/"
    ):
        raise InvalidRequest(
            f"log directory {path[:200]!r} is not a normal absolute path",
            hint="the directory of the pod's logs, as /var/log/pods/NAMESPACE_NAME_UID",
        )


def make_log_directory(path: str) -> bool:
    """Create a pod's log directory if it is absent; return whether it was.

    :raises InvalidRequest: when the path leads to something else, also by a symbolic link at its
        end.
    :raises Unavailable: when the host lacks a resource.
    """
    try:
        made = not os.path.lexists(path)
        os.makedirs(path, mode=0o755, exist_ok=True)
        flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        os.close(os.open(path.rstrip("/"), flags))
    except OSError as error:
        what = f"the log directory {path[:200]!r} of the pod cannot be created"
        if (unavailable := resource_error(error, what)) is not None:
            raise unavailable from None
        raise InvalidRequest(f"{what}: {error.strerror}") from None
    return made


def remove_log_directory(path: str) -> None:
    """Remove a log directory that :func:`make_log_directory` has made, unless it is in use."""
    with contextlib.suppress(OSError):  # another program has put a file in it, or removed it
        os.rmdir(path)

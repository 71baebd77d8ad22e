"""Network namespaces of pods, given as paths such as ``/proc/PID/ns/net``.

A path with a pid may lead to the namespace of another process once the first one has exited. A
plugin that deletes ``eth0`` there would take the network of another pod, or of the host. So a
namespace has an identity, the device and inode of its file in nsfs, and the engine's own namespace
is refused.
"""

from __future__ import annotations

import os

from jaula.errors import InvalidRequest
from jaula.kernel import namespaces
from jaula.kernel.namespace_threads import in_unshared_thread
from jaula.kernel.namespaces import CLONE
from jaula.kernel.rtnetlink import Rtnetlink, set_link


def identity(path: str) -> str | None:
    """Return the identity of a network namespace; None if the path is '' or leads to nothing.

    :raises InvalidRequest: when the path is not one of a network namespace, or is the namespace of
        the calling thread.
    """
    if not path:
        return None
    try:
        fd = _open(path)
    except (FileNotFoundError, ProcessLookupError):
        return None
    except OSError as error:
        raise InvalidRequest(f"network namespace {path}: {error.strerror}") from None
    try:
        own = os.stat("/proc/thread-self/ns/net")
        if os.path.samestat(os.fstat(fd), own):
            raise InvalidRequest(f"network namespace {path} is the namespace of the host")
        st = os.fstat(fd)
        return f"{st.st_dev}:{st.st_ino}"
    finally:
        os.close(fd)


def create() -> int:
    """Create a network namespace that the caller's user namespace owns; return its descriptor."""

    def enter() -> int:
        namespaces.unshare(CLONE.NEWNET)
        return namespaces.open_namespace("thread-self", "net")

    return in_unshared_thread(enter)


def set_loopback_up(path: str) -> None:
    """Set ``lo`` up in a network namespace, as the plugin ``loopback`` does.

    :raises OSError: when the namespace is gone or the kernel refuses.
    """
    fd = _open(path)
    try:
        with Rtnetlink(fd) as inside:
            inside.send(set_link("lo", up=True))
    finally:
        os.close(fd)


def _open(path: str) -> int:
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        kind = namespaces.nstype(fd)
    except OSError:  # the file of another file system
        kind = CLONE(0)
    if kind != CLONE.NEWNET:
        os.close(fd)
        raise InvalidRequest(f"{path} is not a network namespace")
    return fd

"""libnftables gets a low descriptor, however many the process has."""

from __future__ import annotations

import ctypes
import os
import resource
import socket
from collections.abc import Iterator

import pytest

from jaula.network.firewall import nft_command
from jaula.network.firewall.nft_command import FD_SETSIZE, FirewallError, Libnftables


def _have_library() -> bool:
    try:
        ctypes.CDLL(nft_command.LIBRARY)
    except OSError:
        return False
    return True


pytestmark = pytest.mark.skipif(not _have_library(), reason="libnftables is not installed")


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> Iterator[nft_command._LowDescriptors]:
    """Fill the low descriptors of this process, but for those that are held."""
    held = nft_command._LowDescriptors()
    held.hold()
    monkeypatch.setattr(nft_command, "_low_descriptors", held)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2 * FD_SETSIZE:
        pytest.skip(f"this process may open {hard} files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2 * FD_SETSIZE), hard))
    opened = [os.open(os.devnull, os.O_RDONLY)]
    try:
        while opened[-1] <= FD_SETSIZE:
            opened.append(os.dup(opened[0]))
        yield held
    finally:
        for descriptor in (*opened, *held._held):
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _netfilter_sockets() -> set[int]:
    descriptors = {int(name) for name in os.listdir("/proc/self/fd")}
    return {each for each in descriptors if nft_command._is_netfilter_socket(each)}


def test_the_socket_of_the_library_has_a_low_descriptor(full: nft_command._LowDescriptors) -> None:
    before = _netfilter_sockets()
    networks, resolver = Libnftables(), Libnftables()
    opened = _netfilter_sockets() - before
    assert len(opened) == 2
    assert max(opened) < FD_SETSIZE
    for _ in range(3):  # the descriptor of an idle library is held for it
        networks.close()
        resolver.close()
        networks._load()
        resolver._load()
    assert max(_netfilter_sockets() - before) < FD_SETSIZE
    networks.close()
    resolver.close()


def test_a_library_without_a_low_descriptor_is_refused(full: nft_command._LowDescriptors) -> None:
    first, second = Libnftables(), Libnftables()
    with pytest.raises(FirewallError, match="no file descriptor below 1024 is free"):
        Libnftables()
    first.close()
    Libnftables().close()
    second.close()


def test_a_descriptor_that_another_thread_took_is_not_used(
    full: nft_command._LowDescriptors, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first context gets a high descriptor, since a file was opened before it."""
    taken: list[int] = []
    close = os.close

    def close_and_open(descriptor: int) -> None:
        close(descriptor)
        if not taken and descriptor < FD_SETSIZE:
            taken.append(os.dup(full._held[0]))

    monkeypatch.setattr(os, "close", close_and_open)
    before = _netfilter_sockets()
    library = Libnftables()
    monkeypatch.setattr(os, "close", close)
    assert taken
    assert taken[0] < FD_SETSIZE
    (opened,) = _netfilter_sockets() - before
    assert opened < FD_SETSIZE
    library.close()
    os.close(taken[0])


def test_other_descriptors_are_not_taken_for_its_socket() -> None:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, nft_command.NETLINK_NETFILTER) as own:
        assert nft_command._is_netfilter_socket(own.fileno())
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW) as other:
        assert not nft_command._is_netfilter_socket(other.fileno())
    with open(os.devnull) as file:
        assert not nft_command._is_netfilter_socket(file.fileno())
    assert not nft_command._is_netfilter_socket(-1)

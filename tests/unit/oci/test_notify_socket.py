"""The notify socket: the manager's address, and what is relayed to it."""

from __future__ import annotations

import os
import socket
import uuid
from pathlib import Path

import pytest

from jaula.errors import InvalidRequest
from jaula.oci import notify_socket
from jaula.oci.runtime_container import Container


@pytest.mark.parametrize("address", ["/run/systemd/notify", "@abstract"])
def test_the_caller_s_address(address: str) -> None:
    assert notify_socket.host_address({"NOTIFY_SOCKET": address, "OTHER": "x"}) == address


@pytest.mark.parametrize("environment", [{}, {"NOTIFY_SOCKET": ""}])
def test_without_a_service_manager_there_is_no_address(environment: dict[str, str]) -> None:
    assert notify_socket.host_address(environment) == ""


@pytest.mark.parametrize("address", ["relative", "vsock:2:1"])
def test_an_address_of_another_kind_is_refused(address: str) -> None:
    with pytest.raises(InvalidRequest, match="is not a Unix socket"):
        notify_socket.host_address({"NOTIFY_SOCKET": address})


def test_readiness_goes_to_an_abstract_address_when_the_program_has_exited(
    tmp_path: Path,
) -> None:
    name = uuid.uuid4().hex
    warnings: list[str] = []
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as program,
        Container.create(str(tmp_path), "c") as container,
    ):
        manager.settimeout(10)
        manager.bind(f"\0{name}")
        notify_socket.make_directory(container)
        made = notify_socket.open_socket(container, f"@{name}", warnings.append)
        assert made is not None
        path = f"{container.path}/notify/notify.sock"
        for message in (b"STATUS=READY=1", b"READY=10", b"STATUS=x\nREADY=1"):
            program.sendto(message, path)
        made.relay(77)
        assert [manager.recv(100) for _ in range(3)] == [
            b"READY=1\n",
            b"MAINPID=77\n",
            b"BARRIER=1",
        ]
        made.wait_for_ready(77, None)
        container.remove()
        assert not os.path.exists(container.path)
    assert not warnings

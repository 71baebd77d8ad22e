"""Namespaces are opened of the container's init, never of a process that reused its pid."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from jaula.engine.containers.resolved_request import resolve
from jaula.engine.model.container import Container
from jaula.engine.userns import join
from jaula.errors import Conflict
from jaula.spec.api_documents import ContainerCreate
from jaula.state.container_records import ContainerRecord, Status


def container(pid: int, shim_pid: int, status: Status = Status.RUNNING) -> Container:
    body = ContainerCreate()
    record = ContainerRecord(
        id="a" * 64,
        name="lender",
        created=0,
        body=body,
        resolved_request=resolve(body),
        image="x",
        status=status,
        pid=pid,
        shim_pid=shim_pid,
    )
    return Container(record)


def test_descriptors_are_those_of_the_process() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        held = join.open_namespaces(container(child.pid, os.getpid()), ("user", "network"))
        try:
            for kind, fd in held.items():
                link = os.readlink(f"/proc/{child.pid}/ns/{join.NAMES[kind]}")
                assert str(os.fstat(fd).st_ino) in link
        finally:
            for fd in held.values():
                os.close(fd)
            child.kill()


def test_the_root_is_that_of_the_process() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        root = join.open_root(container(child.pid, os.getpid()))
        assert os.path.samestat(os.fstat(root), os.stat("/"))
        os.close(root)
        child.kill()
    with pytest.raises(Conflict):
        join.open_root(container(os.getpid(), 1))


@pytest.mark.parametrize("shim", [1, os.getppid() + 1])
def test_a_reused_pid_opens_nothing(shim: int) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(Conflict, match="does not run"):
        join.open_namespaces(container(os.getpid(), shim), ("user", "pid", "ipc", "network"))
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    ("pid", "status"), [(0, Status.RUNNING), (2**22 + 1, Status.RUNNING), (1, Status.EXITED)]
)
def test_an_exited_container_opens_nothing(pid: int, status: Status) -> None:
    with pytest.raises(Conflict):
        join.open_namespaces(container(pid, os.getppid(), status), ("user",))

"""The first step of a change of a running container: its shim is asked for free destinations."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from typing import Any

import msgspec
import pytest

from jaula.engine.containers.bounds import Bounds
from jaula.engine.containers.resolved_request import resolve
from jaula.engine.model.container import Container
from jaula.engine.oci_spec.inputs import HostFacts
from jaula.errors import Conflict, Unavailable
from jaula.features.edit import edit_request
from jaula.features.edit.edit_container import _Steps, _undo_networks
from jaula.runtime.runtime_client import Shim
from jaula.spec.api_documents import ContainerCreate, ContainerEdit
from jaula.spec.api_networks import EndpointSettings
from jaula.state.container_records import ContainerRecord, EditIntent, MountRecord, Status

BODY = msgspec.convert(
    {"Mounts": [{"Type": "tmpfs", "Target": "/memory"}]},
    ContainerEdit,
)


def container(pid: int) -> Container:
    body = ContainerCreate()
    record = ContainerRecord(
        id="a" * 64,
        name="web",
        created=1,
        body=body,
        resolved_request=resolve(body),
        image="x",
        status=Status.RUNNING,
        pid=pid,
        shim_pid=os.getpid(),
    )
    return Container(record)


async def change(target: Container) -> None:
    """Begin a change; the shim of ``target`` has closed its socket, which no event has told yet."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.close()
    shim = target.shim = Shim(ours, lambda _: None, asyncio.get_running_loop())

    def exited() -> None:
        target.change(status=Status.EXITED)
        target.exited.set()

    shim.on_gone = exited
    edit = edit_request.decide(target.record, BODY, HostFacts())
    none: Any = None  # no step after the first one is reached
    steps = _Steps(none, none, target, edit, BODY, (MountRecord("tmpfs", "/memory"),), Bounds(), ())
    try:
        await steps.run("root", (), "")
    finally:
        shim.close()


def test_a_container_that_ends_before_its_shim_is_asked_is_not_running() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as init:
        init.wait()
        target = container(init.pid)
        with pytest.raises(Conflict, match=f"container {target.id} is not running") as raised:
            asyncio.run(change(target))
    assert "Broken pipe" in str(raised.value.__cause__)
    assert target.record.edit_intent is None


def test_a_lost_shim_of_a_container_that_runs_is_an_error_of_the_engine() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as init:
        target = container(init.pid)
        with pytest.raises(Unavailable, match="shim does not answer"):
            asyncio.run(change(target))
        init.kill()
    assert target.record.edit_intent is None


def test_an_undo_gives_a_stopped_container_its_networks_back_by_their_ids() -> None:
    """One may be gone, and another one may have its name: that is for the next start to say."""
    target = container(1)
    before = {"kept": EndpointSettings(aliases=("a",)), "gone": EndpointSettings()}
    ids = {"kept": "1", "gone": "2"}
    other = {"kept": EndpointSettings(), "new": EndpointSettings()}
    target.change(status=Status.EXITED, pid=0, networks=other, network_ids=ids | {"new": "3"})
    none: Any = None  # no network is looked up
    asyncio.run(_undo_networks(none, none, target, EditIntent(networks=before)))
    assert target.record.networks == before
    assert {name: target.record.network_ids[name] for name in before} == ids

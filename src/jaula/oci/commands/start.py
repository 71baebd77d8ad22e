"""Letting a created container go, and the hooks that follow."""

from __future__ import annotations

import os

from jaula.errors import Conflict, JaulaError, RuntimeFailure
from jaula.oci.args import CommandArgs
from jaula.oci.container import CONFIG, SOCKET, Container, Record

FLAGS: dict[str, str] = {}
USAGE = "CONTAINER-ID"
START = b"S"  # what init waits to read
HOOKS_DONE = b"D"  # what init says where there are startContainer hooks
_START_HOOKS = b'"startContainer"'
_POSTSTART = b'"poststart"'
_LABELS = (b'"apparmorProfile"', b'"selinuxLabel"')


def run(call: CommandArgs) -> int:
    """Start it; returns when its program runs."""
    with Container.find(call.settings.root, call.container_id()) as container:
        container.lock(unmade=False)
        record = container.record()
        status = container.status(record)
        if status == "stopped":
            raise Conflict("cannot start a container that has stopped")
        if status != "created":
            raise Conflict("cannot start an already running container")
        release(container)
        check(container, record)
        container.unlock()  # a hook may want to use the container
        poststart(call, container, record)
    return 0


def release(container: Container) -> None:
    """Tell init to go on; returns when the program runs.

    Raises ``RuntimeFailure`` with what init says: a startContainer hook or the program failed.
    """
    starter = container.connect()
    if starter is None:
        raise RuntimeFailure(f"container {container.id}: its init does not wait to be started")
    try:
        starter.send(START)
        os.unlink(SOCKET, dir_fd=container.fd)
        word = starter.recv(1 << 16)
        if word == HOOKS_DONE:
            word = starter.recv(1 << 16)
        elif not word and _start_hooks(container.read(CONFIG)):
            raise RuntimeFailure(
                f"container {container.id}: its init was killed while startContainer hooks ran"
            )
    finally:
        starter.close()
    if word[:1] == b"E":
        code, _, text = word[1:].decode(errors="replace").partition(" ")
        raise RuntimeFailure(text, exit_code=int(code))


def _start_hooks(config: bytes) -> bool:
    """Whether init runs hooks before the program, of whose end it tells."""
    if _START_HOOKS not in config:
        return False
    from jaula.spec import runtime as oci

    hooks = oci.decode(config).hooks
    return hooks is not None and bool(hooks.start_container)


def check(container: Container, record: Record) -> None:
    """See that the program runs under the labels that its spec asks for; else it is ended.

    Raises ``RuntimeFailure``.
    """
    config = container.read(CONFIG)
    if not any(key in config for key in _LABELS):
        return
    from jaula.oci.commands import delete
    from jaula.runtime.init import lsm_labels
    from jaula.spec import runtime as oci

    process = oci.decode(config).process
    if process is None:
        return
    wanted = lsm_labels.LabelRequest(
        os.fsencode(process.apparmor_profile) if process.apparmor_profile else None,
        os.fsencode(process.selinux_label) if process.selinux_label else None,
    )
    try:
        lsm_labels.check(record.pid, wanted)
    except JaulaError:
        delete.kill(record)
        raise


def poststart(call: CommandArgs, container: Container, record: Record) -> None:
    """Run the hooks that follow the start. One that fails ends the container, and is raised."""
    config = container.read(CONFIG)
    if _POSTSTART not in config:
        return
    from jaula.oci.commands import delete
    from jaula.runtime.init import hooks
    from jaula.spec import runtime as oci

    spec = oci.decode(config)
    if spec.hooks is None:
        return
    try:
        hooks.run("poststart", spec.hooks.poststart, record.state("running"))
    except JaulaError:
        delete.kill(record)
        raise

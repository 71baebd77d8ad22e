"""The engine's part in :mod:`jaula.features.checkpoint.runtime.migration_hold`.

A container that is held does not run: CRIU has stopped its processes and written them, and its
cgroup is frozen. Its bridge ports are down, since a frozen container still answers ARP. These
functions take the ports away and give them back, and tell the decision to a hold that has outlived
its engine.

If the helper of the shim was killed, CRIU's lock of the network remains, and the engine removes it
(:func:`jaula.features.checkpoint.runtime.restore_network.unlock`).
"""

from __future__ import annotations

import contextlib
import logging
import socket
from typing import TYPE_CHECKING

from jaula.engine.containers.container_cgroup import open_cgroup
from jaula.engine.threads import in_own_thread
from jaula.errors import NotFound
from jaula.kernel.rtnetlink import Rtnetlink, set_link
from jaula.runtime import seqpacket
from jaula.runtime.shim_protocol import HOLD_SOCKET

if TYPE_CHECKING:
    from jaula.engine.model.container import Container
    from jaula.engine.model.services import Services
    from jaula.state.container_records import ContainerRecord

log = logging.getLogger("jaula.migration")


def set_ports(record: ContainerRecord, *, up: bool) -> None:
    """Set the host's ends of a container's interfaces up or down. Absent ones are skipped."""
    names = [each.host_interface for each in record.endpoints if each.host_interface]
    with Rtnetlink() as host:
        for name in names:
            if host.link(name) is not None:
                host.send(set_link(name, up=up))


async def release(services: Services, container: Container) -> None:
    """Continue a held container, whatever is left of CRIU. Repeating it changes nothing."""
    if not container.live:
        return
    await in_own_thread(lambda: _release(services, container))


def _release(services: Services, container: Container) -> None:
    from jaula.features.checkpoint.runtime import restore_network

    set_ports(container.record, up=True)
    with contextlib.suppress(NotFound), open_cgroup(services, container.record) as cgroup:
        is_joined = bool(container.record.resolved.namespaces.net.container)
        run_ids = () if is_joined else ("",)  # CRIU's tables of a joined one are not all its own
        restore_network.unlock(container.record.pid, cgroup.pids(), {}, run_ids)
        cgroup.thaw()


def decide(run_dir: str, answer: bytes) -> bool:
    """Tell the decision to the hold of a previous engine; return whether there was one."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with sock:
        try:
            with seqpacket.SocketDir(run_dir) as directory:
                sock.connect(f"{directory}/{HOLD_SOCKET}")
            seqpacket.send(sock, answer)
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        except OSError as error:
            log.warning("the hold at %s does not answer: %s", run_dir, error)
            return False
    return True

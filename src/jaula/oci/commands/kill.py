"""``kill``: send a signal to a container's init, or to all its processes.

Takes no lock: a container whose start hangs can still be ended.
"""

from __future__ import annotations

import os
import signal

from jaula.errors import Conflict, InvalidRequest
from jaula.oci.args import SWITCH, CommandArgs
from jaula.oci.container import Container, Record, frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jaula.runtime.interfaces import Cgroup

FLAGS = {"all": SWITCH, "a": "all"}
USAGE = "[--all] CONTAINER-ID [SIGNAL]"
LARGEST = 64  # SIGRTMAX


def run(call: CommandArgs) -> int:
    """Send it. The texts of the errors are those that callers look for."""
    if len(call.arguments) not in (1, 2):
        raise InvalidRequest(
            f'"kill" requires a minimum of 1 argument and a maximum of 2, '
            f"{len(call.arguments)} given"
        )
    signum = parse(call.arguments[1] if len(call.arguments) == 2 else "TERM")
    with Container.find(call.settings.root, call.arguments[0]) as container:
        record = container.record()
    reached = _signal_init(record, signum)
    if call.options.on("all") or (signum == signal.SIGKILL and not reached):
        reached = _signal_all(record, signum) or reached
    if not reached:
        raise Conflict("container not running")
    if signum == signal.SIGKILL and frozen(record):
        with _cgroup(record) as cgroup:
            cgroup.thaw()
    return 0


def parse(text: str) -> int:
    """A signal by number or name, with or without SIG. Raises ``InvalidRequest``."""
    if text.isdecimal() and 0 < int(text) <= LARGEST:
        return int(text)
    name = text.upper()
    number = getattr(signal, name if name.startswith("SIG") else f"SIG{name}", None)
    if not isinstance(number, int) or text.startswith("_") or "SIG_" in f"SIG{name}":
        raise InvalidRequest(f"unknown signal {text!r}", hint="a name such as TERM, or a number")
    return int(number)


def _signal_init(record: Record, signum: int) -> bool:
    from jaula.oci.commands.delete import open_process

    pidfd = open_process(record)
    if pidfd is None:
        return False
    try:
        signal.pidfd_send_signal(pidfd, signum)
    except ProcessLookupError:
        return False
    finally:
        os.close(pidfd)
    return True


def _signal_all(record: Record, signum: int) -> bool:
    """Everything in the cgroup: what outlives an init in a shared pid namespace too."""
    from jaula.errors import NotFound

    try:
        with _cgroup(record) as cgroup:
            found = [pid for pid in cgroup.pids() if pid != record.pid]
            if signum == signal.SIGKILL:
                cgroup.kill()
            else:
                for pid in found:
                    try:
                        os.kill(pid, signum)
                    except ProcessLookupError:
                        continue
            return bool(found)
    except NotFound:
        return False


def _cgroup(record: Record) -> Cgroup:
    from jaula.oci import services

    return services.cgroup_of(record)

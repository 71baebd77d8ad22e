"""``kill``: send a signal to a container's init, or to all its processes.

It takes no lock: a container whose start hangs can still be killed.
"""

from __future__ import annotations

import _signal as signal  # type: ignore[import-not-found] # without enumerations: 5 of 20 ms
import posix

from jaula.errors import Conflict, InvalidRequest
from jaula.oci.args import SWITCH, CommandArgs
from jaula.oci.runtime_container import CONFIG, Container, Record, frozen, open_process
from jaula.spec import fast_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jaula.runtime.interfaces import Cgroup

FLAGS = {"all": SWITCH, "a": "all"}
USAGE = "[--all] CONTAINER-ID [SIGNAL]"
MAX_SIGNAL = 64  # SIGRTMAX


def run(args: CommandArgs) -> int:
    """Send a signal. The errors have the words that callers search for."""
    if len(args.arguments) not in (1, 2):
        raise InvalidRequest(
            f'"kill" requires a minimum of 1 argument and a maximum of 2, '
            f"{len(args.arguments)} given"
        )
    signum = parse(args.arguments[1] if len(args.arguments) == 2 else "TERM")
    with Container.open(args.settings.root, args.arguments[0]) as container:
        record = container.record()
        everything = args.options.on("all") or (
            signum == signal.SIGKILL and not _has_pid_namespace(container)
        )
    args.log.step(f"send signal {signum} to process {record.pid}")
    delivered = _signal_init(record, signum)
    if everything or (signum == signal.SIGKILL and not delivered):
        args.log.step(f"send signal {signum} to the processes of cgroup {record.cgroup}")
        delivered = _signal_all(record, signum) or delivered
    if not delivered:
        raise Conflict("container not running")
    if signum == signal.SIGKILL and frozen(record):
        with _cgroup(record) as cgroup:
            cgroup.thaw()
    return 0


def parse(text: str) -> int:
    """Return the number of a signal from its number or name, with or without SIG.

    :raises InvalidRequest: when there is no such signal.
    """
    if text.isdecimal() and int(text) <= MAX_SIGNAL:  # 0 only checks that the process exists
        return int(text)
    name = text.upper()
    number = getattr(signal, name if name.startswith("SIG") else f"SIG{name}", None)
    if not isinstance(number, int) or text.startswith("_") or "SIG_" in f"SIG{name}":
        raise InvalidRequest(f"unknown signal {text!r}", hint="a name such as TERM, or a number")
    return int(number)


def _has_pid_namespace(container: Container) -> bool:
    """Return whether the container has a pid namespace of its own: all end with init there."""
    try:
        document = fast_json.decode(container.read(CONFIG))
        namespaces = document["linux"]["namespaces"]
        return any(entry["type"] == "pid" and not entry.get("path") for entry in namespaces)
    except (FileNotFoundError, KeyError):
        return False


def _signal_init(record: Record, signum: int) -> bool:
    pidfd = open_process(record)
    if pidfd is None:
        return False
    try:
        signal.pidfd_send_signal(pidfd, signum)
    except ProcessLookupError:
        return False
    finally:
        posix.close(pidfd)
    return True


def _signal_all(record: Record, signum: int) -> bool:
    """Signal every process of the cgroup.

    In a shared pid namespace that includes processes that outlive init.
    """
    from jaula.errors import NotFound

    try:
        with _cgroup(record) as cgroup:
            pids = [pid for pid in cgroup.pids() if pid != record.pid]
            if signum == signal.SIGKILL:
                cgroup.kill()
            else:
                for pid in pids:
                    try:
                        posix.kill(pid, signum)
                    except ProcessLookupError:
                        continue
            return bool(pids)
    except NotFound:
        return False


def _cgroup(record: Record) -> Cgroup:
    from jaula.oci import runtime_services

    return runtime_services.cgroup_of(record)

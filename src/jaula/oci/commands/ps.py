"""``ps``: the processes of a container, as the host sees them."""

from __future__ import annotations

import os

from jaula.errors import InvalidRequest, Unsupported
from jaula.oci import services
from jaula.oci.args import VALUE, CommandArgs
from jaula.oci.container import Container

FLAGS = {"format": VALUE, "f": "format"}
USAGE = "[--format table|json] CONTAINER-ID [PS-OPTIONS]"


def run(call: CommandArgs) -> int:
    """Print the host's pids as JSON, or what ps(1) says of them (``-ef`` unless told)."""
    style = call.options.get("format", "table")
    if style not in ("table", "json"):
        raise InvalidRequest(f"invalid format option {style!r}", hint="table or json")
    if not call.arguments:
        raise InvalidRequest('"ps" requires a minimum of 1 argument, 0 given')
    with Container.find(call.settings.root, call.arguments[0]) as container:
        record = container.record()
    with services.cgroup_of(record) as cgroup:
        pids = cgroup.pids()
    if style == "json":
        os.write(1, f"[{','.join(str(pid) for pid in pids)}]\n".encode())
    else:
        os.write(1, _table(call.arguments[1:] or ["-ef"], frozenset(pids)))
    return 0


def _table(options: list[str], pids: frozenset[int]) -> bytes:
    """The lines of ps(1) for these processes. Raises ``InvalidRequest`` without a PID column."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    try:
        child = os.posix_spawnp(
            "ps",
            ["ps", *options],
            os.environ,
            file_actions=((os.POSIX_SPAWN_DUP2, writing, 1),),
        )
    except FileNotFoundError:
        os.close(reading)
        raise Unsupported("ps is not installed", hint="install procps, or use --format json") from (
            None
        )
    finally:
        os.close(writing)
    with open(reading, "rb") as output:
        head, *lines = output.read().splitlines(keepends=True) or [b""]
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    columns = head.split()
    if code or b"PID" not in columns:
        raise InvalidRequest(
            f"ps {' '.join(options)} shows no PID column (exit status {code})",
            hint="add pid to its format",
        )
    place = columns.index(b"PID")
    return head + b"".join(line for line in lines if _pid(line, place) in pids)


def _pid(line: bytes, place: int) -> int:
    fields = line.split()
    return int(fields[place]) if len(fields) > place and fields[place].isdigit() else -1

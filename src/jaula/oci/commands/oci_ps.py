"""``ps``: list the processes of a container, with their host pids."""

from __future__ import annotations

import os

from jaula.errors import InvalidRequest, Unsupported
from jaula.oci import runtime_services
from jaula.oci.args import VALUE, CommandArgs
from jaula.oci.runtime_container import Container

FLAGS = {"format": VALUE, "f": "format"}
USAGE = "[--format table|json] CONTAINER-ID [PS-OPTIONS]"


def run(args: CommandArgs) -> int:
    """Print the host pids as JSON, or the output of ps(1) (default ``-ef``)."""
    output_format = args.options.get("format", "table")
    if output_format not in ("table", "json"):
        raise InvalidRequest(f"invalid format option {output_format!r}", hint="table or json")
    if not args.arguments:
        raise InvalidRequest('"ps" requires a minimum of 1 argument, 0 given')
    with Container.open(args.settings.root, args.arguments[0]) as container:
        record = container.record()
    with runtime_services.cgroup_of(record) as cgroup:
        pids = cgroup.pids()
    if output_format == "json":
        os.write(1, f"[{','.join(str(pid) for pid in pids)}]\n".encode())
    else:
        os.write(1, _table(args.arguments[1:] or ["-ef"], frozenset(pids)))
    return 0


def _table(options: list[str], pids: frozenset[int]) -> bytes:
    """Return the lines of ps(1) for these processes.

    :raises InvalidRequest: when the output has no PID column.
    :raises Unsupported: when ps is not installed.
    """
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    try:
        child = os.posix_spawnp(
            "ps",
            ["ps", *options],
            os.environ,
            file_actions=((os.POSIX_SPAWN_DUP2, write_end, 1),),
        )
    except FileNotFoundError:
        os.close(read_end)
        raise Unsupported("ps is not installed", hint="install procps, or use --format json") from (
            None
        )
    finally:
        os.close(write_end)
    with open(read_end, "rb") as output:
        header, *lines = output.read().splitlines(keepends=True) or [b""]
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    columns = header.split()
    if code or b"PID" not in columns:
        raise InvalidRequest(
            f"ps {' '.join(options)} shows no PID column (exit status {code})",
            hint="add pid to its format",
        )
    column = columns.index(b"PID")
    return header + b"".join(line for line in lines if _pid(line, column) in pids)


def _pid(line: bytes, column: int) -> int:
    fields = line.split()
    return int(fields[column]) if len(fields) > column and fields[column].isdigit() else -1

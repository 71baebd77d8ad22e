"""``list``: list the containers below the root."""

from __future__ import annotations

import posix

from jaula.errors import CorruptState, InvalidRequest, NotFound
from jaula.oci.args import SWITCH, VALUE, CommandArgs
from jaula.oci.runtime_container import Container, Record
from jaula.spec import fast_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

FLAGS = {"format": VALUE, "f": "format", "quiet": SWITCH, "q": "quiet"}
USAGE = "[--format table|json] [--quiet]"
_HEADER = ("ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER")


def run(args: CommandArgs) -> int:
    """Print a table, JSON, or only the ids."""
    output_format = args.options.get("format", "table")
    if output_format not in ("table", "json"):
        raise InvalidRequest(f"invalid format option {output_format!r}", hint="table or json")
    containers = list(_containers(args))
    if args.options.on("quiet"):
        text = "".join(f"{record.id}\n" for record, _ in containers)
    elif output_format == "json":
        text = (
            fast_json.encode([_document(*one) for one in containers]) + "\n"
            if containers
            else "null\n"
        )
    else:
        text = _table([_row(*one) for one in containers])
    posix.write(1, text.encode("utf-8", "surrogateescape"))
    return 0


def _containers(args: CommandArgs) -> Iterator[tuple[Record, str]]:
    root = args.settings.root
    try:
        names = sorted(posix.listdir(root))
    except FileNotFoundError:
        return
    for name in names:
        try:
            with Container.open(root, name) as container:
                record = container.record()
                yield record, container.status(record)
        except (NotFound, InvalidRequest):
            continue  # deleted meanwhile, or not a container
        except CorruptState as error:
            args.log.warning(str(error))


def _document(record: Record, status: str) -> dict[str, object]:
    return {**record.document(status), "owner": _owner(record.owner)}


def _row(record: Record, status: str) -> tuple[str, ...]:
    pid = 0 if status == "stopped" else record.pid
    owner = _owner(record.owner)
    return record.id, str(pid), status, record.bundle, record.created, owner


def _owner(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"#{uid}"


def _table(rows: list[tuple[str, ...]]) -> str:
    lines = [_HEADER, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_HEADER))]
    return "".join(
        "   ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        + "\n"
        for line in lines
    )

"""``jaula record verify``: the integrity of a record."""

from __future__ import annotations

from jaula.cli.cli_errors import UsageError
from jaula.cli.command_parser import Command, Flag, Options


def run(options: Options) -> int:
    """Verify the hash chain of a record; 1 if it is not intact."""
    from jaula.features.record.cli.record_output import open_record

    expected = options.text("head")
    if options.is_set("head") and (len(expected) != 64 or set(expected) - set("0123456789abcdef")):
        raise UsageError(
            f'invalid argument "{expected}" for "--head": must be 64 hexadecimal digits'
        )
    path = options.arguments[0]
    record = open_record(path)
    errors = list(record.errors)
    if expected and expected != record.head.hash:
        errors.append(f"line {record.head.n}: its hash is not the given head")
    for error in errors:
        print(f"FAIL  {error}")
    if not errors:
        print(f"OK    {record.head.n} lines, {len(record.entries)} entries")
    print(f"head  {record.head.hash}")
    return 1 if errors else 0


COMMAND = Command(
    "[OPTIONS] FILE",
    "Verify the integrity of a record",
    run,
    flags=(
        Flag("head", "", "string", "Hash of the last line, as jaula record printed it",
             metavar="HASH"),
    ),
    min_args=1,
    max_args=1,
    description=(
        "Each line of a record has the hash of the line before. A line that was changed, removed "
        "or inserted is reported, and so is a record without an end. An attacker who can write "
        "the file can write a new chain; --head with the hash that was printed when the record "
        "ended, and kept elsewhere, detects this."
    ),
    examples=(("Verify a record", "jaula record verify web.record"),),
    exit_status=(("0", "the record is intact"), ("1", "it is not")),
    see_also=("record", "record show", "system audit-log"),
    completes="file",
)  # fmt: skip

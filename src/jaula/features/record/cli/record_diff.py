"""``jaula record diff``: the entries that only one of two records has."""

from __future__ import annotations

import sys

from jaula.cli.cli_errors import CliError
from jaula.cli.command_parser import Command, Options


def run(options: Options) -> int:
    """Print the differences; 1 if there are any."""
    from jaula.features.record.cli.record_output import (
        open_record,
        printable,
        program_name,
        subject,
    )

    before, after = (open_record(path) for path in options.arguments)
    from jaula.features.record.compare_records import (
        compare,  # after open_record, which finds the packages
    )

    for path, record in zip(options.arguments, (before, after), strict=True):
        if record.header is None:
            raise CliError(f"{path} is not a record", status=2)
        for error in record.errors:
            print(f"jaula: {path}: {error}", file=sys.stderr)
    if before.errors or after.errors:
        raise CliError("a record that is not intact is not compared", status=2)
    difference = compare(before, after)
    for sign, record, numbers in (
        ("-", before, difference.removed),
        ("+", after, difference.added),
    ):
        for n in numbers:
            entry = record.entries[n]
            words = (entry.kind, program_name(record, entry.program), subject(record, entry))
            print(sign + " " + " ".join(printable(word) for word in words))
    return 1 if difference.added or difference.removed else 0


COMMAND = Command(
    "FILE FILE",
    "Compare two records",
    run,
    min_args=2,
    max_args=2,
    description=(
        "Prints the entries of the first record that the second one lacks (-) and those that it "
        "has in addition (+). Counts and times are not compared."
    ),
    examples=(
        ("Compare a new version of an image", "jaula record diff web-1.record web-2.record"),
    ),
    exit_status=(
        ("0", "both programs did the same"),
        ("1", "the records differ"),
        ("2", "a file is not an intact record"),
    ),
    see_also=("record", "record show"),
    completes="file",
)

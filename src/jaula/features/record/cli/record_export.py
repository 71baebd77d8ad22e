"""``jaula record export``: the entries of a record for other tools."""

from __future__ import annotations

import sys

from jaula.cli.cli_errors import CliError
from jaula.cli.command_parser import Command, Flag, Options

FORMATS = ("jsonl", "ocsf")


def run(options: Options) -> int:
    """Print a line of JSON for each entry; 1 if the record is not intact."""
    output_format = options.choice("format", FORMATS)
    from jaula.features.record.cli.record_output import open_record

    record = open_record(options.arguments[0])
    import msgspec

    from jaula.features.record import record_formats

    try:
        for document in record_formats.FORMATS[output_format](record):
            sys.stdout.write(msgspec.json.encode(document).decode() + "\n")
    except (ValueError, OverflowError) as error:
        raise CliError(f"jaula: cannot export {options.arguments[0]}: {error}") from None
    for problem in record.errors:
        print(f"jaula: {problem}", file=sys.stderr)
    return 1 if record.errors else 0


COMMAND = Command(
    "[OPTIONS] FILE",
    "Print the entries of a record for other tools",
    run,
    flags=(Flag("format", "", "string", 'Format of the output: "jsonl" (JSON lines) or "ocsf" '
                "(events of the Open Cybersecurity Schema Framework)", completes=FORMATS),),
    min_args=1,
    max_args=1,
    description=(
        "Prints one line of JSON for each entry, with the container and absolute times. ocsf: "
        "events of the classes Process, File System, Kernel, Network and DNS Activity; what the "
        "schema has no attribute for is in unmapped."
    ),
    examples=(("Send a record to a SIEM", "jaula record export --format ocsf web.record"),),
    exit_status=(("0", "the record is intact"), ("1", "it is not, or it has no end")),
    see_also=("record", "record show", "record verify"),
    completes="file",
)  # fmt: skip

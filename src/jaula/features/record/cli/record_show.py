"""``jaula record show``: the summary of a record, or its entries."""

from __future__ import annotations

import sys

from jaula.cli.command_parser import Command, Flag, Options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jaula.features.record.record_reader import Record

FORMATS = ("table", "json")
_HEADINGS = ("KIND", "COUNT", "FIRST", "LAST", "PROGRAM", "SUBJECT")


def run(options: Options) -> int:
    """Print the summary or the entries; 1 if the record is not intact."""
    output_format = options.choice("format", FORMATS)
    from jaula import feature
    from jaula.features.record.cli.record_output import open_record

    for each in feature.features():
        if each.shows_record and each.function(each.shows_record)(
            options.arguments[0], as_json=output_format == "json"
        ):
            return 0
    record = open_record(options.arguments[0])
    if output_format == "json":
        _print_json(record)
    else:
        _print_header(record, sources=options.on("all"))
        if options.on("all"):
            _print_table(record)
        else:
            _print_summary(record, options.arguments[0])
    for error in record.errors:
        print(f"jaula: {error}", file=sys.stderr)
    return 1 if record.errors else 0


def _print_json(record: Record) -> None:
    import msgspec

    from jaula.features.record.compare_records import document_of

    for n in record.entries:
        print(msgspec.json.encode(document_of(record, n)).decode())


def _print_header(record: Record, *, sources: bool) -> None:
    from jaula.features.record.cli.record_output import printable

    if record.header is not None:
        header = record.header
        rows = {
            "Container": f"{header.container.name} ({header.container.id[:12]})",
            "Image": f"{header.container.image} ({header.container.image_id})",
            "Kernel": f"{header.kernel.release} {header.kernel.machine}",
            "Mechanism": header.mechanism + (f": {', '.join(header.sources)}" if sources else ""),
            "Started": header.time,
        }
        if header.not_recorded:
            rows["Not recorded"] = ", ".join(header.not_recorded)
        if header.unseen:
            rows["Not seen"] = ", ".join(header.unseen)
        if record.end is not None:
            rows["Ended"] = f"after {record.end.duration / 1e6:.3f} s: {record.end.reason}"
            if not record.end.losses:
                rows["Lost"] = "nothing"
            for name, loss in record.end.losses.items():
                rows[f"Lost in {name}"] = (
                    f"{loss.occurrences} occurrences, {loss.texts} texts, {loss.entries} entries"
                )
        for title, value in rows.items():
            print(f"{title}: {printable(value)}")


def _print_summary(record: Record, path: str) -> None:
    from jaula.cli.output import text_table
    from jaula.features.record.cli import summary

    print(text_table.aligned(list(summary.lines(record)), min_width=0), end="")
    print(f"\n{len(record.entries):,} entries; print them: jaula record show --all {path}")


def _print_table(record: Record) -> None:
    from jaula.cli.output import text_table
    from jaula.features.record.cli.record_output import printable, program_name, subject

    print()
    lines = ["\t".join(_HEADINGS)]
    for entry in record.entries.values():
        cells = (
            entry.kind,
            str(entry.count),
            f"{entry.first / 1e6:.3f}",
            f"{entry.last / 1e6:.3f}",
            program_name(record, entry.program),
            subject(record, entry),
        )
        lines.append("\t".join(printable(cell) for cell in cells))
    print(text_table.aligned(lines), end="")


COMMAND = Command(
    "[OPTIONS] FILE|DIRECTORY|HONEYPOT",
    "Show the summary or the entries of a record, or a run of a honeypot",
    run,
    flags=(
        Flag("all", "a", "bool", "Print all entries instead of a summary"),
        Flag("format", "", "string",
             'Format of the output: "table" or "json" (JSON lines of all entries)',
             completes=FORMATS),
    ),
    min_args=1,
    max_args=1,
    description=(
        "Prints a summary: programs, files by directory, addresses, capabilities, refusals and "
        "the largest use of resources. With --all, it prints one line for each entry: what a "
        "program did, how often, and the seconds after "
        "the start of the record when it did it first and last. Control characters in names are "
        "printed as escapes. For the directory of a honeypot, or the name of its container, it "
        "prints the connections, files and sessions of that run, of a container the newest one."
    ),
    examples=(
        ("Print all entries as a table", "jaula record show --all web.record"),
        ("Print the entries as JSON lines", "jaula record show --format json web.record"),
        ("Show the newest run of a honeypot", "sudo jaula record show pot"),
    ),
    exit_status=(("0", "the record is intact"), ("1", "it is not, or it has no end")),
    see_also=("record", "record diff", "record verify"),
    completes="file",
)  # fmt: skip

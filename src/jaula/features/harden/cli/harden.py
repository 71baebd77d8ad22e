"""``jaula harden``: the least that a container needs, as a profile."""

from __future__ import annotations

import os
import sys

from jaula.cli.cli_errors import CliError, UsageError
from jaula.cli.command_parser import Command, Flag, Options
from jaula.features.harden.cli.harden_apply import LOSSY, NOT_ACCEPTED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from jaula.features.record.record_reader import Record
    from jaula.spec.confinement_profile import Profile

FORMATS = ("toml", "docker", "compose", "kubernetes", "quadlet", "apparmor", "seccomp")


def run(options: Options) -> int:
    """Write the profile that records give, or another form of a profile."""
    output_format = options.choice("format", FORMATS)
    margin = _margin(options)
    paths, profiles = options.texts("record"), options.text("profile")
    if profiles and (paths or options.is_set("margin")):
        raise UsageError("--profile is not combined with --record or --margin", status=1)
    image = options.text("image")
    if image and (paths or profiles or options.is_set("margin")):
        raise UsageError("--image is not combined with --record, --profile or --margin", status=1)
    container = _container(options, output_format)
    if not options.arguments and not paths and not profiles and not image:
        raise UsageError(
            '"jaula harden" requires a container, --record, --image or --profile.', status=1
        )
    from jaula.cli import site_packages

    site_packages.enable()
    from jaula.errors import JaulaError

    try:
        if profiles:
            profile = _load(profiles)
        elif image:
            from jaula.features.harden.cli.guess import guess_profile

            profile = guess_profile(image, options.arguments[0] if options.arguments else "")
        else:
            profile = _derive(options.arguments[0] if options.arguments else "", paths, margin)
        text = _text(profile, output_format)
        if output := options.text("output"):
            _write(output, text)
        elif not container:
            sys.stdout.write(text)
    except JaulaError as error:
        raise CliError(f"jaula: {error}") from None
    lossy = _print_losses(profile) and not options.on("accept-losses")
    if container:
        return _check_and_apply(options, container, text, profile, lossy=lossy)
    return LOSSY if lossy else 0


def _print_losses(profile: Profile) -> bool:
    """Print what a profile lacks for losses of records; return whether it is anything."""
    from jaula.features.harden.derive import losses

    lines = losses(profile)
    for line in lines:
        print(f"jaula: {line}", file=sys.stderr)
    return bool(lines)


def _container(options: Options, output_format: str) -> str:
    """Return the container of --check and --apply, '' without them.

    :raises UsageError: when there is none, or the output is not a profile.
    """
    flags = [f"--{name}" for name in ("check", "apply") if options.on(name)]
    if not flags:
        return ""
    if not options.arguments:
        raise UsageError(f'"jaula harden {flags[0]}" requires a container.', status=1)
    if output_format != "toml":
        raise UsageError(f"{flags[0]} is not combined with --format", status=1)
    return options.arguments[0]


def _check_and_apply(
    options: Options, container: str, text: str, profile: Profile, *, lossy: bool
) -> int:
    """Check and apply a profile as the flags say.

    One that does not work, or that lacks something for losses, is not applied.
    """
    if lossy and options.on("apply"):
        print(NOT_ACCEPTED.format(profile.name), file=sys.stderr)
        return LOSSY
    recorded = not options.is_set("profile")
    if options.on("check"):
        from jaula.features.harden.cli.harden_check import check_profile

        if status := check_profile(container, text, profile, recorded=recorded):
            return status
    if options.on("apply"):
        from jaula.features.harden.cli.harden_apply import apply_profile

        apply_profile(container, text, profile, recorded=recorded)
    return LOSSY if lossy else 0


def _margin(options: Options) -> float:
    text = options.text("margin", "1.5")
    try:
        margin = float(text)
    except ValueError:
        margin = -1.0
    if margin != 0 and not 1.0 <= margin <= 100.0:
        raise UsageError(
            f'invalid argument "{text}" for "--margin" flag: must be 0 or a number from 1 to 100'
        )
    return margin


def _derive(name: str, paths: list[str], margin: float) -> Profile:
    """Return the profile of records: those given, otherwise those of a container in this directory.

    :raises JaulaError: when a record cannot be read or is not intact.
    """
    from jaula.errors import InvalidRequest
    from jaula.features.harden import derive
    from jaula.features.record import record_reader

    if not paths:
        paths = _records_of(name)
    records = []
    for path in paths:
        record = record_reader.read(path)
        if record.errors or record.header is None:
            raise InvalidRequest(
                f"{path} is not an intact record: {(record.errors or ['no header'])[0]}",
                hint=f"jaula record verify {path} lists what is wrong",
            )
        records.append(record)
    _check_containers(paths, records, name)
    for path in paths:
        print(f"jaula: using {path}", file=sys.stderr)
    first = records[0].header
    return derive.derive(records, name or (first.container.name if first else ""), margin=margin)


def _records_of(name: str) -> list[str]:
    """Return the records of a container in the working directory, as ``jaula record`` names them.

    :raises CliError: when there is none.
    """
    found = sorted(
        each
        for each in os.listdir(".")
        if each == f"{name}.record" or (each.startswith(f"{name}-") and each.endswith(".record"))
    )
    from jaula.features.record import record_reader

    matching, others = [], []
    for path in found:
        header = record_reader.read(path).header
        if header is None or header.container.name == name:  # an invalid one is an error later
            matching.append(path)
        else:
            others.append(f"{path} is of {header.container.name}")
    if not matching:
        searched = "; ".join(others) or f"{name}.record, {name}-*.record"
        raise CliError(
            f"jaula: no record of {name} in this directory ({searched}); "
            f"make one with jaula record {name}, or name it with --record FILE"
        )
    return matching


def _check_containers(paths: list[str], records: list[Record], name: str) -> None:
    """Refuse records of several containers, unless ``name`` says what the profile is of."""
    names = {record.header.container.name for record in records if record.header}
    if not name and len(names) > 1:
        raise CliError(
            f"jaula: {', '.join(paths)} are records of {', '.join(sorted(names))}; "
            "name the profile: jaula harden NAME --record FILE --record FILE"
        )


def _load(path: str) -> Profile:
    from jaula.cli.containers.profiles import open_profile

    return open_profile(path)


def _text(profile: Profile, output_format: str) -> str:
    from importlib import import_module

    from jaula.features.harden import profile_toml

    if output_format == "toml":
        return profile_toml.dumps(profile)
    render: Callable[[Profile], str] = import_module(
        f"jaula.features.harden.formats.{output_format}"
    ).render
    return render(profile)


def _write(path: str, text: str) -> None:
    """Write a file, which must not exist.

    :raises CliError: when it does, or cannot be written.
    """
    try:
        with open(path, "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise CliError(f"jaula: {path} exists; remove it or name another file") from None
    except OSError as error:
        raise CliError(f"jaula: cannot write {path}: {error.strerror}") from None


COMMAND = Command(
    "[OPTIONS] [NAME]",
    "Make a profile, the least that a container needs, from records of it",
    run,
    flags=(
        Flag("record", "", "list", "Record of the container (default NAME.record, NAME-*.record)",
             metavar="FILE", completes="file"),
        Flag("image", "", "string", "Guess the profile from the files of an image, not a record",
             metavar="IMAGE", completes="image"),
        Flag("profile", "", "string", "Print another form of a profile, instead of making one",
             metavar="FILE", completes="file"),
        Flag("output", "o", "string", "New file for the profile", metavar="FILE",
             completes="file"),
        Flag("format", "", "string", f"Format of the output: {', '.join(FORMATS)}",
             completes=FORMATS),
        Flag("margin", "", "string",
             "Factor from a recorded peak to its limit, 0 for no limits (default 1.5)",
             metavar="NUMBER"),
        Flag("accept-losses", "", "bool",
             "Use a profile although its records lost something or a list was too long"),
        Flag("check", "", "bool", "Check the profile with twins of the container: harden check"),
        Flag("apply", "", "bool", "Create the container again under the profile: harden apply"),
    ),
    max_args=1,
    description=(
        "A profile names the capabilities, system calls, files, destinations and limits that the "
        "records of a container have, with the evidence for each. All else is refused when a "
        "container runs with it: jaula run --profile FILE. Several records are joined. A record "
        "that is not intact is refused, and what records lost is in the profile's header.\n\n"
        "--check and --apply do with the profile what harden check and harden apply do with a "
        "file; with both, a profile is applied only if the container works under it."
    ),
    examples=(
        ("Make a profile of two records", "jaula harden web --record a.record --record b.record"),
        ("Guess a profile from an image", "jaula harden --image nginx"),
        ("Write it to a file", "jaula harden web -o web.toml"),
        ("Apply it, if the container works under it", "jaula harden web --check --apply"),
    ),
    exit_status=(
        ("0", "the profile is complete; with --check and --apply, it works and is applied"),
        ("1", "it cannot be made, does not work, or gives what the container does not have"),
        ("3", "the records lost something or a list was too long; --accept-losses applies it"),
    ),
    see_also=("record", "harden apply", "harden check", "harden diff", "run"),
    completes="container",
)  # fmt: skip

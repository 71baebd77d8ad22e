"""The text of a profile: TOML with the evidence of each item as a comment beside it. Pure.

Source: TOML 1.0. The same profile is the same text. A container chooses names of files, programs
and addresses, so each one is escaped, in strings and in comments.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import msgspec

from jaula.security.capability_sets import DEFAULT
from jaula.spec.confinement_profile import Evidence, Profile
from jaula.spec.quoted_string import quoted

_MAX_COLUMN = 44  # of the comments beside items
_COMMENT_WIDTH = 160


def dumps(profile: Profile) -> str:
    """Return the text of a profile; :func:`jaula.spec.confinement_profile.load` is the inverse."""
    return "\n".join(_lines(profile)) + "\n"


def comment(text: str) -> str:
    """Return a text for a comment: on one line, without control characters."""
    line = "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )
    return line if len(line) <= _COMMENT_WIDTH else line[: _COMMENT_WIDTH - 3] + "..."


def evidence_text(evidence: Evidence, records: int = 1) -> str:
    """Return evidence in words: ``3 times by /usr/sbin/nginx: bind``."""
    if not evidence.count:
        return evidence.reason
    times = "once" if evidence.count == 1 else f"{evidence.count} times"
    if records > 1:
        times += f" in {evidence.records} of {records} records"
    text = f"{times} by {', '.join(evidence.programs)}" if evidence.programs else times
    return f"{text}: {evidence.reason}" if evidence.reason else text


def _lines(profile: Profile) -> Iterator[str]:
    yield from _header(profile)
    yield ""
    yield f"version = {profile.version}"
    yield f"name = {quoted(profile.name)}"
    if profile.image:
        yield f"image = {quoted(profile.image)}"
    if profile.guessed:
        yield "guessed = true  # from the files of the image, without a record"
    if profile.notes:
        yield ""
        yield from _array("notes", profile.notes)
    if profile.incomplete:
        yield ""
        yield "# Not restricted, since records lost too much or the list was too long."
        yield from _array("incomplete", profile.incomplete)
    writer = _Writer(profile)
    yield ""
    yield f"# {_capability_summary(profile)}"
    yield from writer.array("capabilities", profile.capabilities, "capabilities")
    if profile.devices:
        yield ""
        yield from writer.array("devices", profile.devices, "devices")
    yield ""
    yield "[process]"
    if profile.process.user:
        yield f"user = {quoted(profile.process.user)}"
    yield writer.scalar("no-new-privileges", _boolean(profile.process.no_new_privileges), "process")
    yield from _files(profile, writer)
    yield from _network(profile, writer)
    yield from _limits(profile, writer)
    yield from _seccomp(profile, writer)
    yield from _sources(profile)
    yield from _evidence(profile.evidence)


def _header(profile: Profile) -> Iterator[str]:
    image = f" (image {profile.image})" if profile.image else ""
    yield f"# {comment(f'The least that {profile.name}{image} needs.')}"
    if profile.guessed:
        yield "# Guessed from the files of the image: no record shows it."
    elif profile.sources:
        number = len(profile.sources)
        yield f"# Made by jaula harden from {number} record{'s' if number > 1 else ''}:"
        for source in profile.sources:
            start = "with" if source.start_recorded else "without"
            lost = ", ".join(f"{count} in {table}" for table, count in source.losses.items())
            yield "#   " + comment(
                f"{source.time[:19]}Z, {_seconds(source.duration)}, {start} the start, "
                f"lost: {lost or 'nothing'}"
            )
    yield "# All that it does not name is refused. Apply it with jaula run --profile FILE."


def _seconds(duration: float) -> str:
    minutes, seconds = divmod(round(duration), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds} s" if minutes else f"{duration:.1f} s"


def _capability_summary(profile: Profile) -> str:
    used = {f"CAP_{name}" for name in profile.capabilities}
    kept = len(used & set(DEFAULT))
    text = f"{kept} of the {len(DEFAULT)} default capabilities"
    if more := len(used) - kept:
        text += f", and {more} more"
    return text + "."


class _Writer:
    """Lines of items with their evidence."""

    def __init__(self, profile: Profile) -> None:
        self._evidence = profile.evidence
        self._records = len(profile.sources)

    def note(self, section: str, item: str) -> str:
        evidence = self._evidence.get(section, {}).get(item)
        return comment(evidence_text(evidence, self._records)) if evidence else ""

    def array(self, key: str, items: Iterable[str], section: str) -> Iterator[str]:
        return _array(key, items, {item: self.note(section, item) for item in items})

    def table(self, items: Mapping[str, str], section: str) -> Iterator[str]:
        rows = {
            f"{quoted(key)} = {quoted(value)}": self.note(section, key)
            for key, value in items.items()
        }
        return _aligned(rows, "")

    def scalar(self, key: str, value: str, section: str) -> str:
        note = self.note(section, key)
        return f"{key} = {value}" + (f"  # {note}" if note else "")


def _array(key: str, items: Iterable[str], notes: Mapping[str, str] | None = None) -> Iterator[str]:
    items = tuple(items)
    if not items:
        yield f"{key} = []"
        return
    yield f"{key} = ["
    yield from _aligned({f"{quoted(item)},": (notes or {}).get(item, "") for item in items}, "    ")
    yield "]"


def _aligned(rows: Mapping[str, str], indent: str) -> Iterator[str]:
    """Yield rows with their comments in one column, as far as the rows are short."""
    short = [len(row) for row, note in rows.items() if note and len(row) <= _MAX_COLUMN]
    column = max(short, default=0)
    for row, note in rows.items():
        yield f"{indent}{row:<{column}}  # {note}" if note else f"{indent}{row}"


def _boolean(value: bool) -> str:
    return "true" if value else "false"


def _files(profile: Profile, writer: _Writer) -> Iterator[str]:
    files = profile.files
    yield ""
    yield "[files]"
    yield writer.scalar("read-only-root", _boolean(files.read_only_root), "files.read-only-root")
    if files.volumes:
        yield from writer.array("volumes", files.volumes, "files.volumes")
    if not (files.read or files.execute):
        yield "# The whole root may be read and executed."
    else:
        if files.execute:
            yield f"# {_number(files.execute, 'program')} may be executed, all others are refused."
            yield from writer.array("execute", files.execute, "files.execute")
        else:
            yield "# What may be read may be executed."
        if files.read:
            yield "# A path that ends with / includes what is below it."
            yield from writer.array("read", files.read, "files.read")
        else:
            yield "# All files may be read."
    yield from writer.array("write", files.write, "files.write")
    if files.masked:
        yield "# Of the host, and never read."
        yield from _array("masked", files.masked)
    if files.tmpfs:
        yield ""
        yield "[files.tmpfs]"
        yield from writer.table(files.tmpfs, "files.tmpfs")


def _number(items: tuple[str, ...], noun: str) -> str:
    return f"{len(items)} {noun}{'' if len(items) == 1 else 's'}"


def _network(profile: Profile, writer: _Writer) -> Iterator[str]:
    network = profile.network
    yield ""
    yield "[network]"
    if network.mode:
        yield f"mode = {quoted(network.mode)}  # no socket but unix ones"
    if network.listen is None:
        if not network.mode:
            yield "# Connections from others are not restricted."
    elif network.listen:
        yield from writer.array("listen", network.listen, "network.listen")
    else:
        if not network.mode:
            yield "# It was not reachable at any port."
        yield "listen = []"
    if network.egress is None:
        yield "# Connections to the outside are not restricted."
    elif network.egress or not network.mode:
        if not network.egress:
            yield "# It connected to nothing."
        yield from writer.array("egress", network.egress, "network.egress")
    elif network.egress == ():
        yield "egress = []"


def _limits(profile: Profile, writer: _Writer) -> Iterator[str]:
    limits = profile.limits
    values = {"pids": limits.pids, "memory": limits.memory, "cpus": limits.cpus}
    if not any(values.values()):
        return
    yield ""
    yield "[limits]"
    for key, value in values.items():
        if value:
            yield writer.scalar(key, str(value), "limits")


def _seccomp(profile: Profile, writer: _Writer) -> Iterator[str]:
    seccomp = profile.seccomp
    if not seccomp.syscalls and not seccomp.unavailable:
        return
    if seccomp.syscalls:
        yield ""
        yield "# All other system calls fail with EPERM."
        yield "[seccomp.syscalls]"
        for architecture, names in sorted(seccomp.syscalls.items()):
            yield f"# {_number(names, 'system call')}"
            yield from writer.array(architecture, names, f"seccomp.syscalls.{architecture}")
    if seccomp.unavailable:
        yield ""
        yield "# These fail with ENOSYS, as in the records."
        yield "[seccomp.unavailable]"
        for architecture, names in sorted(seccomp.unavailable.items()):
            yield from writer.array(architecture, names, f"seccomp.unavailable.{architecture}")


def _sources(profile: Profile) -> Iterator[str]:
    for source in profile.sources:
        yield ""
        yield "[[sources]]"
        for key, value in msgspec.to_builtins(source).items():
            yield f"{key} = {_value(value)}"


def _evidence(evidence: Mapping[str, Mapping[str, Evidence]]) -> Iterator[str]:
    if evidence:
        yield ""
        yield "# The comments above, as data."
    for section, items in sorted(evidence.items()):
        yield ""
        yield f"[evidence.{quoted(section)}]"
        for item, each in sorted(items.items()):
            yield f"{quoted(item)} = {_value(msgspec.to_builtins(each))}"


def _value(value: object) -> str:
    if isinstance(value, bool):
        return _boolean(value)
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, Mapping):
        return (
            "{ " + ", ".join(f"{_key(key)} = {_value(each)}" for key, each in value.items()) + " }"
        )
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_value(each) for each in value) + "]"
    return quoted(str(value))


def _key(key: object) -> str:
    text = str(key)
    plain = text and all(each.isascii() and (each.isalnum() or each in "-_") for each in text)
    return text if plain else quoted(text)

"""A profile guessed from an image: its configuration, and the code of its programs. No record.

Guessed are system calls, capabilities, writable directories, ports and the user. Egress, files that
are read, and limits stay open, since nothing in an image says them. Nothing is executed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from jaula import extras
from jaula.errors import Unavailable
from jaula.features.harden.image_scan_languages import LANGUAGES, SERVICE, language_of
from jaula.features.harden.image_scan_program import Programs
from jaula.features.harden.image_scan_tree import Directory, File, ImageTree
from jaula.features.harden.profile_syscalls import ALWAYS, ALWAYS_REASON
from jaula.kernel import seccomp
from jaula.security.capability_sets import DEFAULT
from jaula.security.seccomp.seccomp_filter import default_profile
from jaula.spec.confinement_profile import (
    Architecture,
    Evidence,
    Files,
    Network,
    Process,
    Profile,
    Seccomp,
)
from jaula.spec.image_documents import ImageConfig, ImageDocument

if TYPE_CHECKING:
    from jaula.features.harden.elf_calls import Call

_ARCHITECTURES: dict[str, Architecture] = {"x86_64": "x86_64", "aarch64": "aarch64"}
_TOKENS = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}
_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
_CALL_CAPABILITIES: dict[str, tuple[str, ...]] = {
    "chown": ("CHOWN",), "fchown": ("CHOWN",), "fchownat": ("CHOWN",), "lchown": ("CHOWN",),
    "chmod": ("FOWNER", "FSETID"), "fchmod": ("FOWNER", "FSETID"),
    "fchmodat": ("FOWNER", "FSETID"),
    "chroot": ("SYS_CHROOT",), "kill": ("KILL",), "setpgid": (), "mknodat": ("MKNOD",),
    "setuid": ("SETUID",), "setresuid": ("SETUID",), "setreuid": ("SETUID",),
    "setgid": ("SETGID",), "setresgid": ("SETGID",), "setregid": ("SETGID",),
    "setgroups": ("SETGID",),
}  # fmt: skip
"""Capabilities that root needs for a call on what belongs to another user."""
_TRANSIENT = ("/tmp", "/var/tmp", "/run")
_NOTES_LIMIT = 32


class _Found(NamedTuple):
    """Where a system call comes from: programs, and the first library and function."""

    programs: list[str]
    reason: str


def guess(
    tree: ImageTree, document: ImageDocument, name: str, *, image: str = "",
    arguments: Iterable[str] | None = None,
) -> Profile:  # fmt: skip
    """Return the profile that the files of an image suggest, marked as guessed.

    ``arguments`` replace the command of the image, as those of ``docker run``.

    :raises Unavailable: when the disassembler is not installed.
    """
    config = document.config
    machine = _MACHINES.get(document.architecture, "x86_64")
    programs = Programs(tree, config)
    command = list(config.cmd or ()) if arguments is None else list(arguments)
    programs.start([*config.entrypoint, *command])
    calls = _system_calls(programs, machine)
    notes = list(programs.notes)
    seccomp_rules, evidence = _seccomp(calls, _ARCHITECTURES[machine], notes)
    root = config.user.partition(":")[0] in ("", "0", "root")
    ports = _ports(config)
    capabilities: dict[str, Evidence] = {}
    if root:
        capabilities = _capabilities(calls, ports)
    evidence["capabilities"] = capabilities
    files = _files(tree, config, programs, evidence)
    evidence["network.listen"] = {port: Evidence(reason="EXPOSE") for port in ports}
    notes.insert(0, "guessed from the image's files: a record says more, and is exact")
    if not config.entrypoint and not command:
        notes.append("the image has no ENTRYPOINT and no CMD")
    return Profile(
        name=name,
        image=image,
        guessed=True,
        process=Process(user=config.user, no_new_privileges=not _gains(programs)),
        capabilities=tuple(sorted(capabilities)),
        seccomp=seccomp_rules,
        files=files,
        network=Network(listen=ports or None),
        notes=tuple(notes[:_NOTES_LIMIT]),
        evidence={section: items for section, items in evidence.items() if items},
    )


def _system_calls(programs: Programs, machine: str) -> dict[str, _Found]:
    """Return the system calls of all programs by name."""
    try:
        from jaula.features.harden.elf_calls import Analysis
    except ImportError as error:
        raise Unavailable(
            f"the code of an image cannot be read: {error}",
            hint=f"for the disassembler, {extras.instruction('harden')}",
        ) from None
    found: dict[str, _Found] = {}
    analysis = Analysis()
    unknown: dict[str, None] = {}

    def add(name: str, program: str, reason: str) -> None:
        entry = found.setdefault(name, _Found([], reason))
        if program not in entry.programs:
            entry.programs.append(program)

    for program in programs.programs.values():
        if language := language_of(program.path):
            for name in LANGUAGES[language]:
                add(name, program.path, f"stated for {language}")
            continue
        loaded = programs.load(program.path)
        if loaded is None:
            programs.notes[f"{program.path} ({program.reason}) could not be read"] = None
            continue
        for library in loaded.missing:
            programs.notes[f"{program.path} needs {library}, which the image does not have"] = None
        result = analysis.find_calls(loaded.objects, loaded.opened)
        for call in result.calls:
            name_of = seccomp.name_of(call.number, _TOKENS[machine])
            if name_of is not None:
                add(name_of, program.path, _reason(call, program.path))
        if not result.complete:
            programs.notes[
                f"{program.path} is too large to be followed: calls of services were added"
            ] = None
            for name in SERVICE:
                add(name, program.path, "stated for services, since the program is too large")
        unknown |= dict.fromkeys(result.unknown)
        for path in result.unread:
            programs.notes[f"{path} is too large: the calls by its own code are not known"] = None
    if unknown:
        shown = ", ".join(list(unknown)[:3])
        more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
        programs.notes[f"system calls whose number is not constant, in {shown}{more}"] = None
    return found


def _reason(call: Call, program: str) -> str:
    """Return the function that makes a call, its library, and what leads from the program to it."""
    if call.path == program:
        return call.symbol or "the program"
    library = call.path.rpartition("/")[2]
    symbol = call.symbol or "a function"
    if not call.root:
        origin = call.root_path.rpartition("/")[2]
        return f"start or function tables of {origin} use {symbol} of {library}"
    if call.root == symbol:
        return f"{symbol} of {library}"
    return f"{call.root} uses {symbol} of {library}"


def _seccomp(
    calls: dict[str, _Found], architecture: Architecture, notes: list[str]
) -> tuple[Seccomp, dict[str, dict[str, Evidence]]]:
    """Return the allow-list: calls that are used and that the default filter permits."""
    permitted = {
        name
        for rule in default_profile([f"CAP_{each}" for each in DEFAULT]).syscalls
        if rule.action == "SCMP_ACT_ALLOW"
        for name in rule.names
    }
    refused = sorted(name for name in calls if name not in permitted)
    names = {
        name: Evidence(programs=tuple(found.programs[:4]), reason=found.reason)
        for name, found in sorted(calls.items())
        if name in permitted
    }
    for name in ALWAYS[architecture]:
        names.setdefault(name, Evidence(reason=ALWAYS_REASON))
    unavailable: tuple[str, ...] = ()
    if "clone3" in calls:
        refused.remove("clone3")
        unavailable = ("clone3",)
        names.setdefault("clone", Evidence(reason="used if clone3 is not available"))
    if refused:
        notes.append("the code has, and the default filter refuses: " + ", ".join(refused))
    return (
        Seccomp(
            syscalls={architecture: tuple(sorted(names))},
            unavailable={architecture: unavailable} if unavailable else {},
        ),
        {f"seccomp.syscalls.{architecture}": dict(sorted(names.items()))},
    )


def _capabilities(calls: dict[str, _Found], ports: tuple[str, ...]) -> dict[str, Evidence]:
    """Return the capabilities of a program that runs as root; at most the default ones."""
    found: dict[str, Evidence] = {}
    for call, names in _CALL_CAPABILITIES.items():
        if call in calls:
            for name in names:
                found.setdefault(
                    name, Evidence(programs=tuple(calls[call].programs[:4]), reason=call)
                )
    if "SETUID" in found or "CHOWN" in found:
        found["DAC_OVERRIDE"] = Evidence(reason="root uses files of another user")
    low = [port for port in ports if int(port.partition(":")[2]) < 1024]
    if low:
        found["NET_BIND_SERVICE"] = Evidence(reason=f"EXPOSE {', '.join(low)}")
    available = {name.removeprefix("CAP_") for name in DEFAULT}
    return {name: found[name] for name in sorted(found) if name in available}


def _ports(config: ImageConfig) -> tuple[str, ...]:
    """Return the exposed ports as ``tcp:PORT``; a range is expanded."""
    ports = set()
    for text in config.exposed_ports:
        port, _, protocol = text.partition("/")
        first, _, last = port.partition("-")
        if (
            not first.isdigit()
            or (last and not last.isdigit())
            or protocol not in ("", "tcp", "udp")
        ):
            continue
        for number in range(int(first), min(int(last or first), int(first) + 1023, 65535) + 1):
            if 0 < number <= 65535:
                ports.add((protocol or "tcp", number))
    return tuple(f"{protocol}:{number}" for protocol, number in sorted(ports))


def _files(
    tree: ImageTree, config: ImageConfig, programs: Programs,
    evidence: dict[str, dict[str, Evidence]],
) -> Files:  # fmt: skip
    """Return a read-only root, its volumes, and tmpfs for what does not outlive the container.

    A directory below /var that a program names is written. A volume has the files of the image.
    """
    volumes = {
        "/" + path.strip("/"): Evidence(reason="VOLUME")
        for path in config.volumes
        if path.strip("/")
    }
    tmpfs: dict[str, Evidence] = {}
    for path in _TRANSIENT:
        found = tree.resolve(path)
        if found is not None and found[0] == path and not _below(path, volumes):
            tmpfs[path] = Evidence(reason="temporary files")
    for path, program in sorted(programs.directories("/var")):
        parts = path.split("/")[:4]  # /var/lib/NAME
        place = "/".join(parts)
        if len(parts) < 4 or _below(place, (*volumes, *tmpfs)):
            continue
        section = tmpfs if parts[2] in ("cache", "run", "lock") else volumes
        section[place] = Evidence(programs=(program,), reason="named in its file")
    evidence["files.tmpfs"] = dict(sorted(tmpfs.items()))
    evidence["files.volumes"] = dict(sorted(volumes.items()))
    modes = {path: tree.resolve(path) for path in tmpfs}
    return Files(
        tmpfs={
            path: _tmpfs_options(found[1] if found else None)
            for path, found in sorted(modes.items())
        },
        volumes=tuple(sorted(volumes)),
        write=tuple(sorted(f"{path}/" for path in (*volumes, *tmpfs))),
    )


def _tmpfs_options(node: Directory | File | None) -> str:
    """Return the options that give a tmpfs the mode and the owner of the image's directory."""
    if not isinstance(node, Directory):
        return ""
    options = [f"mode={node.mode & 0o7777:o}"]
    options += [f"{name}={each}" for name, each in (("uid", node.uid), ("gid", node.gid)) if each]
    return ",".join(options)


def _below(path: str, directories: Iterable[str]) -> bool:
    return any(path == each or path.startswith(f"{each}/") for each in directories)


def _gains(programs: Programs) -> bool:
    """Return whether a program is setuid or setgid, so that it gains privileges."""
    return any(programs.mode(path) & 0o6000 for path in programs.programs)

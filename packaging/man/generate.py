"""Generate the man pages from the command tables that parse the command lines.

    PYTHONPATH=src python packaging/man/generate.py DIRECTORY

Writes ``man1/jaula.1``, one page for each command and each group of ``jaula``, a ``.so`` link for
each alias, ``man1/docker-credential-jaula.1`` and ``man8/jaula-runtime.8``. The wheel's build hook
(hatch_build.py) calls :func:`pages`, so no generated page is committed.

Source: man(7) and groff_char(7) for macros and escapes, man-pages(7) for the order of sections.
The output is ASCII: other characters become ``\\[uXXXX]``.
"""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

from jaula import __version__
from jaula.cli import command_table
from jaula.cli.command_parser import Command, Flag
from jaula.oci.args import LIST, SWITCH, VALUE
from jaula.oci.runtime_main import COMMANDS as RUNTIME_COMMANDS
from jaula.oci.runtime_main import GLOBAL_FLAGS

CREDENTIAL_VERBS = ("get", "store", "erase", "list")
CHANGELOG = Path(__file__).resolve().parents[2] / "CHANGELOG.md"
WIDTH = 76  # columns of a source line
METAVARS = {"size": "bytes", "seconds": "int"}

ENVIRONMENT = (
    ("JAULA_HOST", "Engine to connect to, as --host. Takes precedence over DOCKER_HOST."),
    ("DOCKER_HOST", "Engine to connect to if neither --host, --context nor JAULA_HOST is set."),
    ("DOCKER_CONTEXT", "Context to use if none of these is set. Overrides jaula context use."),
    ("DOCKER_TLS_VERIFY", "If not empty, connect by TLS and verify the engine's certificate."),
    ("DOCKER_TLS", "If not empty, connect by TLS."),
    ("DOCKER_CERT_PATH", "Directory of ca.pem, cert.pem and key.pem. The default is ~/.docker."),
    ("DOCKER_CONFIG", "Directory of config.json and of the contexts. The default is ~/.docker."),
)
FILES = (
    ("/run/jaula/jaula.sock", "Unix socket of the system's engine."),
    ("/var/lib/jaula", "Images, layers, volumes, the database and the audit log."),
    ("/etc/jaula/daemon.json", "Settings of the engine, with the keys of Docker's daemon.json."),
    ("/etc/jaula/policy.toml", "Authorization policy: privileges of users, rules for images."),
)

# Help of the flags of jaula-runtime: its FLAGS tables hold names and kinds only.
RUNTIME_GLOBAL_HELP = {
    "root": "Directory of the containers' state. The default is /run/jaula-runtime, or "
    "$XDG_RUNTIME_DIR/jaula-runtime without root.",
    "log": "File to append errors and warnings to. The default is standard error.",
    "log-format": "Format of the log: text or json. The default is text.",
    "debug": "Log debug messages.",
    "systemd-cgroup": "Create the cgroup as a scope of systemd, over D-Bus.",
    "rootless": "Run without root: true, false or auto. The default is auto.",
    "help": "Print usage.",
    "version": "Print version information.",
}
RUNTIME_HELP = {
    "additional-gids": "Additional group id of the process. May be repeated.",
    "all": "Send the signal to every process of the container.",
    "apparmor": "AppArmor profile of the process.",
    "blkio-weight": "Block I/O weight, 10 to 1000.",
    "bundle": "Directory of config.json. The default is the current directory.",
    "cap": "Additional capability of the process. May be repeated.",
    "cgroup": "Existing cgroup below the container's, [CONTROLLER:]PATH. May be repeated.",
    "console-socket": "Unix socket that receives the terminal's descriptor.",
    "cpu-burst": "Microseconds of CPU time that may accumulate.",
    "cpu-idle": "Whether the cgroup is scheduled as SCHED_IDLE: 0 or 1.",
    "cpu-period": "Length of a CFS period in microseconds.",
    "cpu-quota": "CPU time in a CFS period, in microseconds.",
    "cpu-rt-period": "Length of a real-time period in microseconds.",
    "cpu-rt-runtime": "Real-time CPU time in a period, in microseconds.",
    "cpu-share": "CPU shares, relative to other containers.",
    "cpuset-cpus": "CPUs that may be used, such as 0-2,7.",
    "cpuset-mems": "Memory nodes that may be used.",
    "cwd": "Working directory of the process.",
    "detach": "Do not wait for the process to exit.",
    "env": "Environment variable of the process, NAME=VALUE. May be repeated.",
    "force": "Kill the container's processes first. A missing container is not an error.",
    "format": "Output format: table or json.",
    "ignore-paused": "Start the process in a paused container.",
    "interval": "Time between two statistics documents, such as 5s.",
    "keep": "Keep the container's state after its process has exited.",
    "memory": "Memory limit. Suffixes b, k, m, g and t are accepted.",
    "memory-reservation": "Soft memory limit.",
    "memory-swap": "Limit of memory and swap together; -1 for no limit.",
    "no-new-keyring": "Do not create a session keyring for the container.",
    "no-new-privs": "Set no_new_privs for the process.",
    "no-pivot": "Use MS_MOVE and chroot(2) instead of pivot_root(2).",
    "no-subreaper": "No effect; accepted for callers of runc.",
    "pid-file": "File to write the process id to.",
    "pidfd-socket": "Unix socket that receives a pidfd of the process.",
    "pids-limit": "Maximum number of processes; -1 for no limit.",
    "preserve-fds": "Number of descriptors after 2 to pass to the process.",
    "process": "JSON file of the process, instead of flags and arguments.",
    "process-label": "SELinux label of the process.",
    "quiet": "Print container ids only.",
    "resources": "JSON file of the limits; - for standard input.",
    "rootless": "Write a spec with a user namespace, for use without root.",
    "stats": "Print one statistics document and exit.",
    "tty": "Allocate a pseudo-terminal.",
    "user": "User of the process, UID[:GID] in digits.",
}
RUNTIME_EXAMPLES = (
    ("Write a default config.json and run it", "jaula-runtime spec && jaula-runtime run demo"),
    ("Use it from podman", "podman --runtime /usr/local/bin/jaula-runtime run --rm busybox id"),
    ("Kill and remove a container", "jaula-runtime delete --force demo"),
)


# --- roff ---------------------------------------------------------------------------------------

_ESCAPES = str.maketrans(
    {"\\": "\\e", "'": "\\(aq", "`": "\\(ga", "^": "\\(ha", "~": "\\(ti", '"': "\\(dq"}
)


def literal(text: str) -> str:
    """Escape text that a reader may copy: every character keeps its ASCII form."""
    return _ascii(text.translate(_ESCAPES).replace("-", "\\-"))


def prose(text: str) -> str:
    """Escape running text: hyphens stay, except in flags, paths and settings."""
    return " ".join(_word(word) for word in text.split(" "))


def _word(word: str) -> str:
    if re.match(r"[(\['\"]*-|.*[/=]", word):
        return literal(word)
    return _ascii(word.translate(_ESCAPES))


def _ascii(text: str) -> str:
    return "".join(c if ord(c) < 127 else f"\\[u{ord(c):04X}]" for c in text)


def lines(text: str) -> str:
    """Break escaped text into source lines. No line begins like a request of roff."""
    broken = [""]
    for word in text.split():
        if broken[-1] and len(broken[-1]) + 1 + len(word) > WIDTH:
            broken.append(word)
        else:
            broken[-1] = f"{broken[-1]} {word}".strip()
    return "\n".join(f"\\&{line}" if line[:1] in (".", "'") else line for line in broken)


def paragraphs(text: str) -> str:
    """Return the paragraphs of a description."""
    return "\n.PP\n".join(lines(prose(part)) for part in text.split("\n\n"))


def header(name: str, section: int) -> str:
    """Return the first line of a page: name, section, date, version, manual."""
    manual = {1: "User Commands", 8: "System Administration"}[section]
    return (
        f'.TH {literal(name.upper())} {section} {release_date()} "jaula {__version__}" "{manual}"'
    )


def release_date() -> str:
    """Return the date of the newest release in the changelog: builds are reproducible."""
    match = re.search(r"^## \S+ - (\d{4}-\d\d-\d\d)$", CHANGELOG.read_text(), re.MULTILINE)
    if match is None:
        raise SystemExit(f"{CHANGELOG}: no release section, '## VERSION - YYYY-MM-DD'")
    return match[1]


def section(title: str, body: str) -> str:
    """Return one section."""
    quoted = f'"{title}"' if " " in title else title
    return f".SH {quoted}\n{body}"


def tagged(head: str, text: str) -> str:
    """Return one entry of a list: an escaped head, and its text indented below."""
    return f".TP\n{head}\n{lines(prose(text))}"


def reference(words: str) -> str:
    """Return the reference to the page of a command."""
    return f"\\fB{literal(page_name(words))}\\fP(1)"


def examples(rows: tuple[tuple[str, str], ...]) -> str:
    """Return the examples: a sentence and a command line each."""
    return "\n".join(
        f".PP\n{lines(prose(text))}:\n.PP\n.RS 4\n.EX\n$ {literal(line)}\n.EE\n.RE"
        for text, line in rows
    ).removeprefix(".PP\n")


# --- jaula --------------------------------------------------------------------------------------


def page_name(words: str) -> str:
    """Return the name of a command's page: ``jaula-container-ls``."""
    return "-".join(("jaula", *words.split()))


def names(words: str) -> list[str]:
    """Return every path of a command in the table, the one of its page first."""
    module = command_table.commands()[words]
    paths = [path for path in command_table.commands() if command_table.commands()[path] == module]
    return paths + [alias for alias, path in command_table.aliases().items() if path in paths]


def command_page(words: str, command: Command) -> str:
    """Return the page of one command."""
    paths = names(words)
    parts = [
        header(page_name(words), 1),
        section("NAME", _name([page_name(path) for path in paths], command.summary)),
        section("SYNOPSIS", _synopsis(paths, command.usage)),
        section("DESCRIPTION", paragraphs(command.description)),
        *([section("COMMANDS", _commands(_group_paths(words)))] if _group_paths(words) else []),
        *_options(command.flags),
        section("EXAMPLES", examples(command.examples)),
    ]
    if command.exit_status:
        rows = (tagged(f"\\fB{literal(code)}\\fP", text) for code, text in command.exit_status)
        parts.append(section("EXIT STATUS", "\n".join(rows)))
    parts.append(section("SEE ALSO", _see_also(command.see_also)))
    return "\n".join(parts) + "\n"


def _group_paths(group: str) -> list[str]:
    return sorted(path for path in command_table.commands() if path.startswith(group + " "))


def group_page(group: str) -> str:
    """Return the page of a group of commands."""
    paths = _group_paths(group)
    summary = command_table.groups()[group]
    return (
        "\n".join(
            [
                header(page_name(group), 1),
                section("NAME", _name([page_name(group)], summary)),
                section("SYNOPSIS", f"\\fBjaula {literal(group)}\\fP \\fICOMMAND\\fP"),
                section("COMMANDS", _commands(paths)),
                section("SEE ALSO", "\\fBjaula\\fP(1)"),
            ]
        )
        + "\n"
    )


def root_page() -> str:
    """Return the page of ``jaula`` itself."""
    paths = sorted(path for path in command_table.commands() if " " not in path)
    groups = (
        tagged(f"\\fB{literal(group)}\\fP", f"{text}. See {page_name(group)}(1).")
        for group, text in command_table.groups().items()
    )
    return (
        "\n".join(
            [
                header("jaula", 1),
                section("NAME", _name(["jaula"], command_table.ROOT.summary)),
                section("SYNOPSIS", "\\fBjaula\\fP [\\fIOPTIONS\\fP] \\fICOMMAND\\fP"),
                section(
                    "DESCRIPTION",
                    paragraphs(
                        "jaula manages containers, images, volumes and networks with the commands "
                        "of docker(1). Each command sends requests of the Docker Engine API to an "
                        "engine. The first command that needs an engine starts one; jaula daemon "
                        "runs it in the foreground.\n\n"
                        "By default each container has a user namespace of its own. The command "
                        "jaula verify compares the requested isolation of a container with the "
                        "state of the kernel.\n\n"
                        "Every command accepts --help."
                    ),
                ),
                *_options(command_table.ROOT.flags),
                section("COMMANDS", _commands(paths)),
                section("MANAGEMENT COMMANDS", "\n".join(groups)),
                section("ENVIRONMENT", _definitions(ENVIRONMENT)),
                section("FILES", _definitions(FILES)),
                section(
                    "EXIT STATUS",
                    _definitions(
                        (
                            ("0", "The command succeeded."),
                            ("1", "The engine refused the request, or the command failed."),
                            ("125", "The command line is wrong."),
                            ("130", "The command was interrupted."),
                        )
                    ),
                ),
                section(
                    "SEE ALSO",
                    "\\fBjaula\\-runtime\\fP(8), \\fBdocker\\-credential\\-jaula\\fP(1), "
                    "\\fBnamespaces\\fP(7), \\fBcgroups\\fP(7)",
                ),
            ]
        )
        + "\n"
    )


def _name(pages_of: list[str], summary: str) -> str:
    is_acronym = summary[1:2].isupper()
    first = summary if is_acronym else f"{summary[0].lower()}{summary[1:]}"
    return lines(", ".join(literal(name) for name in pages_of) + f" \\- {prose(first)}")


def _synopsis(paths: list[str], usage: str) -> str:
    arguments = re.sub(r"[A-Z][A-Z0-9_-]*[A-Z0-9]", r"\\fI\g<0>\\fP", literal(usage))
    return "\n.br\n".join(f"\\fBjaula {literal(path)}\\fP {arguments}".rstrip() for path in paths)


def _options(flags: tuple[Flag, ...]) -> list[str]:
    groups: dict[str, list[Flag]] = {}
    for flag in sorted(flags, key=lambda flag: flag.name):
        groups.setdefault(flag.group, []).append(flag)
    parts = []
    for group in sorted(groups):
        title = f".SS {group} options\n" if group else ""
        parts.append(title + "\n".join(tagged(option(f), _help(f)) for f in groups[group]))
    return [section("OPTIONS", "\n".join(parts))] if parts else []


def option(flag: Flag) -> str:
    """Return the head of one flag, as it is typed."""
    short = f"\\fB\\-{flag.short}\\fP, " if flag.short else ""
    kind = flag.metavar or METAVARS.get(flag.kind, flag.kind)
    value = "" if flag.kind == "bool" else f" \\fI{literal(kind)}\\fP"
    if flag.implied:
        value = f"[=\\fI{literal(kind)}\\fP]"
    return f"{short}\\fB\\-\\-{literal(flag.name)}\\fP{value}"


def _help(flag: Flag) -> str:
    return f"{flag.help} (default {flag.default})" if flag.default else flag.help


def _commands(paths: list[str]) -> str:
    rows = []
    for path in paths:
        page = names(path)[0]
        rows.append(
            f".TP\n\\fB{literal(path.rpartition(' ')[2])}\\fP\n"
            f"{lines(prose(command_table.load(path).summary) + '. See ' + reference(page) + '.')}"
        )
    return "\n".join(rows)


def _definitions(rows: tuple[tuple[str, str], ...]) -> str:
    return "\n".join(tagged(f"\\fB{literal(head)}\\fP", text) for head, text in rows)


def _see_also(paths: tuple[str, ...] | list[str]) -> str:
    return lines(", ".join(["\\fBjaula\\fP(1)", *(reference(names(p)[0]) for p in paths)]))


# --- jaula-runtime and the credential helper ----------------------------------------------------


def runtime_page() -> str:
    """Return the page of ``jaula-runtime`` with every command and flag."""
    global_flags = _runtime_flags(GLOBAL_FLAGS, RUNTIME_GLOBAL_HELP)
    commands = []
    for name, summary in RUNTIME_COMMANDS.items():
        module = importlib.import_module("jaula.oci.commands." + f"oci_{name}")
        arguments = re.sub(r"[A-Z][A-Z-]*[A-Z]", r"\\fI\g<0>\\fP", literal(module.USAGE))
        sentence = f"{summary[0].upper()}{summary[1:]}."
        commands.append(f".SS {name}\n\\fBjaula\\-runtime {name}\\fP {arguments}".rstrip())
        commands.append(f".PP\n{lines(prose(sentence))}")
        commands += _runtime_flags(module.FLAGS, RUNTIME_HELP)
    return (
        "\n".join(
            [
                header("jaula-runtime", 8),
                section("NAME", _name(["jaula-runtime"], "OCI runtime with runc's command line")),
                section(
                    "SYNOPSIS",
                    "\\fBjaula\\-runtime\\fP [\\fIGLOBAL\\-FLAGS\\fP] \\fICOMMAND\\fP "
                    "[\\fIFLAGS\\fP] [\\fIARGUMENTS\\fP]",
                ),
                section(
                    "DESCRIPTION",
                    paragraphs(
                        "jaula-runtime creates containers from bundles of the OCI runtime "
                        "specification, version 1.2. podman, containerd, docker, buildah and "
                        "CRI-O call it in place of runc(8) or crun(1).\n\n"
                        "Flags are written as --name value, --name=value or -name value. The "
                        "first word that is not a flag ends the flags."
                    ),
                ),
                section("GLOBAL FLAGS", "\n".join(global_flags)),
                section("COMMANDS", "\n".join(commands)),
                section(
                    "EXIT STATUS",
                    lines(
                        prose(
                            "run and exec exit with the status of the container's process, "
                            "unless --detach is set. exec exits with 255 if the process was not "
                            "started. Every other command exits with 0, or 1 after an error."
                        )
                    ),
                ),
                section("EXAMPLES", examples(RUNTIME_EXAMPLES)),
                section("SEE ALSO", "\\fBjaula\\fP(1), \\fBrunc\\fP(8)"),
            ]
        )
        + "\n"
    )


def _runtime_flags(flags: dict[str, str], texts: dict[str, str]) -> list[str]:
    short = {name: key for key, name in flags.items() if name not in (VALUE, SWITCH, LIST)}
    rows = []
    for name, kind in flags.items():
        if kind not in (VALUE, SWITCH, LIST):
            continue
        head = f"\\fB\\-{short[name]}\\fP, " if name in short else ""
        value = "" if kind == SWITCH else " \\fIvalue\\fP"
        rows.append(tagged(f"{head}\\fB\\-\\-{literal(name)}\\fP{value}", texts[name]))
    return rows


def credential_page() -> str:
    """Return the page of ``docker-credential-jaula``."""
    name = "docker-credential-jaula"
    verbs = "|".join(f"\\fB{verb}\\fP" for verb in CREDENTIAL_VERBS)
    return (
        "\n".join(
            [
                header(name, 1),
                section("NAME", _name([name], "credential helper with the kernel's keyring")),
                section("SYNOPSIS", f"\\fB{literal(name)}\\fP {verbs}"),
                section(
                    "DESCRIPTION",
                    paragraphs(
                        "docker-credential-jaula gives docker(1), podman(1) and other clients the "
                        "credentials that jaula login stored. It implements the protocol of "
                        "docker-credential-helpers: it reads the request from standard input and "
                        "writes the answer as JSON to standard output. After an error it writes "
                        "the message there and exits with status 1."
                    ),
                ),
                section("SEE ALSO", _see_also(["login", "logout"])),
            ]
        )
        + "\n"
    )


# --- the set ------------------------------------------------------------------------------------


def pages() -> dict[str, str]:
    """Return every page by its path below ``share/man``."""
    result = {
        "man1/jaula.1": root_page(),
        "man1/docker-credential-jaula.1": credential_page(),
        "man8/jaula-runtime.8": runtime_page(),
    }
    for group in command_table.groups():
        result[f"man1/{page_name(group)}.1"] = group_page(group)
    for path in command_table.commands():
        main, *aliases = names(path)
        if main != path:
            continue
        result[f"man1/{page_name(main)}.1"] = command_page(main, command_table.load(main))
        for alias in aliases:
            result[f"man1/{page_name(alias)}.1"] = f".so man1/{page_name(main)}.1\n"
    return result


def write(directory: Path) -> list[str]:
    """Write every page below a directory, and return their paths."""
    generated = pages()
    for path, text in generated.items():
        target = directory / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="ascii")
    return sorted(generated)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: generate.py DIRECTORY")
    write(Path(sys.argv[1]))

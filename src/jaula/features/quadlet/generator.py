"""``jaula-system-generator`` and ``jaula-user-generator``: systemd runs them at boot and reload.

Source: systemd.generator(7). A generator has no network and no engine, and the boot waits for it.
So this module and what it imports load ``os`` and ``sys`` only.

A file with an error is reported, and the services of the others are made. The exit status is 1
then.
"""

from __future__ import annotations

import os
import sys

from jaula.features.quadlet import directories, unit_keys
from jaula.features.quadlet.convert import Converter, kind_of
from jaula.features.quadlet.unit_file import InvalidUnit, UnitFile, load

_USAGE = """\
usage: jaula-system-generator [-dryrun] [-user] [-v] [-no-kmsg-log] [-version] OUTPUT-DIRECTORY ...
Make the services of quadlet's files. systemd runs this program.
  -dryrun       print the services and write nothing
  -user         make the services of a user
  -v            print what is read and written
  -no-kmsg-log  write messages to standard error only
  -version      print the version"""
_FLAGS = ("dryrun", "user", "v", "no-kmsg-log", "version", "help", "h")


class Messages:
    """Messages of a generator. At boot only the kernel's log is there to take them."""

    def __init__(self, *, kernel: bool, verbose: bool) -> None:
        self._kernel = kernel
        self._verbose = verbose

    def error(self, text: str) -> None:
        """Write one line, as podman's generator writes them."""
        line = f"jaula-generator[{os.getpid()}]: {' '.join(text.split())}\n"
        if self._kernel:
            try:
                with open("/dev/kmsg", "w", encoding="utf-8", errors="surrogateescape") as file:
                    file.write(line)
                return
            except OSError:
                self._kernel = False
        sys.stderr.write(line)
        sys.stderr.flush()

    def debug(self, text: str) -> None:
        """Write a line if the generator is verbose."""
        if self._verbose:
            self.error(text)


def main(arguments: list[str] | None = None) -> int:
    """Run the generator and return its exit status."""
    program = sys.argv[0]
    flags: set[str] = set()
    paths: list[str] = []
    for word in sys.argv[1:] if arguments is None else arguments:
        name = word.lstrip("-")
        if not word.startswith("-") or paths:
            paths.append(word)
        elif name.partition("=")[0] in _FLAGS:
            flags.add(name.removesuffix("=true"))
        else:
            sys.stderr.write(f"flag provided but not defined: -{name}\n{_USAGE}\n")
            return 2
    if flags & {"help", "h"}:
        sys.stdout.write(_USAGE + "\n")
        return 0
    if "version" in flags:
        from jaula import __version__

        sys.stdout.write(__version__ + "\n")
        return 0
    dry = "dryrun" in flags
    user = "user" in flags or "user" in os.path.basename(program)
    messages = Messages(kernel=not dry and "no-kmsg-log" not in flags, verbose=dry or "v" in flags)
    if not dry and not paths:
        messages.error("missing output directory argument")
        return 1
    return _generate(messages, "" if dry else paths[0], program, user=user)


def _generate(messages: Messages, output: str, program: str, *, user: bool) -> int:
    """Make the services of all files below ``output``; print them if it is ''."""
    failed = False
    podman = directories.podman_generates(user=user)
    searched = directories.search(os.environ, user=user, podman=podman)
    units = []
    for path in _files(searched):
        messages.debug(f"Loading source unit file {path}")
        try:
            units.append(_load(path, searched, messages))
        except (InvalidUnit, OSError) as error:
            messages.error(f'error loading "{path}": {_reason(error)}')
            failed = True
    if not units:
        messages.debug(f"No files parsed from {' '.join(searched)}")
        return 1 if failed else 0
    units.sort(key=lambda unit: unit_keys.ORDER.index(kind_of(unit.name)))
    converter = Converter(units, _jaula(program), user=user, warn=messages.error)
    for unit in units:
        try:
            service = converter.convert(unit)
            if output:
                _write(output, service, program, messages)
            else:
                sys.stdout.write(f"---{service.name}---\n{service.render()}\n")
                sys.stdout.flush()
        except (InvalidUnit, OSError) as error:
            messages.error(f'converting "{unit.name}": {_reason(error)}')
            failed = True
    return 1 if failed else 0


def _reason(error: Exception) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)


def _files(searched: list[str]) -> list[str]:
    """Return the paths of the unit files. Of those with the same name, the first one counts."""
    found: dict[str, str] = {}
    for directory in searched:
        try:
            names = sorted(os.listdir(directory))
        except OSError:
            continue
        for name in names:
            if kind_of(name) and not os.path.isdir(f"{directory}/{name}"):
                found.setdefault(name, f"{directory}/{name}")
    return list(found.values())


def _load(path: str, searched: list[str], messages: Messages) -> UnitFile:
    unit = load(path)
    for drop_in in directories.drop_ins(unit.name, searched):
        messages.debug(f"Loading source drop-in file {drop_in}")
        unit.merge(load(drop_in))
    return unit


def _jaula(program: str) -> str:
    """Return the path of ``jaula``: beside this program, or that of the packages."""
    if path := os.environ.get("JAULA"):
        return path
    beside = os.path.join(os.path.dirname(os.path.realpath(program)), "jaula")
    return beside if os.access(beside, os.X_OK) and os.path.isfile(beside) else "/usr/bin/jaula"


def _write(output: str, service: UnitFile, program: str, messages: Messages) -> None:
    os.makedirs(output, exist_ok=True)
    if "/" in service.name:
        raise InvalidUnit(f"the name of a service cannot be {service.name}")
    path = f"{output}/{service.name}"
    messages.debug(f'writing "{path}"')
    with open(path, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(service.render(f"Automatically generated by {program}"))
    for link in links(service):
        target = "../" * link.count("/") + service.name
        messages.debug(f"Creating symlink {output}/{link} -> {target}")
        os.makedirs(os.path.dirname(f"{output}/{link}"), exist_ok=True)
        if os.path.lexists(f"{output}/{link}"):
            os.unlink(f"{output}/{link}")
        os.symlink(target, f"{output}/{link}")


def links(service: UnitFile) -> list[str]:
    """Return the links that enable a service, by its section Install; each a relative path.

    :raises InvalidUnit: when a quote is not closed.
    """
    result = []
    for alias in service.names("Install", "Alias"):
        if "/" not in alias:
            result.append(alias)
    name = service.name
    base, at, instance = name.removesuffix(".service").partition("@")
    if at and not instance:  # a template is enabled by its default instance only
        default = service.text("Install", "DefaultInstance")
        name = f"{base}@{default}.service" if default else ""
    if name:
        for key, directory in (("WantedBy", "wants"), ("RequiredBy", "requires")):
            for unit in service.names("Install", key):
                if "/" not in unit:
                    result.append(f"{unit}.{directory}/{name}")
    return result


if __name__ == "__main__":
    sys.exit(main())

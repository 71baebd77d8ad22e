"""The programs of an image that its container starts, and their libraries.

The first program is that of ENTRYPOINT and CMD. From it follow the interpreters of scripts
(``#!``), the commands of shell scripts as far as they are plain words, and the absolute paths of
programs that a program's file names if it can execute others. Libraries are found as by the dynamic
loaders of glibc (ld.so(8)) and musl (``ldso/dynlink.c``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from jaula.features.harden.elf import Elf, InvalidElf, Object
from jaula.features.harden.image_scan_tree import Directory, ImageTree
from jaula.spec.image_documents import ImageConfig

PROGRAMS_LIMIT = 64
LIBRARIES_LIMIT = 256  # of one program, with those that it opens
SCRIPT_LIMIT = 1 << 20  # bytes
_INTERPRETERS_LIMIT = 4  # scripts as interpreters of scripts, as in the kernel (BINPRM)
_DEPTH_LIMIT = 3  # programs that programs start
_CACHE_LIMIT = 64 << 20  # bytes of a file whose texts are read
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SHELLS = frozenset({"sh", "bash", "dash", "ash", "ksh", "mksh", "zsh"})
_EXECUTING = frozenset(
    {"execve", "execv", "execvp", "execvpe", "execl", "execlp", "execle", "fexecve", "posix_spawn",
     "posix_spawnp", "system", "popen", "wordexp"}
)  # fmt: skip
_NAMES_SERVICES = frozenset(
    {"getpwnam", "getpwuid", "getgrnam", "getgrgid", "getaddrinfo", "gethostbyname", "initgroups",
     "getpwnam_r", "getpwuid_r", "getgrnam_r", "getgrgid_r", "getservbyname", "getgrouplist"}
)  # fmt: skip
_TEXT = re.compile(rb"(?<![\x21-\x7e])[/A-Za-z_][\x21-\x7e]{2,255}(?=\0)")
_LIBRARY = re.compile(r"[A-Za-z0-9_+./-]+\.so(\.[0-9]+)*")
_COMMAND = re.compile(
    r"(?:^|[;&|({`!]|\$\()\s*(?:(?:then|do|else|elif|if|while|until|exec|env|time|!|\w+=[^\s$`]*)\s+)*"
    r"([A-Za-z0-9_./+-]+)"
)
_ABSOLUTE = re.compile(r"(?<![\w.}$-])(/[A-Za-z0-9_./+-]+)")


class Program(NamedTuple):
    """A program of the image: the path of its file, and what starts it."""

    path: str
    reason: str


class Loaded(NamedTuple):
    """A program with its libraries, in the order of the loader.

    ``opened`` are indexes of libraries that the program opens at run time.
    """

    objects: tuple[Object, ...]
    opened: frozenset[int]
    missing: tuple[str, ...]


class Programs:
    """Finds the programs. ``notes`` has what could not be followed."""

    def __init__(self, tree: ImageTree, config: ImageConfig) -> None:
        self._tree = tree
        self._path = next(
            (each.removeprefix("PATH=") for each in config.env if each.startswith("PATH=")),
            DEFAULT_PATH,
        ).split(":")
        self._directory = config.working_dir or "/"
        self._elves: dict[str, Elf | None] = {}
        self.programs: dict[str, Program] = {}
        self.notes: dict[str, None] = {}
        self.scripts: set[str] = set()

    def start(self, arguments: Sequence[str]) -> None:
        """Find the programs that a command line starts."""
        self._add_command(list(arguments), "the entry point", 0)

    def elf(self, path: str) -> Elf | None:
        """Return the ELF file at a path, None if it is not one that can be read."""
        found = self._tree.file(path)
        if found is None:
            return None
        real, _ = found
        if real not in self._elves:
            data = self._tree.read(real)
            try:
                self._elves[real] = Elf(data) if data is not None else None
                if data is None:
                    self.notes[f"{real} is too large, or not a program: it was not read"] = None
            except InvalidElf as error:
                self._elves[real] = None
                self.notes[f"{real}: {error}"] = None
        return self._elves[real]

    def mode(self, path: str) -> int:
        """Return the mode of a file, 0 if it is absent."""
        found = self._tree.file(path)
        return found[1].mode if found else 0

    def find(self, name: str) -> str | None:
        """Return the path of an executable file, as execvp(3) finds it, without symbolic links."""
        if "/" in name:
            candidates = [name if name.startswith("/") else f"{self._directory}/{name}"]
        else:
            candidates = [f"{directory or '.'}/{name}" for directory in self._path]
        for candidate in candidates:
            found = self._tree.file(candidate)
            if found is not None and found[1].mode & 0o111:
                return found[0]
        return None

    def directories(self, prefix: str) -> Iterator[tuple[str, str]]:
        """Yield the directories below a directory that the programs name, with the program."""
        for path in self.programs:
            elf = self.elf(path)
            if elf is None:
                continue
            for text in texts(elf):
                if text.startswith(f"{prefix}/"):
                    for each in (text, text.rpartition("/")[0]):
                        found = self._tree.resolve(each)
                        if found is not None and isinstance(found[1], Directory):
                            yield found[0], path

    # -- programs -------------------------------------------------------------------------------

    def _add_command(self, arguments: list[str], reason: str, depth: int) -> None:
        if not arguments:
            return
        path = self.find(arguments[0])
        if path is None:
            self.notes[f"{reason} starts {arguments[0]}, which the image does not have"] = None
            return
        name = arguments[0].rpartition("/")[2]
        self._add(path, reason, depth)
        if name in SHELLS and len(arguments) > 2 and arguments[1].lstrip("-+") in ("c", "ec", "xc"):
            self._add_text(arguments[2], f"{reason} (-c)", depth)
        for argument in arguments[1:]:  # exec "$@", tini --, gosu USER, env NAME=VALUE
            if argument[:1] not in ("-", "") and (found := self.find(argument)):
                self._add(found, f"argument of {name}", depth + 1)

    def _add(self, path: str, reason: str, depth: int) -> None:
        if path in self.programs or path in self.scripts or depth > _DEPTH_LIMIT:
            return
        if len(self.programs) + len(self.scripts) >= PROGRAMS_LIMIT:
            self.notes[f"more than {PROGRAMS_LIMIT} programs: the others were not read"] = None
            return
        head = self._tree.read(path) or b""
        if head[:2] == b"#!":
            self._add_script(path, head, reason, depth)
        elif head[:4] == b"\x7fELF":
            self.programs[path] = Program(path, reason)
            elf = self.elf(path)
            if elf is not None and elf.imports & _EXECUTING and not _is_shell(path):
                self._add_named(path, elf, depth)
        elif head and b"\0" not in head[:256]:  # execvp(3) gives it to the shell
            self._add_shell_text(path, head, reason, depth)
        else:
            self.notes[f"{path} is neither an ELF file nor a script"] = None

    def _add_named(self, path: str, elf: Elf, depth: int) -> None:
        if elf.imports & {"system", "popen", "wordexp"} and (shell := self.find("/bin/sh")):
            self._add(shell, f"shell of {path}", depth + 1)
        for text in texts(elf):
            if text.startswith("/") and not _LIBRARY.fullmatch(text):
                found = self._tree.file(text)
                if found is not None and found[1].mode & 0o111:
                    self._add(found[0], f"named in {path}", depth + 1)

    # -- scripts --------------------------------------------------------------------------------

    def _add_script(self, path: str, content: bytes, reason: str, depth: int) -> None:
        self.scripts.add(path)
        line = content[2:256].split(b"\n", 1)[0].decode(errors="replace").strip()
        words = line.split(None, 1)
        if not words:
            return
        interpreter = words[0]
        if interpreter.rpartition("/")[2] == "env" and len(words) > 1:
            self._add_command([interpreter], f"#! of {path}", depth)
            rest = words[1].removeprefix("-S").split()
            interpreter = next((word for word in rest if "=" not in word and word[0] != "-"), "")
        self._add_command([interpreter], f"#! of {path}", depth)
        if interpreter.rpartition("/")[2] in SHELLS or _is_shell(interpreter):
            self._add_text(content[:SCRIPT_LIMIT].decode(errors="replace"), path, depth)

    def _add_shell_text(self, path: str, content: bytes, reason: str, depth: int) -> None:
        self.scripts.add(path)
        self._add_command(["/bin/sh"], reason, depth)
        self._add_text(content[:SCRIPT_LIMIT].decode(errors="replace"), path, depth)

    def _add_text(self, text: str, reason: str, depth: int) -> None:
        """Find the programs that the text of a shell script names."""
        for name in commands(text):
            found = self.find(name)
            if found is not None:
                self._add(found, f"command of {reason}", depth + 1)

    # -- libraries ------------------------------------------------------------------------------

    def load(self, path: str) -> Loaded | None:
        """Return a program with its libraries; None if it cannot be read."""
        elf = self.elf(path)
        if elf is None:
            return None
        objects: dict[str, Object] = {path: Object(path, elf)}
        missing: dict[str, None] = {}
        self._load_needed(objects, missing, elf.machine, elf.interpreter)
        if elf.interpreter:
            found = self._tree.file(elf.interpreter)
            loader = self.elf(found[0]) if found else None
            if found is None or loader is None:
                missing[elf.interpreter] = None
            else:
                objects.setdefault(found[0], Object(found[0], loader))
        count = len(objects)
        for opened in self._opened(tuple(objects.values()), elf.interpreter):
            library = self.elf(opened)
            if library is not None and library.machine == elf.machine:
                objects.setdefault(opened, Object(opened, library))
        opened_count = len(objects)
        self._load_needed(objects, missing, elf.machine, elf.interpreter)
        return Loaded(
            tuple(objects.values()), frozenset(range(count, opened_count)), tuple(missing)
        )

    def _load_needed(
        self, objects: dict[str, Object], missing: dict[str, None], machine: str, loader: str
    ) -> None:
        pending = list(objects.values())
        while pending:
            item = pending.pop(0)
            for name in item.elf.needed:
                found = self._library(name, item, machine, loader)
                if found is None:
                    missing[name] = None
                elif found not in objects:
                    library = self.elf(found)
                    if library is None or len(objects) >= LIBRARIES_LIMIT:
                        missing[name] = None
                        continue
                    objects[found] = Object(found, library)
                    pending.append(objects[found])

    def _library(self, name: str, item: Object, machine: str, loader: str) -> str | None:
        if "/" in name:
            found = self._tree.file(name)
            return found[0] if found else None
        origin = item.path.rpartition("/")[0]
        paths = [
            each.replace("$ORIGIN", origin).replace("${ORIGIN}", origin)
            for each in item.elf.run_path
        ]
        for directory in (*paths, *self._library_path(machine, loader)):
            found = self._tree.file(f"{directory}/{name}")
            if found is not None and self._is_machine(found[0], machine):
                return found[0]
        return None

    def _is_machine(self, path: str, machine: str) -> bool:
        elf = self.elf(path)
        return elf is not None and elf.machine == machine

    def _library_path(self, machine: str, loader: str) -> tuple[str, ...]:
        triple = f"{machine}-linux-gnu"
        if "musl" in loader:
            name = f"/etc/ld-musl-{machine}.path"
            content = self._tree.read(name, 1 << 16)
            if content is not None:
                return tuple(re.split(r"[\n:]", content.decode(errors="replace").strip()))
            return ("/lib", "/usr/local/lib", "/usr/lib")
        return (
            *self._configured("/etc/ld.so.conf", 0),
            f"/lib/{triple}", f"/usr/lib/{triple}", "/lib64", "/usr/lib64", "/lib", "/usr/lib",
        )  # fmt: skip

    def _configured(self, path: str, depth: int) -> Iterator[str]:
        content = self._tree.read(path, 1 << 16)
        if content is None or depth > 4:
            return
        for line in content.decode(errors="replace").splitlines():
            words = line.partition("#")[0].split()
            if words[:1] == ["include"]:
                for pattern in words[1:]:
                    directory, _, name = pattern.rpartition("/")
                    for each in self._tree.names(directory or "/etc"):
                        if name in ("*.conf", each) and each.endswith(".conf"):
                            yield from self._configured(f"{directory or '/etc'}/{each}", depth + 1)
            elif words:
                yield words[0]

    def _opened(self, objects: Sequence[Object], loader: str) -> Iterator[str]:
        """Yield the libraries that a program can open: named in its files, or name services."""
        imports = {name for item in objects for name in item.elf.imports}
        machine = objects[0].elf.machine
        if imports & _NAMES_SERVICES and "musl" not in loader:
            yield from self._name_services(objects[0], machine, loader)
        for item in objects:
            if "dlopen" not in item.elf.imports:
                continue
            for text in texts(item.elf):
                if _LIBRARY.fullmatch(text):
                    found = self._library(text, item, machine, loader)
                    if found is not None:
                        yield found
                elif item is objects[0] and text.startswith("/") and text.count("/") > 2:
                    for name in self._tree.names(text):
                        if name.endswith(".so") and (library := self._tree.file(f"{text}/{name}")):
                            yield library[0]

    def _name_services(self, item: Object, machine: str, loader: str) -> Iterator[str]:
        content = self._tree.read("/etc/nsswitch.conf", 1 << 16) or b""
        for line in content.decode(errors="replace").splitlines():
            for service in re.findall(r"[a-z0-9_]+", line.partition("#")[0].partition(":")[2]):
                found = self._library(f"libnss_{service}.so.2", item, machine, loader)
                if found is not None:
                    yield found


def commands(text: str) -> Iterator[str]:
    """Yield the words of a shell script that can be commands, and its absolute paths. Pure."""
    seen = set()
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith("#"):
            continue
        for match in _COMMAND.finditer(stripped):
            seen.add(match[1])
        seen.update(_ABSOLUTE.findall(stripped))
    yield from sorted(seen)


def texts(elf: Elf) -> Iterator[str]:
    """Yield the texts in the data of an ELF file."""
    if len(elf.data) > _CACHE_LIMIT:
        return
    for segment in elf.segments:
        if not segment.executable:
            for match in _TEXT.finditer(elf.data, segment.offset, segment.offset + segment.size):
                yield match[0].decode("ascii")


def _is_shell(path: str) -> bool:
    return path.rpartition("/")[2] in {*SHELLS, "busybox"}

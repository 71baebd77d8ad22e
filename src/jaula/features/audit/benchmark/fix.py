"""Repairs of ``jaula audit --fix``: owners and modes of files, and a file of audit rules.

A plan is a value that is shown before it is carried out. A file is opened without following a link.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from jaula.errors import InvalidRequest
from jaula.features.audit.benchmark.control import AuditRuleFix, FileFix, Fix
from jaula.features.audit.benchmark.engine_files import command
from jaula.features.audit.benchmark.host import audit_rules_text
from jaula.kernel.syncfs import write_durable

RULES_DIRECTORY = "/etc/audit/rules.d"
RULES_FILE = "70-jaula.rules"
TMPFILES = "/etc/tmpfiles.d/jaula.conf"
TMPFILES_COMMAND = "systemd-tmpfiles"
LOADER = "augenrules"
LOADER_TIMEOUT = 30  # seconds


class Plan(msgspec.Struct, frozen=True):
    """Planned repairs: changes of files, then the text of the rules file, '' if it stays.

    ``tmpfiles`` is the text of a file of tmpfiles.d(5), '' if none is written.
    """

    files: tuple[FileFix, ...] = ()
    rules_path: str = ""
    rules: str = ""
    load: bool = False  # whether augenrules is called
    tmpfiles_path: str = ""
    tmpfiles: str = ""

    def lines(self) -> list[str]:
        """Return the plan for a person, as shell commands and the content of the file."""
        lines = [command(each) for each in self.files]
        for path, text in self.texts():
            lines += [f"write {path}:", *(f"    {line}" for line in text.splitlines())]
        if self.load:
            lines.append(f"{LOADER} --load")
        return lines

    def texts(self) -> list[tuple[str, str]]:
        """Return the files that are written, in their order: (path, content)."""
        files = ((self.tmpfiles_path, self.tmpfiles), (self.rules_path, self.rules))
        return [(path, text) for path, text in files if text]


def plan(
    fixes: Iterable[Fix],
    recorded: Iterable[AuditRuleFix],
    directory: str,
    tmpfiles: str = "",
) -> Plan:
    """Return the plan for fixes; ``tmpfiles`` is written with the rules, on a host with systemd.

    ``recorded`` are all paths that the rules file shall have, since it is written as a whole; it
    is written only if one of ``fixes`` needs it.

    :raises InvalidRequest: when a path cannot be written in a rule.
    """
    fixes = list(fixes)
    files = _merge(fix for fix in fixes if isinstance(fix, FileFix))
    if not any(isinstance(fix, AuditRuleFix) for fix in fixes):
        return Plan(files)
    rules = {fix.path: fix for fix in recorded}
    for path in rules:
        if not path.isascii() or not path.isprintable() or " " in path:
            raise InvalidRequest(
                f"audit rules cannot have the path {path!r}",
                hint="use a path of printable ASCII characters without blanks",
            )
    text = audit_rules_text(rules)
    if shutil.which(TMPFILES_COMMAND) is None:
        tmpfiles = ""
    return Plan(
        files, os.path.join(directory, RULES_FILE), text, shutil.which(LOADER) is not None,
        TMPFILES if tmpfiles else "", tmpfiles,
    )  # fmt: skip


def _merge(fixes: Iterable[FileFix]) -> tuple[FileFix, ...]:
    """Return one fix for each path."""
    merged: dict[str, FileFix] = {}
    for fix in fixes:
        first = merged.get(fix.path, FileFix(fix.path))
        merged[fix.path] = FileFix(
            fix.path,
            first.uid if fix.uid is None else fix.uid,
            first.gid if fix.gid is None else fix.gid,
            first.mode if fix.mode is None else fix.mode,
        )
    return tuple(merged.values())


def apply(plan: Plan) -> list[str]:
    """Carry out a plan and return an error for each part that failed."""
    errors = []
    for fix in plan.files:
        try:
            change_file(fix)
        except OSError as error:
            errors.append(f"{fix.path}: {error.strerror}")
    for path, text in plan.texts():
        try:
            write_text(Path(path), text, 0o640 if path == plan.rules_path else 0o644)
        except OSError as error:
            return [*errors, f"{path}: {error.strerror}"]
    if plan.load and (failure := _load()):
        errors.append(failure)
    return errors


def change_file(fix: FileFix) -> None:
    """Change owner and mode of a file, which may not be a symbolic link.

    :raises OSError: when it is absent, a link, or may not be changed.
    """
    fd = os.open(fix.path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if stat.S_ISLNK(os.fstat(fd).st_mode):
            raise OSError(40, "it is a symbolic link")
        link = f"/proc/self/fd/{fd}"
        if fix.uid is not None or fix.gid is not None:
            os.chown(link, -1 if fix.uid is None else fix.uid, -1 if fix.gid is None else fix.gid)
        if fix.mode is not None:
            os.chmod(link, fix.mode)
    finally:
        os.close(fd)


def write_text(path: Path, text: str, mode: int) -> None:
    """Replace a file in one step.

    :raises OSError: when the directory is not writable.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
    write_durable(path, text.encode("ascii"), mode)


def _load() -> str:
    """Load the rules of all files; return an error or ''."""
    words: Sequence[str] = (LOADER, "--load")
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, timeout=LOADER_TIMEOUT, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{LOADER}: {error}"
    return f"{LOADER}: {done.stderr.strip()[:300]}" if done.returncode else ""

"""Section 3: owners and modes of the engine's files.

Evidence: lstat(2) of each file. A file that does not exist is not applicable.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

import msgspec

from jaula.features.audit.benchmark import file_status
from jaula.features.audit.benchmark.control import (
    Control,
    FileFix,
    Judge,
    Judgement,
    Kind,
    Scope,
    fails,
    not_applicable,
    passes,
)
from jaula.features.audit.benchmark.engine import EngineSettings
from jaula.features.audit.benchmark.file_status import FileStatus
from jaula.features.audit.benchmark.host import Layout

CERTIFICATE_SUFFIXES = (".crt", ".cert", ".pem")
UNIT_DIRECTORIES = ("/etc/systemd/system", "/run/systemd/system", "/usr/local/lib/systemd/system",
                    "/usr/lib/systemd/system", "/lib/systemd/system")  # fmt: skip
MAX_CERTIFICATES = 1000


class EngineFiles(msgspec.Struct, frozen=True):
    """The engine's files that exist, by the name of :data:`FILES`; ``uid`` is the engine's."""

    files: dict[str, tuple[FileStatus, ...]]
    uid: int = 0
    gid: int = 0


class File(msgspec.Struct, frozen=True):
    """Files of one kind: numbers of their controls, the allowed mode, whether any group may own.

    ``mode`` has the bits that may be set.
    """

    name: str
    owner_id: str
    mode_id: str
    mode: int
    what: str
    any_group: bool = False


FILES: tuple[File, ...] = (
    File("service_unit", "3.1", "3.2", 0o644, "the service unit"),
    File("socket_unit", "3.3", "3.4", 0o644, "the socket unit"),
    File("config_directory", "3.5", "3.6", 0o755, "the directory of settings"),
    File("registry_certificates", "3.7", "3.8", 0o444, "certificates of registries"),
    File("tls_authority", "3.9", "3.10", 0o444, "the certificate of the TLS authority"),
    File("tls_certificate", "3.11", "3.12", 0o444, "the engine's TLS certificate"),
    File("tls_key", "3.13", "3.14", 0o400, "the engine's TLS key"),
    File("socket", "3.15", "3.16", 0o660, "the API socket", any_group=True),
    File("config_file", "3.17", "3.18", 0o644, "daemon.json"),
    File("environment_file", "3.19", "3.20", 0o644, "the environment of the service (Debian)"),
    File("sysconfig_file", "3.22", "3.21", 0o644, "the environment of the service (Red Hat)"),
    File("cri_socket", "3.23", "3.24", 0o660, "the socket of CRI", any_group=True),
)


def unit_path(name: str) -> str:
    """Return the path of a systemd unit by the order in which systemd searches, '' if absent."""
    paths = (os.path.join(directory, name) for directory in UNIT_DIRECTORIES)
    return next((path for path in paths if os.path.exists(path)), "")


def read(layout: Layout, settings: EngineSettings | None, uid: int, gid: int) -> EngineFiles:
    """Read the status of each file.

    :raises OSError: when a directory may not be searched.
    """
    paths = {file.name: [str(getattr(layout, file.name, ""))] for file in FILES}
    if settings is not None:
        paths["tls_authority"] = [settings.tls_authority]
        paths["tls_certificate"] = [settings.tls_certificate]
        paths["tls_key"] = [settings.tls_key]
        paths["registry_certificates"] = list(_certificates(settings.certificates))
    files: dict[str, tuple[FileStatus, ...]] = {}
    for name, candidates in paths.items():
        read = (file_status.read(path) for path in candidates if path and path != os.devnull)
        files[name] = tuple(status for status in read if status is not None)
    return EngineFiles(files, uid, gid)


def _certificates(directories: Iterable[str]) -> Iterable[str]:
    """Yield the certificates of registries: ``certs.d/HOST/NAME.crt``, at most 1000."""
    count = 0
    for top in directories:
        for directory, _, names in os.walk(top):
            for name in sorted(names):
                if name.endswith(CERTIFICATE_SUFFIXES):
                    count += 1
                    if count > MAX_CERTIFICATES:
                        return
                    yield os.path.join(directory, name)


def _judge(file: File, test: Callable[[File, FileStatus, EngineFiles], FileFix | None]) -> Judge:
    def judge(state: EngineFiles) -> Judgement:
        statuses = state.files.get(file.name, ())
        if not statuses:
            return not_applicable(f"{file.what}: absent")
        wrong = [(status, fix) for status in statuses if (fix := test(file, status, state))]
        if not wrong:
            more = f" and {len(statuses) - 1} more" if len(statuses) > 1 else ""
            return passes(statuses[0].describe() + more)
        return fails(
            "; ".join(status.describe() for status, _ in wrong[:5]),
            "; ".join(command(fix) for _, fix in wrong[:5]),
            *(fix for _, fix in wrong),
        )

    return judge


def command(fix: FileFix) -> str:
    """Return the shell command that does the same as a fix. Pure."""
    from shlex import quote

    words = []
    if fix.uid is not None or fix.gid is not None:
        owner = "" if fix.uid is None else str(fix.uid)
        group = "" if fix.gid is None else f":{fix.gid}"
        words.append(f"chown {owner}{group} {quote(fix.path)}")
    if fix.mode is not None:
        words.append(f"chmod {fix.mode:04o} {quote(fix.path)}")
    return " && ".join(words)


def _owner(file: File, status: FileStatus, state: EngineFiles) -> FileFix | None:
    uid = None if status.uid == state.uid else state.uid
    gid = None if file.any_group or status.gid == state.gid else state.gid
    return None if uid is None and gid is None else FileFix(status.path, uid, gid)


def _mode(file: File, status: FileStatus, state: EngineFiles) -> FileFix | None:
    allowed = status.mode & file.mode
    return None if allowed == status.mode else FileFix(status.path, mode=allowed)


def _control(id: str, title: str, judge: Judge) -> Control:
    return Control(id, 1, (Scope.ENGINE,), title, {Kind.ENGINE_FILES: judge})


def _controls() -> Iterable[Control]:
    for file in FILES:
        owner = "root" if file.any_group else "root:root"
        yield _control(file.owner_id, f"Owner of {file.what}: {owner}", _judge(file, _owner))
        title = f"Mode of {file.what}: {file.mode:04o} or stricter"
        yield _control(file.mode_id, title, _judge(file, _mode))


CONTROLS: tuple[Control, ...] = tuple(
    sorted(_controls(), key=lambda control: int(control.id.partition(".")[2]))
)

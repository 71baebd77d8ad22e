"""``jaula harden check``: would a container still work under a profile?

Two twins of the container run one after the other and are recorded: one without the profile, one
with it. A refusal that only the second one has is something that the profile lacks.

A twin has the container's image, options and networks, and copies of its volumes. It publishes no
ports, has no name or address of the container's own, and mounts directories of the host read-only.
Its programs do reach the container's networks, so a check is not free of side effects on others.
"""

from __future__ import annotations

import os
import posixpath
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple

from jaula.errors import Conflict, JaulaError
from jaula.features.harden import hardened_request, narrow
from jaula.features.harden.apply_profile import POLL, unframed
from jaula.features.harden.apply_recovery import Api
from jaula.features.record.record_document import Entry
from jaula.features.record.record_reader import Record
from jaula.spec.confinement_profile import Architecture, Profile
from jaula.spec.container_copy import copied_host_config

_REFUSED = ("EPERM", "EACCES", "EROFS", "SIGSYS")
_UNREACHED = ("ECONNREFUSED", "EHOSTUNREACH", "ENETUNREACH", *_REFUSED)
_WITH_ENTRIES = ("open", "openat", "openat2", "creat", "connect")
_ARCHITECTURES: dict[str, Architecture] = {"": "x86_64", "i386": "x86", "x32": "x32"}
_PREFIX = "jaula-check-"
_LISTEN = "network.listen"
_START = ""  # the start in place of a command


class Lack(NamedTuple):
    """One refusal that the profile causes, and the item that would allow it.

    ``section`` is a table of the profile, '' if no item is known.
    """

    refusal: str
    section: str
    item: str

    def __str__(self) -> str:
        return (
            f"{self.refusal}: add {self.item} to {self.section}" if self.section else self.refusal
        )


class CommandResult(NamedTuple):
    """A command that ran in a twin."""

    command: str
    status: int
    output: str


class Life(NamedTuple):
    """Result of one twin."""

    record: Record
    inspect: Mapping[str, Any]  # before it was removed
    commands: tuple[CommandResult, ...]
    log: str


class Verdict(NamedTuple):
    """The answer. ``broken`` are results that differ, ``lacks`` the refusals that explain them."""

    broken: tuple[str, ...]
    lacks: tuple[Lack, ...]

    @property
    def works(self) -> bool:
        """Whether nothing differs and nothing more was refused."""
        return not self.broken and not self.lacks


class Tools(NamedTuple):
    """Operations of the client that a check uses.

    ``record`` attaches a recorder to a created container; the record is complete when the context
    ends, and the function that the context yields returns it. ``copy`` copies a directory of one
    container into a directory of another. ``execute`` runs a command in a container.
    """

    record: Callable[[str], AbstractContextManager[Callable[[], Record]]]
    copy: Callable[[str, str, str], None]
    execute: Callable[[str, str], CommandResult]


def check(
    api: Api,
    ref: str,
    text: str,
    profile: Profile,
    tools: Tools,
    *,
    seconds: float,
    commands: Sequence[str] = (),
    recorded: bool = False,
    report: Callable[[str], None] = lambda line: None,
) -> Verdict:
    """Run the twins and compare them. Each runs for ``seconds``, and runs ``commands``.

    ``recorded``: a record made the profile, and no person has read it.

    :raises Conflict: when the profile would give the container something that it does not have.
    :raises JaulaError: when the container cannot be copied or recorded.
    """
    inspect = api.document("GET", f"/containers/{ref}/json")
    if inspect.get("Pod"):
        raise Conflict(f"container {hardened_request.name_of(inspect)} belongs to a pod")
    image = api.document("GET", f"/images/{inspect['Image']}/json")
    had = narrow.accesses(inspect, image, without_former=not recorded)
    narrow.refuse(hardened_request.name_of(inspect), profile, narrow.given(profile, had))

    def live(what: str, each: str, document: Profile) -> Life:
        report(f"running a twin {what} for {seconds:g} seconds")
        body = hardened_request.of_container(inspect, image, each, document)
        return _live(api, inspect, body, tools, seconds, commands)

    before = live("without the profile", "default", Profile(name="default"))
    after = live(f"under the profile {profile.name}", text, profile)
    return evaluate(before, after, profile)


# -- twins ----------------------------------------------------------------------------------------


def _live(
    api: Api,
    inspect: Mapping[str, Any],
    body: dict[str, Any],
    tools: Tools,
    seconds: float,
    commands: Sequence[str],
) -> Life:
    """Run one twin to its end and remove it with everything that was made for it."""
    with _volumes(api, inspect, tools) as volumes, _created(api, twin(body, volumes)) as identity:
        with tools.record(identity) as record:
            results: list[CommandResult] = []
            try:
                api.request("POST", f"/containers/{identity}/start")
                _run(api, identity, seconds)
                results += (tools.execute(identity, command) for command in commands)
            except JaulaError as error:  # of the start: it is a result
                results.append(CommandResult(_START, 125, error.message))
            ended = api.document("GET", f"/containers/{identity}/json")
            if ended["State"]["Running"]:
                api.request("POST", f"/containers/{identity}/kill")
        query = (("stdout", "1"), ("stderr", "1"), ("tail", "20"))
        log = unframed(api.request("GET", f"/containers/{identity}/logs", query))
        return Life(record(), ended, tuple(results), log.strip())


def _run(api: Api, identity: str, seconds: float) -> None:
    """Wait for a time, or until the twin exits."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not api.document("GET", f"/containers/{identity}/json")["State"]["Running"]:
            return
        time.sleep(POLL)


@contextmanager
def _created(api: Api, body: Mapping[str, Any]) -> Iterator[str]:
    query = (("name", f"{_PREFIX}{os.urandom(6).hex()}"),)
    identity = str(api.document("POST", "/containers/create", query, body)["Id"])
    try:
        yield identity
    finally:
        api.request("DELETE", f"/containers/{identity}", (("force", "1"), ("v", "1")))


@contextmanager
def _volumes(api: Api, inspect: Mapping[str, Any], tools: Tools) -> Iterator[dict[str, str]]:
    """Yield copies of the volumes by destination; they are removed afterwards."""
    copies: dict[str, str] = {}
    own = (("transaction", os.urandom(16).hex()),)
    mounts = [m for m in inspect.get("Mounts") or () if m.get("Type") == "volume"]
    try:
        for mount in mounts:
            name = f"{_PREFIX}{os.urandom(6).hex()}"
            api.document("POST", "/volumes/create", own, {"Name": name})
            copies[str(mount["Destination"])] = name
        if copies:
            places = [
                {"Type": "volume", "Source": name, "Target": path} for path, name in copies.items()
            ]
            helper = {"Image": inspect["Image"], "Cmd": ["-"], "HostConfig": {"Mounts": places}}
            with _created(api, helper) as identity:
                for path in copies:
                    tools.copy(str(inspect["Id"]), path, identity)
        yield copies
    finally:
        for name in copies.values():
            api.request("DELETE", f"/volumes/{name}", (*own, ("force", "1")))


def twin(body: Mapping[str, Any], volumes: Mapping[str, str]) -> dict[str, Any]:
    """Return the request of a twin: without what belongs to the container itself. Pure."""
    host = copied_host_config(body["HostConfig"], volumes)
    networks: dict[str, Any] = {name: {} for name in body["NetworkingConfig"]["EndpointsConfig"]}
    changed: dict[str, Any] = {"Labels": {}, "Tty": False, "OpenStdin": False, "MacAddress": ""}
    return {
        **body,
        **changed,
        "HostConfig": host,
        "NetworkingConfig": {"EndpointsConfig": networks},
    }


# -- the answer -----------------------------------------------------------------------------------


def evaluate(before: Life, after: Life, profile: Profile) -> Verdict:
    """Compare the twin without the profile with the one under it. Pure."""
    known = {_subject(entry) for entry in before.record.entries.values() if _is_refusal(entry)}
    lacks = [
        _lack(entry, profile)
        for entry in after.record.entries.values()
        if _is_refusal(entry) and _subject(entry) not in known
    ]
    if any(lack.section == _LISTEN for lack in lacks):
        lacks = [lack for lack in lacks if lack.refusal != "bind failed with EACCES"]
    rows = after.inspect.get("EgressRefused") or ()
    lacks += (_destination(str(row["Destination"])) for row in rows)
    if after.inspect["State"].get("OOMKilled") and not before.inspect["State"].get("OOMKilled"):
        lacks.append(Lack("a process was killed for memory", "limits", "a larger memory"))
    if profile.files.execute and any(
        result.command == _START and "permission denied" in result.output
        for result in after.commands
    ):
        lacks.append(
            Lack("the program was not executed", "files.execute", "the program and its loader")
        )
    return Verdict(tuple(_broken(before, after)), tuple(dict.fromkeys(lacks)))


def _is_refusal(entry: Entry) -> bool:
    """Return whether an entry is an access that was refused.

    A refused open or connect is an entry of its own; so its system call is left out.
    """
    if entry.kind == "file-refused":
        return entry.errno in _REFUSED
    if entry.kind == "connect":
        return bool(entry.port) and entry.errno in _UNREACHED
    if entry.kind == "bind":
        return bool(entry.port) and entry.protocol == "tcp" and entry.errno == "EACCES"
    if entry.kind != "syscall":
        return False
    if entry.layer in ("seccomp", "process-limit"):
        return True
    return entry.errno in _REFUSED and entry.syscall not in _WITH_ENTRIES


def _subject(entry: Entry) -> tuple[str | int, ...]:
    return (
        *(entry.kind, entry.syscall, entry.abi, entry.errno, entry.path, entry.capability),
        *(entry.protocol, entry.address, entry.port),
    )


def _destination(item: str) -> Lack:
    return Lack(f"connection to {item} was refused", "network.egress", f'"{item}"')


def _lack(entry: Entry, profile: Profile) -> Lack:
    name = f"{entry.syscall} ({entry.abi})" if entry.abi else entry.syscall
    if entry.layer == "seccomp":
        architecture = _ARCHITECTURES.get(entry.abi, "x86_64")
        return Lack(
            f"system call {name} was refused",
            f"seccomp.syscalls.{architecture}",
            f'"{entry.syscall}"',
        )
    if entry.layer == "process-limit":
        return Lack(f"{name} failed for the limit of processes", "limits", "a larger pids")
    if entry.layer == "capability" and entry.capability:
        item = entry.capability.removeprefix("CAP_")
        what = entry.path or name
        return Lack(f"{what} needs {entry.capability}", "capabilities", f'"{item}"')
    if entry.kind == "file-refused":
        return _file(entry, profile)
    if entry.kind == "bind":
        item, listed = f"tcp:{entry.port}", profile.network.listen
        known = listed is not None and item not in listed
        section = (_LISTEN, f'"{item}"') if known else ("", "")
        return Lack(f"bind to {item} was refused", *section)
    if entry.kind == "connect":
        address = f"[{entry.address}]" if ":" in entry.address else entry.address
        item = f"{entry.protocol or 'tcp'}:{address}:{entry.port}"
        if profile.network.egress is not None:
            return _destination(item)
        return Lack(f"connection to {item} failed with {entry.errno}", "", "")
    return Lack(f"{name} failed with {entry.errno}", "", "")


def _file(entry: Entry, profile: Profile) -> Lack:
    path, files = entry.path, profile.files
    refusal = f"{path} was refused with {entry.errno}"
    if not path.startswith("/"):
        return Lack(refusal, "", "")
    if entry.errno == "EROFS":
        directory = posixpath.dirname(path)
        return Lack(refusal, "files.tmpfs or files.volumes", f'"{directory}"')
    if files.read and not covers((*files.read, *files.write, *files.execute), path):
        return Lack(refusal, "files.read", f'"{path}"')
    if files.write and not covers(files.write, path):
        return Lack(refusal, "files.write", f'"{path}"')
    if files.execute and not covers(files.execute, path):
        return Lack(refusal, "files.execute", f'"{path}"')
    return Lack(refusal, "", "")


def covers(paths: Sequence[str], path: str) -> bool:
    """Return whether a list of paths has a path or a directory above it."""
    return any(path == one or path.startswith(f"{one.rstrip('/')}/") for one in paths)


def _broken(before: Life, after: Life) -> Iterator[str]:
    """Yield what the twin under the profile did worse."""
    old, new = before.inspect["State"], after.inspect["State"]
    last = f": {after.log.splitlines()[-1][:200]}" if after.log else ""
    started = all(result.command != _START for result in after.commands)
    if not started:
        pass  # the error of the start says more
    elif old["Running"] and not new["Running"]:
        yield f"it exited with status {new.get('ExitCode')}{last}"
    elif not new["Running"] and old.get("ExitCode") != new.get("ExitCode"):
        yield (
            f"it exited with status {new.get('ExitCode')} instead of {old.get('ExitCode')}{last}"
        )
    health = [(state.get("Health") or {}).get("Status") for state in (old, new)]
    if health[1] == "unhealthy" and health[0] != "unhealthy":
        yield "it is unhealthy"
    earlier = {result.command: result for result in before.commands}
    for result in after.commands:
        if result.command == _START:
            yield f"it does not start: {result.output}"
            continue
        known = earlier.get(result.command)
        if result.status and (known is None or known.status != result.status):
            line = result.output.strip().splitlines()[-1:] or [""]
            yield f"{result.command} ended with status {result.status}: {line[0][:200]}"

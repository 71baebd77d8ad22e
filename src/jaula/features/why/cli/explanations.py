"""Explanations of refusals, for ``jaula why`` and ``run --why``.

Documents of the engine become a confinement, a session becomes a report.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from jaula.cli.cli_errors import CliError, EngineError
from jaula.cli.client.api_client import Client, quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from jaula.cli.command_parser import Options
    from jaula.features.why.confinement import Confinement
    from jaula.features.why.diagnosis import Diagnosis, Report
    from jaula.features.why.exec_errors import Lookup, ProgramFile
    from jaula.features.why.explain import FileFacts
    from jaula.features.why.session import Session, Trace
    from jaula.spec.annotations import Ruleset

_POLLS, _POLL_INTERVAL = 200, 0.01  # of an exec whose streams have ended; seconds
_LOG_LINES = 10
_LINKS = 40  # symbolic links of one path that are followed
_TWINS, _TWIN_TIMEOUT = 8, 60.0  # copies of one report; seconds that one may run
_MESSAGE = 4096  # bytes of output that may be the engine's reason


def check_host(client: Client) -> None:
    """Check that the caller may trace, and that the engine is on this host.

    :raises CliError: when one is not so.
    """
    if os.geteuid() != 0:
        raise CliError("an explanation needs root: run the command with sudo")
    address = client.address.text
    if not address.startswith(("unix://", "/")):
        raise CliError(
            f"jaula why traces the kernel of this host, and {address} may be another one: run the "
            "command on the engine's host"
        )


def open_session(client: Client, container: str, confinement: Confinement | None = None) -> Session:
    """Return a session that traces a container. ``confinement`` is what confines it, if known.

    :raises CliError: when this host cannot trace.
    """
    from jaula.errors import JaulaError
    from jaula.features.why.session import Session

    check_host(client)
    try:
        if confinement is not None:
            known = confinement.landlock
            return Session(container, lambda: known)
        return Session(container, lambda: _domain(client.address.text, container))
    except JaulaError as error:
        raise CliError(str(error)) from None


def _domain(address: str, container: str) -> Ruleset | None:
    """Return the Landlock rules of a container that was just started, None if it has ended."""
    client = Client(address)  # of another thread
    try:
        return confinement_of(client, inspect(client, container)).landlock
    except CliError:
        return None


def confinement_of(client: Client, document: dict[str, Any]) -> Confinement:
    """Return what confines a container.

    :raises CliError: when the engine does not return the container's spec.
    """
    from jaula.features.why.confinement import confinement, read_mounts
    from jaula.spec import runtime_spec

    try:
        text = client.request("GET", f"/jaula/containers/{document['Id']}/spec")
    except EngineError as error:
        raise CliError(f"the engine does not return the container's spec: {error.reason}") from None
    pid = document["State"]["Pid"]
    return confinement(
        document,
        runtime_spec.decode(text),
        mounts=read_mounts(pid) if pid else (),
        networks=client.get("/networks"),
    )


def traced_report(
    document: dict[str, Any],
    confinement: Confinement,
    trace: Trace,
    state: str,
    more: tuple[Diagnosis, ...] = (),
) -> Report:
    """Return the report of a session; ``more`` are diagnoses of another source."""
    from jaula.features.why.diagnosis import Report, diagnoses

    found = diagnoses(trace, confinement) + more
    notes = []
    if trace.lost:
        notes.append(f"{trace.lost} events were lost: more than the tables hold")
    if trace.denials_error and confinement.label:
        notes.append(
            f"the kernel's audit records cannot be read ({trace.denials_error}): rules of the LSM "
            "are not named"
        )
    return Report(
        container=document["Name"].lstrip("/"),
        state=state,
        diagnoses=tuple(each for each in found if not each.explanation.harmless),
        harmless=tuple(each for each in found if each.explanation.harmless),
        notes=tuple(notes),
    )


def inspect(client: Client, ref: str) -> dict[str, Any]:
    """Return the engine's document of a container."""
    document: dict[str, Any] = client.get(f"/containers/{quote(ref)}/json")
    return document


class Executed(NamedTuple):
    """A command that was run: ``reason`` is the engine's error if no process was started."""

    status: int
    reason: str
    output: str  # the end of it


def execute(client: Client, container: str, words: list[str], user: str) -> Executed:
    """Run a command in a container, copy its output to standard error."""
    from time import sleep

    from jaula.cli.client.output_streams import STDERR, write_all
    from jaula.spec.stdcopy import StdcopyReader

    body: dict[str, Any] = {"AttachStdout": True, "AttachStderr": True, "Cmd": words}
    if user:
        body["User"] = user
    created = client.document("POST", f"/containers/{container}/exec", (), body)
    path = f"/exec/{created['Id']}"
    try:
        response = client.open("POST", path + "/start", (), {"Detach": False, "Tty": False})
    except EngineError as error:
        return Executed(126, error.reason, "")
    output = b""
    frames = StdcopyReader()
    for chunk in response.chunks():
        for _, payload in frames.feed(chunk):
            write_all(STDERR, payload)
            output = (output + payload)[-_MESSAGE:]
    for _ in range(_POLLS):
        document = client.get(path + "/json")
        if not document["Running"]:
            text = output.decode("utf-8", "replace")
            # The engine writes its error into the stream; no process has the pid 0.
            reason = "" if document["Pid"] else text.strip() or "the engine gave no reason"
            return Executed(int(document["ExitCode"] or 0), reason, text)
        sleep(_POLL_INTERVAL)
    raise CliError("the program closed its streams and is still running")


def with_twins(
    client: Client,
    document: dict[str, Any],
    confinement: Confinement,
    report: Report,
    words: list[str],
    user: str,
) -> Report:
    """Return a report whose proofs include what a copy of the container shows for each flag.

    :raises JaulaError: when this host cannot trace.
    """
    import msgspec

    from jaula.features.why import profile, twin

    copy = twin.request(document, words, user)
    results: dict[str, tuple[Diagnosis, ...] | str | None] = {}
    proven, notes = [], list(report.notes)
    for diagnosis in report.diagnoses:
        flag = diagnosis.explanation.flag
        if flag not in results:
            rule = diagnosis.explanation.profile_rule
            text = None
            if rule is not None and confinement.seccomp is not None:
                text = profile.document(profile.widened(confinement.seccomp, (rule,)))
            lifted = twin.lift(copy, flag, text)
            limited = sum(result is not None for result in results.values()) >= _TWINS
            results[flag] = None if lifted is None or limited else _twin(client, lifted)
            if isinstance(result := results[flag], str):
                notes.append(f"no twin with {flag}: {result}")
        result = results[flag]
        proven.append(twin.proven(diagnosis, result) if isinstance(result, tuple) else diagnosis)
    return msgspec.structs.replace(report, diagnoses=tuple(proven), notes=tuple(notes))


def with_profile(confinement: Confinement, report: Report, path: str) -> Report:
    """Write the profile of a container with rules for the refused calls.

    Return the report with the file's name in the flags. No file is written without such a call.

    :raises CliError: when the file cannot be written.
    """
    import msgspec

    from jaula.features.why import profile

    explanations = [each.explanation for each in report.diagnoses]
    rules = [each.profile_rule for each in explanations if each.profile_rule is not None]
    if not rules or confinement.seccomp is None:
        note = "no call was refused that a profile would allow: no profile was written"
        return msgspec.structs.replace(report, notes=(*report.notes, note))
    text = profile.document(profile.widened(confinement.seccomp, rules))
    try:
        with open(path, "xb") as file:
            file.write(text)
    except OSError as error:
        raise CliError(f"cannot write {path}: {error.strerror}") from None

    def named(diagnosis: Diagnosis) -> Diagnosis:
        if diagnosis.explanation.profile_rule is None:
            return diagnosis
        explanation = msgspec.structs.replace(
            diagnosis.explanation, flag=f"--security-opt seccomp={path}"
        )
        return msgspec.structs.replace(diagnosis, explanation=explanation)

    return msgspec.structs.replace(report, diagnoses=tuple(map(named, report.diagnoses)))


def _twin(client: Client, request: dict[str, Any]) -> tuple[Diagnosis, ...] | str:
    """Run a copy of a container and return its diagnoses, or why it could not run."""
    from jaula.errors import JaulaError
    from jaula.features.why.diagnosis import diagnoses

    name = f"jaula-why-{os.urandom(6).hex()}"
    try:
        created = client.document("POST", "/containers/create", (("name", name),), request)
    except EngineError as error:
        return error.reason
    url = f"/containers/{created['Id']}"
    try:
        session = open_session(client, created["Id"])
        try:
            session.start()
            client.request("POST", f"{url}/start")
            _wait(client, url)
            trace = session.finish()
        except JaulaError as error:
            raise CliError(str(error)) from None
        finally:
            session.close()
        return diagnoses(trace, confinement_of(client, inspect(client, created["Id"])))
    except EngineError as error:
        return error.reason
    finally:
        client.request("DELETE", url, (("force", True), ("v", True)))


def _wait(client: Client, url: str) -> None:
    """Wait until a container ends, and end it after a while."""
    from time import monotonic, sleep

    end = monotonic() + _TWIN_TIMEOUT
    while client.get(f"{url}/json")["State"]["Running"]:
        if monotonic() > end:
            client.request("POST", f"{url}/kill")
            return
        sleep(_POLL_INTERVAL * 5)


def start_failure(
    client: Client,
    document: dict[str, Any],
    words: list[str],
    reason: str,
    confinement: Confinement | None,
    user: str = "",
) -> tuple[Diagnosis, ...]:
    """Return the diagnosis on a first program that could not be executed.

    ``words`` are the command, ``reason`` is the engine's error, ``user`` that of an exec.
    """
    import platform

    from jaula.features.why.diagnosis import Start
    from jaula.features.why.diagnosis import start_failure as diagnosis
    from jaula.features.why.exec_errors import diagnose, search
    from jaula.features.why.files import ContainerFiles

    files: ContainerFiles | None = None
    if document["State"]["Pid"]:
        try:
            domain = confinement.landlock if confinement is not None else None
            files = ContainerFiles(document["State"]["Pid"], domain)
        except OSError:
            pass  # it has exited; the engine reads the files
    try:
        lookup = files.lookup if files is not None else _archive_lookup(client, document)
        environment = document["Config"].get("Env") or []
        directory = document["Config"].get("WorkingDir") or "/"
        path = search(words[0] if words else "", environment, lookup)
        whole = os.path.normpath(os.path.join(directory, path))
        inside = 0
        if confinement is not None:
            passwd = files.text("/etc/passwd") if files is not None else ""
            inside = _user_id(user, passwd, confinement.uid)
        facts = None
        if files is not None:
            facts = files.facts(whole, execute=True)
        elif confinement is not None:
            facts = _archived_facts(client, document, whole, lookup, confinement)
        start = Start(
            words=tuple(words),
            path=path,
            reason=reason,
            uid=confinement.outside(inside) if confinement is not None else 0,
            directory=directory,
        )
        return diagnosis(start, diagnose(path, lookup, platform.machine()), confinement, facts)
    finally:
        if files is not None:
            files.close()


def _user_id(user: str, passwd: str, default: int) -> int:
    """Return the id of a user in a container: a number, or a name of its ``/etc/passwd``."""
    name = user.partition(":")[0]
    if not name:
        return default
    if name.isascii() and name.isdigit():
        return int(name)
    for line in passwd.splitlines():
        fields = line.split(":")
        if fields[0] == name and len(fields) > 2 and fields[2].isascii() and fields[2].isdigit():
            return int(fields[2])
    return default


def _archived_facts(
    client: Client, document: dict[str, Any], path: str, lookup: Lookup, confinement: Confinement
) -> FileFacts | None:
    """Return what the archive API shows of a program: modes, and paths without symbolic links."""
    import platform

    from jaula.features.why.exec_errors import diagnose, opened
    from jaula.features.why.explain import FileFacts, OpenedFile

    program = lookup(path)
    if program is None:
        return None
    files = []
    for each in opened(path, lookup):
        file = lookup(each)
        if file is None:
            continue
        real = _real_path(client, document["Id"], each)
        uid = confinement.outside(file.uid)
        files.append(OpenedFile(path=each, target=real, mode=file.mode, uid=uid))
    error = diagnose(path, lookup, platform.machine())
    return FileFacts(
        mode=program.mode,
        uid=confinement.outside(program.uid),
        exec_error=error.reason,
        exec_advice=error.advice,
        opened=tuple(files),
    )


def _real_path(client: Client, container: str, path: str) -> str:
    """Return a path of a container without symbolic links, by the archive API."""
    from jaula.cli.containers import copy_target
    from jaula.kernel.openat2 import components

    done: list[str] = []
    pending = components(path)[::-1]
    links = _LINKS
    while pending:
        part = pending.pop()
        if part == "..":
            done = done[:-1]
            continue
        status = (
            copy_target.stat_path(client, container, "/" + "/".join((*done, part)))
            if links
            else None
        )
        link = str((status or {}).get("linkTarget") or "")
        if not link:
            done.append(part)
            continue
        links -= 1
        pending += components(link)[::-1]
        if link.startswith("/"):
            done = []
    return "/" + "/".join(done)


def _archive_lookup(client: Client, document: dict[str, Any]) -> Lookup:
    """Return a reader of files of a container that does not run: the archive API."""
    seen: dict[str, ProgramFile | None] = {}

    def lookup(path: str) -> ProgramFile | None:
        if path not in seen:
            seen[path] = _archived(client, document["Id"], path)
        return seen[path]

    return lookup


def _archived(client: Client, container: str, path: str, links: int = 8) -> ProgramFile | None:
    """Return a file of a container with its first bytes, by the archive API."""
    import stat
    import tarfile

    from jaula.features.why.exec_errors import HEAD, ProgramFile

    try:
        response = client.open("GET", f"/containers/{container}/archive", (("path", path),))
    except EngineError:
        return None
    data = b""
    for chunk in response.chunks():  # read to the end: the connection is used again
        data = (data + chunk)[: 512 + HEAD]
    try:
        entry = tarfile.TarInfo.frombuf(data[:512], "utf-8", "surrogateescape")
    except tarfile.TarError:
        return None
    if entry.issym() and links:
        target = os.path.join(os.path.dirname(path), entry.linkname)
        return _archived(client, container, os.path.normpath(target), links - 1)
    kind = stat.S_IFDIR if entry.isdir() else stat.S_IFREG if entry.isreg() else 0
    head = data[512 : 512 + min(entry.size, HEAD)]
    return ProgramFile(path, kind | entry.mode, head, entry.uid)


def state_text(document: dict[str, Any]) -> str:
    """Return the state of a container in words."""
    from jaula.features.why.oom import status_text

    state = document["State"]
    if state["Running"]:
        return "running"
    if not state.get("StartedAt") or state["StartedAt"].startswith("0001"):
        return "not started"
    return f"exited, status {status_text(int(state['ExitCode']))}"


def exited_report(client: Client, document: dict[str, Any]) -> Report:
    """Return the report on a container that does not run: its state, and the end of its log."""
    from jaula.features.why.diagnosis import Report, ended
    from jaula.features.why.oom import is_refused

    state = document["State"]
    confinement = None
    try:
        confinement = confinement_of(client, document)
    except CliError:
        pass  # a container that was never started has no spec
    code, reason = int(state["ExitCode"]), str(state.get("Error") or "")
    found: tuple[Diagnosis, ...] = ()
    if reason and (code in (126, 127) or "exec" in reason):
        words = [document["Path"], *document["Args"]] if document["Path"] else document["Args"]
        found = start_failure(client, document, words, reason, confinement)
    else:
        found = ended(document, confinement)
    notes = []
    if not found and not is_refused(code) and code:
        notes.append(
            "the program ended itself; to see what it was refused: jaula run --why IMAGE COMMAND"
        )
    return Report(
        container=document["Name"].lstrip("/"),
        state=state_text(document) + (f"; {reason}" if reason else ""),
        diagnoses=found,
        notes=tuple(notes),
        log=_log_tail(client, document) if code and not found else "",
        traced=False,
    )


def _log_tail(client: Client, document: dict[str, Any]) -> str:
    from jaula.spec.stdcopy import StdcopyReader

    query = (("stdout", True), ("stderr", True), ("tail", _LOG_LINES))
    try:
        data = client.request("GET", f"/containers/{document['Id']}/logs", query)
    except EngineError:
        return ""  # a log driver that cannot be read
    if not document["Config"]["Tty"]:
        data = b"".join(payload for _, payload in StdcopyReader().feed(data))
    return data.decode("utf-8", "replace").rstrip("\n")


def run_explained(
    client: Client, options: Options, body: dict[str, Any], attached: Callable[[str], int]
) -> int:
    """Create a container, trace it from its first instruction, and print the report at its end.

    ``attached`` starts the container, copies its streams and returns its status. The report goes to
    standard error. The container is removed here, because the report needs it after its exit.

    :raises CliError: when the container cannot be created, started or traced.
    """
    import sys

    from jaula.cli import site_packages
    from jaula.cli.containers.create_container import create

    if options.on("detach"):
        raise CliError("--why needs an attached container; without -d, or jaula why NAME")
    if options.is_set("record"):
        raise CliError("--why and --record cannot be combined: they trace the container twice")
    check_host(client)
    site_packages.enable()
    from jaula.errors import JaulaError
    from jaula.features.why.report import to_text

    removed = options.on("rm")
    if removed:
        body["HostConfig"]["AutoRemove"] = False
    container = create(client, options, body)
    try:
        session = open_session(client, container)
        failure: CliError | None = None
        status = 0
        try:
            session.start()
            try:
                status = attached(container)
            except CliError as error:
                failure = error
            trace = session.finish()
        except JaulaError as error:
            raise CliError(str(error)) from None
        finally:
            session.close()
        document = inspect(client, container)
        confinement = confinement_of(client, document)
        found: tuple[Diagnosis, ...] = ()
        if failure is not None:
            words = [document["Path"], *document["Args"]]
            found = start_failure(client, document, words, failure.message, confinement)
        report = traced_report(document, confinement, trace, state_text(document), found)
        print(to_text(report), file=sys.stderr)
        if failure is not None:
            raise failure
        return status
    finally:
        if removed:
            client.request("DELETE", f"/containers/{container}", (("force", True), ("v", True)))

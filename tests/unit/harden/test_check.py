"""The answer of a check: new refusals with the item that the profile lacks."""

from __future__ import annotations

from typing import Any

import pytest

from jaula.features.harden import check_profile
from jaula.features.harden.check_profile import CommandResult, Lack, Life
from jaula.features.record.record_document import Entry
from jaula.features.record.record_reader import Record
from jaula.spec.confinement_profile import Files, Network, Profile
from jaula.state.audit_log import Head

PROFILE = Profile(
    name="web",
    files=Files(read=("/etc/app/",), write=("/data/",), execute=("/bin/",)),
    network=Network(listen=("tcp:80",), egress=()),
)


def life(
    *entries: Entry,
    running: bool = True,
    exit_code: int = 0,
    commands: tuple[CommandResult, ...] = (),
    log: str = "",
    **inspect: Any,
) -> Life:
    state = {"Running": running, "ExitCode": exit_code, **inspect.pop("State", {})}
    record = Record(
        header=None,
        programs={},
        entries=dict(enumerate(entries, 1)),
        end=None,
        head=Head(),
        errors=[],
    )
    return Life(record, {"State": state, **inspect}, commands, log)


def entry(kind: str, **fields: Any) -> Entry:
    return Entry(kind=kind, program=0, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("found", "section", "item"),
    [
        (
            entry("syscall", syscall="bind", errno="EPERM", layer="seccomp"),
            "seccomp.syscalls.x86_64",
            '"bind"',
        ),
        (
            entry("syscall", syscall="bind", abi="i386", errno="EPERM", layer="seccomp"),
            "seccomp.syscalls.x86",
            '"bind"',
        ),
        (
            entry("bind", family="inet", protocol="tcp", port=81, errno="EACCES"),
            "network.listen",
            '"tcp:81"',
        ),
        (entry("bind", family="inet", protocol="tcp", port=80, errno="EACCES"), "", ""),
        (
            entry("syscall", syscall="kill", errno="SIGSYS", layer="seccomp"),
            "seccomp.syscalls.x86_64",
            '"kill"',
        ),
        (
            entry(
                "syscall",
                syscall="chown",
                errno="EPERM",
                layer="capability",
                capability="CAP_CHOWN",
            ),
            "capabilities",
            '"CHOWN"',
        ),
        (
            entry("syscall", syscall="clone", errno="EAGAIN", layer="process-limit"),
            "limits",
            "a larger pids",
        ),
        (entry("file-refused", path="/etc/x", errno="EACCES"), "files.read", '"/etc/x"'),
        (entry("file-refused", path="/etc/app/x", errno="EACCES"), "files.write", '"/etc/app/x"'),
        (entry("file-refused", path="/data/x", errno="EACCES"), "files.execute", '"/data/x"'),
        (
            entry("file-refused", path="/var/log/x", errno="EROFS", layer="read-only"),
            "files.tmpfs or files.volumes",
            '"/var/log"',
        ),
        (
            entry("connect", address="192.0.2.1", port=80, protocol="tcp", errno="ECONNREFUSED"),
            "network.egress",
            '"tcp:192.0.2.1:80"',
        ),
        (
            entry("connect", address="2001:db8::1", port=53, protocol="udp", errno="EACCES"),
            "network.egress",
            '"udp:[2001:db8::1]:53"',
        ),
        (entry("file-refused", path="relative", errno="EACCES"), "", ""),
        (entry("syscall", syscall="mkdir", errno="EROFS", layer="read-only"), "", ""),
    ],
)
def test_a_new_refusal_is_a_lack_with_its_item(found: Entry, section: str, item: str) -> None:
    verdict = check_profile.evaluate(life(), life(found), PROFILE)
    assert [(lack.section, lack.item) for lack in verdict.lacks] == [(section, item)]
    assert not verdict.works
    same = check_profile.evaluate(life(found), life(found, found), PROFILE)
    assert same == ((), ())
    assert same.works


@pytest.mark.parametrize(
    "found",
    [
        entry("syscall", syscall="openat", errno="ENOENT"),
        entry("syscall", syscall="wait4", errno="ECHILD"),
        entry("syscall", syscall="openat", errno="EACCES"),  # its file has an entry
        entry("syscall", syscall="read"),
        entry("file", path="/etc/x", mode="read"),
        entry("connect", address="192.0.2.1", port=80, protocol="tcp", errno="EINPROGRESS"),
        entry("capability-refused", capability="CAP_SYS_ADMIN", syscall="brk"),
    ],
)
def test_what_is_not_a_refusal_is_no_lack(found: Entry) -> None:
    assert check_profile.evaluate(life(), life(found), PROFILE).works


def test_destinations_that_the_list_refused_are_lacks_once() -> None:
    rows = [{"Destination": "tcp:192.0.2.1:80", "Packets": 3}]
    found = entry("connect", address="192.0.2.1", port=80, protocol="tcp", errno="ECONNREFUSED")
    verdict = check_profile.evaluate(life(), life(found, EgressRefused=rows), PROFILE)
    assert len(verdict.lacks) == 1
    assert str(verdict.lacks[0]) == (
        'connection to tcp:192.0.2.1:80 was refused: add "tcp:192.0.2.1:80" to network.egress'
    )


def test_a_kill_for_memory_is_a_lack_of_memory() -> None:
    killed = {"OOMKilled": True}
    verdict = check_profile.evaluate(life(), life(State=killed), PROFILE)
    assert verdict.lacks == (Lack("a process was killed for memory", "limits", "a larger memory"),)
    assert check_profile.evaluate(life(State=killed), life(State=killed), PROFILE).works


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (life(), life(running=False, exit_code=1, log="a\nlast"), "it exited with status 1: last"),
        (
            life(running=False),
            life(running=False, exit_code=2),
            "it exited with status 2 instead of 0",
        ),
        (
            life(State={"Health": {"Status": "healthy"}}),
            life(State={"Health": {"Status": "unhealthy"}}),
            "it is unhealthy",
        ),
        (
            life(commands=(CommandResult("true", 0, ""),)),
            life(commands=(CommandResult("true", 126, "x\nno such\n"),)),
            "true ended with status 126: no such",
        ),
    ],
)
def test_a_worse_result_is_broken(before: Life, after: Life, words: str) -> None:
    assert check_profile.evaluate(before, after, PROFILE).broken == (words,)
    assert check_profile.evaluate(after, after, PROFILE).works


def test_a_path_is_covered_by_itself_or_a_directory_above() -> None:
    assert check_profile.covers(("/etc/",), "/etc/x")
    assert check_profile.covers(("/etc",), "/etc/x")
    assert check_profile.covers(("/etc/x",), "/etc/x")
    assert not check_profile.covers(("/etc/x",), "/etc/xy")
    assert not check_profile.covers((), "/etc")


def test_a_twin_has_nothing_of_the_containers_own() -> None:
    body = {
        "Image": "x",
        "Labels": {"a": "b"},
        "Tty": True,
        "HostConfig": {
            "Binds": ["data:/data:ro", "/etc:/host:rw,z"],
            "Mounts": [
                {"Type": "volume", "Source": "named", "Target": "/named"},
                {"Type": "bind", "Source": "/srv", "Target": "/srv"},
                {"Type": "tmpfs", "Target": "/tmp"},
            ],
            "PortBindings": {"80/tcp": [{}]},
            "PublishAllPorts": True,
            "RestartPolicy": {"Name": "always"},
            "Memory": 5,
        },
        "NetworkingConfig": {"EndpointsConfig": {"own": {"Aliases": ["db"]}}},
    }
    made = check_profile.twin(body, {"/data": "copy1", "/named": "copy2"})
    host = made["HostConfig"]
    assert host["Binds"] == ["copy1:/data:ro", "/etc:/host:ro"]
    assert [mount.get("Source") for mount in host["Mounts"]] == ["copy2", "/srv", None]
    assert [mount.get("ReadOnly") for mount in host["Mounts"]] == [None, True, False]
    assert (host["PortBindings"], host["PublishAllPorts"]) == ({}, False)
    assert host["RestartPolicy"] == {"Name": "no"}
    assert host["Memory"] == 5
    assert made["Labels"] == {}
    assert made["NetworkingConfig"] == {"EndpointsConfig": {"own": {}}}

"""The attempts on layers behind the filter follow from the profile and the container."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
from pathlib import Path

from msgspec.structs import replace

from jaula.features.verify.escape import profile_layers, twin
from jaula.features.verify.escape.attempts import Attempt
from jaula.features.verify.escape.profile_layers import Facts, Program, Sink
from jaula.features.verify.escape.program import Answer
from jaula.features.verify.escape.results import evaluate_attempt
from jaula.spec.confinement_profile import Files, Limits, Network, Process, Profile

WEB = Profile(
    name="web",
    process=Process(user="33"),
    files=Files(execute=("/bin/web", "/opt/web/"), write=("/tmp/", "/data/"), volumes=("/data",)),
    network=Network(egress=("tcp:192.0.2.1:9", "udp:example.org:53")),
    limits=Limits(pids=10, memory=1 << 20),
    devices=("/dev/fuse", "/dev/host:/dev/kvm:rw"),
)
SINK = Sink(address="10.0.0.1", refused=1000, datagrams=1001, listed=1002)
BUSYBOX = Program("/bin/busybox", (1, 5))


def facts(**changes: object) -> Facts:
    return replace(Facts(mounts=("/data", "/other"), sink=SINK), **changes)


def names(group: str, profile: Profile = WEB, given: Facts | None = None) -> set[str]:
    made = profile_layers.refused(profile, given or facts())
    return {each.name for each in made if each.group == f"profile: {group}"}


def refused(made: Attempt, *values: int, status: int = 0) -> bool | None:
    answers = [Answer(value, reached=True, count=0) for value in values]
    missing = [Answer(0, reached=False, count=0)] * (len(made.steps) - len(values))
    result = evaluate_attempt(made, Answer(status, reached=True, count=0), [*answers, *missing])
    return result.refused


def attempt(group: str, name: str) -> Attempt:
    return next(
        each for each in profile_layers.refused(WEB, facts())
        if each.group == f"profile: {group}" and each.name == name
    )  # fmt: skip


def test_the_payload_ends_with_its_status(tmp_path: Path) -> None:
    path = tmp_path / "payload"
    path.write_bytes(profile_layers.PAYLOAD)
    path.chmod(0o755)
    assert subprocess.run([path], check=False).returncode == profile_layers.RAN


def test_a_program_that_was_executed_is_a_hole() -> None:
    made = attempt("execution outside of it", "a program in /data")
    assert refused(made, 3, 132, 0, status=profile_layers.RAN << 8) is False
    assert refused(made, 3, 132, 0, -errno.EACCES)
    assert refused(made, -errno.EROFS)
    assert refused(made, 3, 132, 0, -errno.ENOEXEC) is False


def test_copies_are_made_in_each_class_of_place() -> None:
    found = names("execution outside of it")
    assert {"a program in /", "a script in /tmp", "a program in /data"} <= found
    listed = replace(WEB, files=replace(WEB.files, execute=("/bin/web", "/data/")))
    assert "a program in /data" not in names("execution outside of it", listed)
    assert not names("execution outside of it", Profile(name="all"))


def test_programs_of_the_container_are_compared_by_inode_and_path() -> None:
    programs = (BUSYBOX, Program("/bin/web", (1, 6)), Program("/opt/web/run", (1, 7)))
    given = facts(programs=programs)
    assert names("programs not in it", WEB, given) == {"/bin/busybox"}
    linked = facts(programs=programs, identity=lambda path: Program("/bin/web", (1, 5)))
    (made,) = [each for each in profile_layers.refused(WEB, linked) if "programs not" in each.group]
    assert made.relaxed_by == "a hard link of a listed program"
    real = facts(programs=programs, identity=lambda path: BUSYBOX)  # a symbolic link is listed
    assert not names("programs not in it", WEB, real)
    assert not names("programs not in it", WEB, facts(programs=programs, checks_execution=False))


def test_listed_destinations_are_not_tried() -> None:
    assert names("connections not in it") == {
        "udp:192.0.2.1:9", "tcp:[2001:db8::1]:9", "udp:[2001:db8::1]:9",
        "tcp:10.0.0.1:1000", "udp:10.0.0.1:1001",
    }  # fmt: skip
    assert not names("connections not in it", replace(WEB, network=Network()))


def test_a_connection_without_an_answer_was_not_rejected() -> None:
    made = attempt("connections not in it", "tcp:10.0.0.1:1000")
    progress = -errno.EINPROGRESS
    assert refused(made, 3, progress, 1, -errno.ECONNREFUSED)
    assert refused(made, 3, progress, 0, -errno.EALREADY) is False
    assert refused(made, 3, progress, 1, 0) is False
    datagram = attempt("connections not in it", "udp:10.0.0.1:1001")
    assert refused(datagram, 3, 0, 1, 1, -errno.EHOSTUNREACH)
    assert refused(datagram, 3, 0, 1, 0, -errno.EAGAIN) is False


def test_ports_that_are_not_listed_are_bound_in_vain() -> None:
    served = replace(WEB, network=Network(listen=("tcp:4444", "udp:23")))
    found = names("ports not in it", served)
    assert {"tcp:23", "tcp:23 of IPv6", "tcp:65535"} <= found
    assert "tcp:4444" not in found
    made = {
        each.name for each in profile_layers.permitted(served, facts()) if "ports" in each.group
    }
    assert made == {"tcp:4444"}
    assert not names("ports not in it", served, facts(checks_bind=False))
    assert not names("ports not in it")  # without a list


def test_listed_devices_are_opened_and_others_are_not_listed() -> None:
    found = names("devices not in it")
    assert {"/dev/mem", "mem 1:1"} <= found
    assert not {"/dev/fuse", "/dev/kvm"} & found
    opened = {
        each.name for each in profile_layers.permitted(WEB, facts()) if "devices" in each.group
    }
    assert opened == {"/dev/fuse", "/dev/kvm"}
    watchdog = replace(WEB, devices=("/dev/watchdog0",))
    assert not [
        each for each in profile_layers.permitted(watchdog, facts()) if "devices" in each.group
    ]


def test_mounts_that_are_not_listed_are_tried_and_volumes_work() -> None:
    assert names("mounts not in it") == {"/other"}
    made = {each.name for each in profile_layers.permitted(WEB, facts()) if "volumes" in each.group}
    assert made == {"/data"}


def test_a_large_limit_of_memory_is_not_tried() -> None:
    assert "17 MB of memory" in names("limits")
    large = replace(WEB, limits=Limits(memory=profile_layers.MAX_MEMORY + 1))
    assert not [name for name in names("limits", large) if "of memory" in name]
    assert not names("limits", replace(WEB, limits=Limits()))


def test_the_user_and_no_new_privileges_are_compared() -> None:
    user = attempt("privileges", "getuid other than 33")
    assert refused(user, 33)
    assert refused(user, 0) is False
    gain = attempt("privileges", "gain by a set-user-ID program")
    assert refused(gain, 1)
    assert refused(gain, 0) is False


def test_the_second_twin_has_directories_in_place_of_mounts() -> None:
    inspect = {"Mounts": [{"Destination": "/data", "RW": False}, {"Destination": "/x", "RW": True}]}
    request = {
        "Volumes": {"/x": {}},
        "HostConfig": {"Binds": ["/p:/.probe:ro", "data:/data:ro"], "Mounts": [{"Target": "/x"}]},
    }
    made = profile_layers.with_directories(request, inspect, {"/data": "/new/0", "/x": "/new/1"})
    assert made["HostConfig"]["Binds"] == ["/p:/.probe:ro", "/new/0:/data:ro", "/new/1:/x:rw"]
    assert made["HostConfig"]["Mounts"] == []
    assert made["Volumes"] == {}


def test_the_filter_of_the_second_twin_has_the_calls_of_the_attempts() -> None:
    calls = profile_layers.calls(profile_layers.refused(WEB, facts()))
    assert {"connect", "execve", "mknodat", "prctl", "clone", "sendto"} <= set(calls)


def test_directories_of_the_second_twin_are_removed() -> None:
    with twin._directories(("/data", "/x")) as made:
        assert set(made) == {"/data", "/x"}
        assert all(os.stat(path).st_mode & 0o7777 == 0o1777 for path in made.values())
        Path(made["/data"], "file").write_text("")
    assert not any(map(os.path.exists, made.values()))


def test_a_datagram_is_received_from_the_sink() -> None:
    with twin._sink("127.0.0.1") as opened:
        assert opened is not None
        sink, datagrams = opened
        assert not twin._received(datagrams)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"x", (sink.address, sink.datagrams))
        assert twin._received(datagrams)
        socket.create_connection((sink.address, sink.listed)).close()
    with twin._sink("192.0.2.1") as absent:  # not an address of this host
        assert absent is None
    with twin._sink("") as absent:
        assert absent is None

"""The escape test program, and the evaluation of its answers."""

from __future__ import annotations

import errno
import os
import platform
import struct
import subprocess
from pathlib import Path

import pytest

from jaula.features.verify.escape import attempts, lsm_labels, network, results, twin
from jaula.features.verify.escape.attempts import Attempt, call
from jaula.features.verify.escape.limits import (
    MAX_BURN,
    RESOURCES,
    Limits,
    burn_plan,
    limit_attempts,
)
from jaula.features.verify.escape.network import (
    NetworkTargets,
    inet6_address,
    inet_address,
    unix_address,
)
from jaula.features.verify.escape.program import (
    BEGIN,
    BURN,
    CALL,
    CALL32,
    THREADS,
    Answer,
    Entry,
    build,
    read,
)
from jaula.features.verify.escape.select import tmpfs_size
from jaula.features.verify.model.result import Verdict
from jaula.spec.container_copy import readonly
from jaula.spec.runtime_spec import Mount

NO_FLAGS = {"oom": None, "cgroup": None, "raising": None}
EVERY = Limits(
    pids=10,
    memory=1 << 20,
    cpu=(50_000, 100_000),
    outside=frozenset({1, 70}),
    processors=2,
    spaces={"/dev/shm": 64 << 20},
    rlimits=dict.fromkeys(RESOURCES, 1 << 20),
)
x86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="the program is for x86_64")


def run(tmp_path: Path, *entries: Entry) -> list[Answer]:
    path = tmp_path / "probe"
    path.write_bytes(build(entries))
    path.chmod(0o700)
    done = subprocess.run([path], capture_output=True, text=True, timeout=20, check=True)
    assert done.stderr == ""
    return read(done.stdout, len(entries))


# -- the program -----------------------------------------------------------------------------


@x86
def test_calls_of_both_abis_get_their_arguments(tmp_path: Path) -> None:
    (tmp_path / "here").write_text("x")
    here = os.fsencode(tmp_path / "here") + b"\0"
    result = run(
        tmp_path,
        Entry(BEGIN),
        call("open", here, 0),
        call("open", here + b"no\0", 0),
        call("lseek", 3, 5, 0),
        call("lseek", 3, 9, 0, abi="i386"),
        call("open", b"/nowhere\0", 0, abi="i386"),
        call("mmap", 0, 4096, 3, 0x22, -1, 0),
        call("preadv", 99, 0, 0, 0, 0, 0),
    )
    assert [answer.value for answer in result[:2]] == [0, 3]
    assert result[2].value == 4  # the text ends at its zero byte
    assert result[3].value == 5
    assert result[4].value in (9, -errno.ENOSYS)
    assert result[5].value in (-errno.ENOENT, -errno.ENOSYS)
    assert result[6].value > 4096
    assert result[7].value == -errno.EBADF


@x86
def test_a_group_is_a_process_of_its_own(tmp_path: Path) -> None:
    result = run(
        tmp_path,
        Entry(BEGIN),
        call("getpid"),
        call("exit_group", 7),
        call("getpid"),
        Entry(BEGIN),
        call("getpid"),
        call("kill", 0, 0),
        call("setitimer", 0, struct.pack("4q", 0, 0, 0, 10_000), 0),
        call("pause"),
    )
    assert result[0].value >> 8 == 7
    assert [answer.reached for answer in result] == [True, True, False, False, *[True] * 4, False]
    assert result[1].value != result[5].value
    assert result[4].value & 0x7F == 14  # SIGALRM


@x86
def test_threads_are_counted_and_end_with_their_process(tmp_path: Path) -> None:
    result = run(tmp_path, Entry(BEGIN), Entry(THREADS, 0, (20,)), call("getpid"))
    assert (result[1].value, result[1].count) == (0, 20)


@x86
def test_cpu_time_is_used_and_reported(tmp_path: Path) -> None:
    wall = 200_000_000
    result = run(
        tmp_path,
        Entry(BEGIN),
        Entry(BURN, 0, (0, wall)),
        Entry(BEGIN),
        Entry(BURN, 0, (3, wall)),
        call("getpid"),
    )
    # A busy machine gives less than was asked for, and nothing gives more.
    assert 1_000_000 < result[1].value <= wall * 1.5
    assert 1_000_000 < result[3].value <= wall * 1.5 * (os.cpu_count() or 1)
    assert result[4].value > 1


@x86
def test_the_program_runs_without_an_executable_stack_or_writable_code(tmp_path: Path) -> None:
    path = tmp_path / "probe"
    path.write_bytes(build([Entry(BEGIN), call("pause")]))
    path.chmod(0o700)
    with subprocess.Popen([path], stdout=subprocess.DEVNULL) as process:
        maps = ""
        while "[stack]" not in maps:
            maps = Path(f"/proc/{process.pid}/maps").read_text()
        process.kill()
    own = [line.split()[1] for line in maps.splitlines() if "probe" in line or "stack" in line]
    assert own and not [mode for mode in own if "w" in mode and "x" in mode]


@pytest.mark.parametrize("text", ["", "abc", "z" * 64, "a" * 63, "a" * 65])
def test_an_incomplete_answer_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="instead of 2 answers"):
        read(text, 2)


# -- evaluation ------------------------------------------------------------------------------

DONE = Answer(0, True, 0)


def attempt(**values: object) -> Attempt:
    passed: dict[str, object] = {"group": "g", "name": "n", "steps": (Entry(CALL, 1),)}
    return Attempt(**(passed | values))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("status", "value", "refused"),
    [
        (DONE, -errno.EPERM, True),
        (DONE, -errno.ENOSYS, True),
        (DONE, -errno.EINVAL, False),  # the kernel looked at the arguments: it was let through
        (DONE, 0, False),
        (DONE, 7, False),
        (Answer(attempts.SIGSYS, True, 0), 0, True),
        (Answer(attempts.SIGALRM, True, 0), 0, None),
        (Answer(-errno.EAGAIN, False, 0), 0, None),
    ],
)
def test_a_call_is_evaluated_by_its_result(
    status: Answer, value: int, refused: bool | None
) -> None:
    reached = status is DONE
    result = results.evaluate_attempt(attempt(), status, [Answer(value, reached, 0)])
    assert result.refused is refused


def test_an_unexpected_signal_means_not_tried() -> None:
    killed = Answer(9, True, 0)
    result = results.evaluate_attempt(attempt(), killed, [Answer(0, False, 0)])
    assert result.refused is None
    allowed = attempt(signals=frozenset({9}))
    assert results.evaluate_attempt(allowed, killed, [Answer(0, False, 0)]).refused is True


def test_the_first_failing_call_up_to_the_deciding_one_counts() -> None:
    three = attempt(steps=(Entry(CALL, 1),) * 3, deciding=1)
    made, opened, removed = DONE, Answer(-errno.EACCES, True, 0), Answer(-errno.EBUSY, True, 0)
    assert results.evaluate_attempt(three, DONE, [made, opened, removed]).refused is True
    assert results.evaluate_attempt(three, DONE, [opened, made, removed]).refused is True
    assert results.evaluate_attempt(three, DONE, [made, made, opened]).refused is False


def test_a_pending_connection_is_not_a_refusal() -> None:
    knock = network.tcp_attempt("n", (192, 0, 2, 1), 9, None)
    progress, ready = Answer(-errno.EINPROGRESS, True, 0), Answer(1, True, 0)
    socket, silent = Answer(3, True, 0), Answer(0, True, 0)

    def refused(*steps: Answer) -> bool | None:
        return results.evaluate_attempt(knock, DONE, steps).refused

    assert refused(socket, progress, silent, Answer(-errno.EALREADY, True, 0)) is True
    assert refused(socket, progress, ready, Answer(-errno.EHOSTUNREACH, True, 0)) is True
    assert refused(socket, Answer(-errno.ENETUNREACH, True, 0), silent, silent) is True
    # a host that refuses the port was reached, like one that accepts it
    assert refused(socket, progress, ready, Answer(-errno.ECONNREFUSED, True, 0)) is False
    assert refused(socket, progress, ready, Answer(0, True, 0)) is False


def test_an_empty_file_is_masked() -> None:
    reading = attempt(steps=(Entry(CALL, 2), Entry(CALL, 0)), max_value=0)
    assert (
        results.evaluate_attempt(reading, DONE, [Answer(3, True, 0), Answer(0, True, 0)]).refused
        is True
    )
    assert (
        results.evaluate_attempt(reading, DONE, [Answer(3, True, 0), Answer(1, True, 0)]).refused
        is False
    )


def test_rows_fail_without_a_flag_and_name_the_flag_otherwise() -> None:
    def verdict(*pairs: tuple[bool | None, str | None]) -> tuple[Verdict, str]:
        result = [
            results.AttemptResult(attempt(name=f"n{n}", relaxed_by=flag), refused, "it worked")
            for n, (refused, flag) in enumerate(pairs)
        ]
        (row,) = results.rows(result)
        return row.verdict, row.requested + row.effective

    assert verdict((True, None), (True, "--x"))[0] is Verdict.HOLDS
    assert verdict((True, None), (False, None))[0] is Verdict.FAILS
    assert verdict((False, "--x"), (False, None), (None, None))[0] is Verdict.FAILS
    assert verdict((False, "--x"), (None, None))[0] is Verdict.UNKNOWN
    relaxed, reported = verdict((False, "--x"), (True, None))
    assert relaxed is Verdict.RELAXED
    assert "(--x)" in reported and "n0 (it worked)" in reported


# -- attempts and the twin ---------------------------------------------------------------------


@x86
def test_every_attempt_has_a_name_of_its_own_and_fits_the_program() -> None:
    tries = [
        *attempts.calls(None), *attempts.families(None), *attempts.terminals(None),
        *attempts.capabilities(None), *attempts.masked_reads(["/proc/keys"]),
        *attempts.writes(["/proc/sys"], None), *attempts.devices(None),
        *network.network(b"\0x", 1, NetworkTargets(alone=True)),
        network.neighbour("192.0.2.9", None),
        *attempts.host_objects("/x", 1, 1, pids=None, ipc=None),
        *lsm_labels.foreign_files("/x", None),
        *lsm_labels.selinux("a_u:b_r:c_t:s0", None), *lsm_labels.apparmor(None),
        *limit_attempts(EVERY, **NO_FLAGS),
    ]  # fmt: skip
    names = [(each.group, each.name) for each in tries]
    assert len(set(names)) == len(names)
    entries = attempts.table(tries)
    assert all(len(entry.arguments) <= 6 for entry in entries)
    assert {entry.operation for entry in entries} == {BEGIN, CALL, CALL32, THREADS, BURN}
    assert len(build(entries)) < 1 << 18


def test_no_attempt_changes_the_host() -> None:
    """Each of these calls would change the host if allowed; none has such arguments."""
    passed = dict(attempts.CALLS)
    assert passed["reboot"] == (0, 0, 0, 0), "the magic numbers are wrong on purpose"
    assert passed["kexec_load"][3] == 0xFF00, "no such flag"
    assert passed["acct"][0] not in (0, b"\0"), "a null pointer switches accounting off"
    assert passed["sethostname"][1] == -1
    assert not {"settimeofday", "clock_settime", "stime", "vhangup"} & set(passed)
    for path in attempts.WRITES:
        (step,) = attempts.writes([], None)[attempts.WRITES.index(path)].steps
        assert step.number == attempts.call("open", b"", 0).number, "opened, never written"


def test_addresses_have_the_kernel_s_layout() -> None:
    assert unix_address(b"\0x") == b"\x01\0\0x"
    assert inet_address((127, 0, 0, 1), 0x1234) == b"\x02\0\x12\x34\x7f\0\0\x01" + bytes(8)
    assert len(inet6_address(bytes(16), 9)) == 28


@pytest.mark.parametrize(
    ("quota", "period", "processors", "threads"),
    [(50_000, 100_000, 2, 2), (150_000, 100_000, 2, 2), (10_000, 100_000, 1, 1),
     (1_100_000, 1_000_000, 8, 4),
     (200_000, 100_000, 2, None), (390_000, 100_000, 4, None), (1_000, 1_000, 1, None)],
)  # fmt: skip
def test_a_quota_is_tried_if_the_cpus_allow_more(
    quota: int, period: int, processors: int, threads: int | None
) -> None:
    result = burn_plan(quota, period, processors)
    if threads is None:
        assert result is None
        return
    assert result is not None
    assert result[0] == threads and result[1] <= MAX_BURN
    assert quota / period * result[1] < result[2] < threads * result[1], (
        "between limit and no limit"
    )


def test_an_absent_limit_is_not_tried() -> None:
    names = [each.name for each in limit_attempts(Limits(), **NO_FLAGS)]
    assert all(name.startswith("raising by /sys/fs/cgroup/") for name in names)
    unlimited = Limits(rlimits={"RLIMIT_CORE": (1 << 64) - 1, "RLIMIT_NEW": 5})
    assert [each.name for each in limit_attempts(unlimited, **NO_FLAGS)] == names


def test_every_resource_limit_is_tried_by_raising_it() -> None:
    names = {each.name for each in limit_attempts(EVERY, **NO_FLAGS)}
    assert {f"raising {name.removeprefix('RLIMIT_').lower()}" for name in RESOURCES} <= names
    assert {f"more than {1 << 20} {each}" for each in ("nofile", "fsize", "as", "memlock")} <= names


@pytest.mark.parametrize(
    ("kind", "options", "size"),
    [
        ("tmpfs", ("nosuid", "size=65536k"), 64 << 20),
        ("tmpfs", ("size=1G",), 1 << 30),
        ("tmpfs", ("size=10", "size=4096"), 4096),
        ("tmpfs", ("mode=755",), 0),
        ("tmpfs", ("size=50%",), 0),
        ("tmpfs", ("size=",), 0),
        ("bind", ("size=5k",), 0),
    ],
)
def test_the_size_of_a_tmpfs_is_parsed(kind: str, options: tuple[str, ...], size: int) -> None:
    assert tmpfs_size(Mount(destination="/x", type=kind, options=options)) == size


@pytest.mark.parametrize(
    ("bind", "expected"),
    [
        ("/a:/b", "/a:/b:ro"),
        ("/a:/b:rw", "/a:/b:ro"),
        ("/a:/b:ro", "/a:/b:ro"),
        ("name:/b:z,rshared", "name:/b:ro,rshared"),
    ],
)
def test_a_twins_binds_are_read_only(bind: str, expected: str) -> None:
    assert readonly(bind) == expected


def test_a_twin_has_no_side_effects_on_others() -> None:
    inspect = {
        "Image": "sha256:1",
        "Config": {"User": "7", "Env": ["A=b"], "Tty": True, "OpenStdin": True, "Cmd": ["x"],
                   "ExposedPorts": {"80/tcp": {}}, "Healthcheck": {"Test": ["x"]}},
        "HostConfig": {"Binds": ["/a:/b"], "Mounts": [{"Type": "volume", "Source": "v"}],
                       "VolumesFrom": ["c", "d:rw"], "PortBindings": {"80/tcp": [{}]},
                       "RestartPolicy": {"Name": "always"}, "AutoRemove": True, "Memory": 5,
                       "CapAdd": ["sys_time"], "LogConfig": {"Type": "none"}},
    }  # fmt: skip
    body = twin.body(inspect, "/p")
    assert (body["User"], body["Env"], body["Entrypoint"]) == ("7", ["A=b"], [twin.INSIDE])
    assert not body["Tty"] and not body["OpenStdin"]
    assert "ExposedPorts" not in body and "Healthcheck" not in body
    host = body["HostConfig"]
    assert host["Binds"][:1] == ["/a:/b:ro"] and host["Binds"][1].startswith("/p:")
    assert host["Mounts"] == [{"Type": "volume", "Source": "v", "ReadOnly": True}]
    assert host["VolumesFrom"] == ["c:ro", "d:ro"]
    assert host["PortBindings"] == {} and host["RestartPolicy"] == {"Name": "no"}
    assert (host["Memory"], host["CapAdd"], host["AutoRemove"]) == (5, ["sys_time"], False)
    assert inspect["HostConfig"]["Memory"] == 5, "the container's own document is left alone"

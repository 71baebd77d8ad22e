"""config-linux.md "Seccomp": filters by the kernel's result for a call, and by its listing."""

from __future__ import annotations

import errno
import signal
from pathlib import Path

import pytest

from harness.containers import status
from harness.private_runtime import Config, PrivateRuntime
from harness.seccomp_agent import Agent

ALLOW = "SCMP_ACT_ALLOW"
MKDIR = ["mkdir", "mkdirat"]


def rule(names: list[str], action: str, **more: object) -> Config:
    return {"names": names, "action": action, **more}


def changes(
    runtime: PrivateRuntime, *rules: Config, default: str = ALLOW, **more: object
) -> Config:
    """A filter in place of the template's; the root is writable at /tmp."""
    requested = {"defaultAction": default, "syscalls": list(rules), **more}
    gone = dict.fromkeys(runtime.config["linux"]["seccomp"].keys() - requested.keys())
    mount = {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": []}
    return {
        "linux": {"seccomp": {**gone, **requested}},
        "mounts": [*runtime.config["mounts"], mount],
    }


@pytest.mark.parametrize("no_new_privileges", [True, False])
@pytest.mark.parametrize(
    ("number", "text"),
    [
        (None, "Operation not permitted"),
        (errno.ENOSYS, "Function not implemented"),
        (errno.EXDEV, "link"),
    ],
)
def test_a_call_that_is_refused_fails_with_the_rule_s_errno(
    runtime: PrivateRuntime, number: int | None, text: str, no_new_privileges: bool
) -> None:
    more = {} if number is None else {"errnoRet": number}
    config = changes(runtime, rule(MKDIR, "SCMP_ACT_ERRNO", **more))
    config["process"] = {"noNewPrivileges": no_new_privileges}
    printed = runtime.bundle(config, script="mkdir /tmp/x 2>&1; echo fine").printed()
    assert text in printed
    assert printed.endswith("fine\n")


def test_the_default_action_has_its_errno_too(runtime: PrivateRuntime) -> None:
    profile = runtime.config["linux"]["seccomp"]
    rules = [
        {**entry, "names": [name for name in entry["names"] if name not in MKDIR]}
        for entry in profile["syscalls"]
    ]
    rules = [entry for entry in rules if entry["names"]]
    config = changes(
        runtime,
        *rules,
        default="SCMP_ACT_ERRNO",
        defaultErrnoRet=errno.EUCLEAN,
        architectures=profile.get("architectures", []),
    )
    assert (
        "Structure needs cleaning"
        in runtime.bundle(config, script="mkdir /tmp/x 2>&1").run().stdout
    )


@pytest.mark.parametrize(
    ("action", "signum"),
    [
        ("SCMP_ACT_KILL", signal.SIGSYS),
        ("SCMP_ACT_KILL_PROCESS", signal.SIGSYS),
        ("SCMP_ACT_KILL_THREAD", signal.SIGSYS),
        ("SCMP_ACT_TRAP", signal.SIGSYS),
    ],
)
def test_a_call_that_kills_kills(runtime: PrivateRuntime, action: str, signum: int) -> None:
    config = changes(runtime, rule(MKDIR, action))
    assert runtime.bundle(config, script="exec mkdir /tmp/x").run().returncode == 128 + signum


@pytest.mark.parametrize("action", ["SCMP_ACT_LOG", ALLOW])
def test_a_logged_call_is_executed(runtime: PrivateRuntime, action: str) -> None:
    config = changes(runtime, rule(MKDIR, action))
    assert runtime.bundle(config, script="mkdir /tmp/x && ls /tmp").printed() == "x\n"


@pytest.mark.parametrize(
    ("op", "value", "two", "refused"),
    [
        ("EQ", 0o700, 0, [0o700]),
        ("NE", 0o700, 0, [0o711, 0o755]),
        ("MASKED_EQ", 0o070, 0o050, [0o755]),
        ("GE", 0o711, 0, [0o711, 0o755]),
        ("LT", 0o711, 0, [0o700]),
    ],
)
def test_arguments_are_compared(
    runtime: PrivateRuntime, op: str, value: int, two: int, refused: list[int]
) -> None:
    argument = {"index": 1, "value": value, "valueTwo": two, "op": f"SCMP_CMP_{op}"}
    config = changes(runtime, rule(["chmod"], "SCMP_ACT_ERRNO", args=[argument]))
    script = "touch /tmp/x; for m in 700 711 755; do chmod $m /tmp/x 2>/dev/null || echo $m; done"
    printed = runtime.bundle(config, script=script).printed().split()
    assert [int(mode, 8) for mode in printed] == refused


@pytest.mark.parametrize(
    "flags",
    [
        [],
        ["SECCOMP_FILTER_FLAG_LOG"],
        ["SECCOMP_FILTER_FLAG_SPEC_ALLOW"],
        ["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG"],
    ],
)
def test_flags_are_accepted(runtime: PrivateRuntime, flags: list[str]) -> None:
    config = changes(runtime, rule(MKDIR, "SCMP_ACT_ERRNO"), flags=flags)
    with runtime.started(config) as bundle:
        facts = status(bundle.pid)
        assert (facts["Seccomp"], facts["Seccomp_filters"]) == ("2", "1")
        speculation = facts["Speculation_Store_Bypass"]
        if "SECCOMP_FILTER_FLAG_SPEC_ALLOW" in flags:
            assert "force mitigated" not in speculation
        assert bundle.exec("mkdir", "/tmp/x").returncode == 1


def test_without_the_section_no_filter_is_loaded(runtime: PrivateRuntime) -> None:
    with runtime.started({"linux": {"seccomp": None}}) as bundle:
        assert status(bundle.pid)["Seccomp"] == "0"


RUNTIME_CALLS = [
    *("close_range", "openat", "openat2", "prctl", "capset", "setgroups", "setresuid", "setresgid"),
    *("umask", "chdir", "getcwd", "rt_sigaction", "rt_sigprocmask", "pipe2", "sendto", "sendmsg"),
    *("stat", "newfstatat", "access", "faccessat", "faccessat2", "clone", "clone3"),
]
"""Calls of the runtime between a new process and its program; ``echo`` makes few of them."""


@pytest.mark.parametrize("no_new_privileges", [True, False])
@pytest.mark.parametrize("hooks", [False, True])
def test_only_execve_comes_after_the_filter(
    runtime: PrivateRuntime, no_new_privileges: bool, hooks: bool
) -> None:
    config = changes(runtime, rule(RUNTIME_CALLS, "SCMP_ACT_ERRNO"))
    # busybox asks for its name with prctl before it runs a command, and continues without it
    config["process"] = {"noNewPrivileges": no_new_privileges, "args": ["echo", "fine"]}
    if hooks:
        config["hooks"] = {"startContainer": [{"path": "/bin/echo", "args": ["echo"]}]}
    assert runtime.bundle(config).printed() == "fine\n"


@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_a_filter_that_refuses_execve_is_reported(
    runtime: PrivateRuntime, no_new_privileges: bool
) -> None:
    config = changes(runtime, rule(["execve"], "SCMP_ACT_ERRNO"))
    config["process"] = {"noNewPrivileges": no_new_privileges}
    done = runtime.bundle(config).run()
    assert done.returncode == 1
    assert 'exec: \\"sleep\\": operation not permitted' in done.stderr


@pytest.mark.parametrize(
    "rules",
    [
        [rule(["execve"], "SCMP_ACT_KILL_PROCESS")],
        [rule(["execve", "write"], "SCMP_ACT_ERRNO")],
        [rule(["execve", "write", "exit_group", "exit"], "SCMP_ACT_ERRNO")],
    ],
)
def test_a_program_that_its_filter_kills_before_it_begins_is_an_error(
    runtime: PrivateRuntime, rules: list[Config]
) -> None:
    text = "the program was killed by its own system call filter before it began"
    config = changes(runtime, *rules)
    done = runtime.bundle(config).run()
    assert (done.returncode, text in done.stderr) == (1, True)
    bundle = runtime.bundle(config)
    try:
        bundle.create()
        done = bundle.start()
        assert (done.returncode, text in done.stderr) == (1, True)
    finally:
        bundle.delete("--force")


@pytest.mark.parametrize("uid", [0, 1000])
@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_loading_a_filter_leaves_no_capability(
    runtime: PrivateRuntime, no_new_privileges: bool, uid: int
) -> None:
    config = changes(runtime, rule(MKDIR, "SCMP_ACT_ERRNO"))
    config["process"] = {"noNewPrivileges": no_new_privileges, "user": {"uid": uid}}
    with runtime.started(config) as bundle:
        facts = status(bundle.pid)
        own = 0 if uid else 1 << 5 | 1 << 10 | 1 << 29
        assert int(facts["CapEff"], 16) == int(facts["CapPrm"], 16) == own
        assert int(facts["CapBnd"], 16) == 1 << 5 | 1 << 10 | 1 << 29
        printed = bundle.inside("grep -E 'Cap(Prm|Eff)' /proc/self/status | cut -f2")
        assert {int(line, 16) for line in printed.split()} == {own}


@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_start_container_hooks_run_confined(
    runtime: PrivateRuntime, no_new_privileges: bool
) -> None:
    config = changes(runtime, rule(MKDIR, "SCMP_ACT_ERRNO"))
    config["process"] = {"noNewPrivileges": no_new_privileges, "args": ["cat", "/tmp/facts"]}
    script = "mkdir /tmp/x 2>/tmp/facts; grep -E '^(NoNewPrivs|Seccomp):' /proc/self/status"
    config["hooks"] = {
        "startContainer": [
            {
                "path": "/bin/sh",
                "args": ["sh", "-c", f"{script} >> /tmp/facts"],
                "env": ["PATH=/bin"],
            }
        ]
    }
    printed = runtime.bundle(config).printed()
    assert "can't create directory '/tmp/x': Operation not permitted" in printed
    assert f"NoNewPrivs:\t{int(no_new_privileges)}\nSeccomp:\t2\n" in printed


def test_a_filter_applies_to_later_programs(runtime: PrivateRuntime) -> None:
    with runtime.started(changes(runtime, rule(MKDIR, "SCMP_ACT_ERRNO"))) as bundle:
        done = bundle.exec("mkdir", "/tmp/x")
        assert (done.returncode, "not permitted" in done.stderr) == (1, True)


@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_an_agent_receives_the_listener_and_answers(
    runtime: PrivateRuntime, tmp_path: Path, no_new_privileges: bool
) -> None:
    agent = Agent(tmp_path / "agent", errno.EDQUOT)
    config = changes(
        runtime,
        rule(MKDIR, "SCMP_ACT_NOTIFY"),
        listenerPath=str(tmp_path / "agent"),
        listenerMetadata="for the agent",
    )
    config |= {"annotations": {"a": "b"}, "process": {"noNewPrivileges": no_new_privileges}}
    bundle = runtime.bundle(config, script="mkdir /tmp/x 2>&1; mkdir /tmp/y 2>&1; read line; true")
    try:
        bundle.create()
        assert not agent.documents  # the filter comes last
        assert bundle.start().returncode == 0
        bundle.ended()
        assert "can't create directory '/tmp/x': Disk quota exceeded" in bundle.out.read_text()
        (document,) = agent.documents
        assert document["ociVersion"] == bundle.config["ociVersion"]
        assert document["fds"] == ["seccompFd"]
        assert document["metadata"] == "for the agent"
        assert document["pid"] == bundle.pid
        state = document["state"]
        assert (state["id"], state["bundle"]) == (bundle.id, str(bundle.path))
        assert state["annotations"] == {"a": "b"}
        assert len(agent.calls) == 2
        assert all(pid > 0 for pid, _ in agent.calls)
    finally:
        bundle.delete("--force")
        agent.close()


def test_an_agent_may_let_a_call_seem_to_succeed(runtime: PrivateRuntime, tmp_path: Path) -> None:
    agent = Agent(tmp_path / "agent", 0)
    path = str(tmp_path / "agent")
    config = changes(runtime, rule(MKDIR, "SCMP_ACT_NOTIFY"), listenerPath=path)
    try:
        printed = runtime.bundle(config, script="mkdir /tmp/x && ls /tmp | wc -l").printed()
    finally:
        agent.close()
    assert printed == "0\n"


@pytest.mark.parametrize(
    ("requested", "text"),
    [
        ({"defaultAction": "SCMP_ACT_MAYBE"}, "linux.seccomp.defaultAction: 'SCMP_ACT_MAYBE'"),
        ({"defaultAction": "SCMP_ACT_NOTIFY"}, "linux.seccomp.defaultAction: "),
        ({"flags": ["NEW_LISTENER"]}, "linux.seccomp.flags[0]: 'NEW_LISTENER' must be one of"),
        ({"architectures": ["SCMP_ARCH_Z80"]}, "linux.seccomp.architectures[0]: "),
        ({"syscalls": [rule([], ALLOW)]}, "linux.seccomp.syscalls[0].names: is empty"),
        ({"syscalls": [rule(MKDIR, "SCMP_ACT_NOTIFY")]}, "linux.seccomp.listenerPath: is missing"),
        ({"listenerMetadata": "x"}, "linux.seccomp.listenerMetadata: requires"),
        (
            {"syscalls": [rule(MKDIR, "SCMP_ACT_NOTIFY")], "listenerPath": "/nonexistent"},
            "/nonexistent",
        ),
        (
            {
                "syscalls": [
                    rule(MKDIR, ALLOW, args=[{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}])
                ]
            },
            "args[0].index: 6 is not between 0 and 5",
        ),
    ],
)
def test_an_invalid_filter_is_refused_in_one_line(
    runtime: PrivateRuntime, requested: Config, text: str
) -> None:
    base: Config = dict.fromkeys(runtime.config["linux"]["seccomp"]) | {"defaultAction": ALLOW}
    assert text in runtime.bundle({"linux": {"seccomp": base | requested}}).refused()


def test_an_unknown_system_call_name_is_ignored(runtime: PrivateRuntime) -> None:
    config = changes(runtime, rule(["mkdir", "no_such_call"], "SCMP_ACT_ERRNO"))
    assert runtime.bundle(config, script="mkdir /tmp/x 2>/dev/null || echo refused").printed() == (
        "refused\n"
    )


def test_the_default_filter_is_in_force(runtime: PrivateRuntime) -> None:
    with runtime.started() as bundle:
        facts = status(bundle.pid)
        assert facts["Seccomp"] == "2"
        assert bundle.exec("unshare", "-U", "true").returncode != 0

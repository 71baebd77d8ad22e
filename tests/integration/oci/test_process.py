"""config.md "Process": each field, as the process or the kernel reports it."""

from __future__ import annotations

import os
import re
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from harness.containers import status
from harness.private_runtime import Config, PrivateRuntime

ROOT_CAPS = ["CAP_KILL", "CAP_SETUID", "CAP_CHOWN"]  # bits 5, 7, 0
MASK = f"{1 << 5 | 1 << 7 | 1 << 0:016x}"
WITH_NICE = f"{1 << 5 | 1 << 7 | 1 << 0 | 1 << 23:016x}"
NONE = "0" * 16
CAP_LINES = "grep ^Cap /proc/self/status | tr -d '\\n\\t'"

# name, what process is changed to, script, what it prints
TABLE: list[tuple[str, Config, str, str]] = [
    ("cwd", {"cwd": "/tmp"}, "pwd; readlink /proc/self/cwd", "/tmp\n/tmp\n"),
    (
        "args",
        {"args": ["sh", "-c", "tr '\\0' '|' < /proc/$$/cmdline; true", "name", "two words", ""]},
        "",
        "sh|-c|tr '\\0' '|' < /proc/$$/cmdline; true|name|two words||",
    ),
    (
        "env",
        {"env": ["PATH=/bin", "A=b=c", "EMPTY=", "LANG=ü", "HOME=/h"]},
        "tr '\\0' '\\n' < /proc/$$/environ | sort",
        "A=b=c\nEMPTY=\nHOME=/h\nLANG=ü\nPATH=/bin\n",
    ),
    (
        "env: a home from /etc/passwd or /",
        {"env": ["PATH=/bin"]},
        "echo $HOME",
        "/\n",
    ),
    ("user.uid, user.gid", {"user": {"uid": 33, "gid": 44}}, "id -u; id -g", "33\n44\n"),
    (
        "user.additionalGids",
        {"user": {"uid": 33, "gid": 44, "additionalGids": [7, 900]}},
        "grep Groups /proc/self/status",
        "Groups:\t7 900 \n",
    ),
    (
        "no additional groups of the caller's",
        {"user": {"uid": 33, "gid": 44}},
        "grep Groups /proc/self/status",
        "Groups:\t \n",
    ),
    (
        "user.umask",
        {"user": {"uid": 0, "gid": 0, "umask": 0o27}},
        "umask; grep Umask /proc/self/status",
        "0027\nUmask:\t0027\n",
    ),
    ("user.umask by default", {}, "umask", "0022\n"),
    (
        "capabilities of root without new privileges",
        {
            "noNewPrivileges": True,
            "capabilities": {
                "bounding": [*ROOT_CAPS, "CAP_SYS_NICE"],
                "effective": ROOT_CAPS,
                "permitted": ROOT_CAPS,
            },
        },
        CAP_LINES,
        f"CapInh:{NONE}CapPrm:{MASK}CapEff:{MASK}CapBnd:{WITH_NICE}CapAmb:{NONE}",
    ),
    (
        "capabilities of root, whom execve(2) gives all of the bounding set",
        {
            "noNewPrivileges": False,
            "capabilities": {
                "bounding": [*ROOT_CAPS, "CAP_SYS_NICE"],
                "effective": ROOT_CAPS,
                "permitted": ROOT_CAPS,
            },
        },
        CAP_LINES,
        f"CapInh:{NONE}CapPrm:{WITH_NICE}CapEff:{WITH_NICE}CapBnd:{WITH_NICE}CapAmb:{NONE}",
    ),
    (
        "capabilities.ambient of another user",
        {
            "user": {"uid": 33, "gid": 44},
            "capabilities": {
                "bounding": ROOT_CAPS,
                "effective": ROOT_CAPS,
                "permitted": ROOT_CAPS,
                "inheritable": ROOT_CAPS,
                "ambient": ROOT_CAPS,
            },
        },
        CAP_LINES,
        f"CapInh:{MASK}CapPrm:{MASK}CapEff:{MASK}CapBnd:{MASK}CapAmb:{MASK}",
    ),
    (
        "capabilities.inheritable alone",
        {
            "user": {"uid": 33, "gid": 44},
            "capabilities": {
                "bounding": ROOT_CAPS,
                "effective": [],
                "permitted": ROOT_CAPS,
                "inheritable": ["CAP_KILL"],
            },
        },
        CAP_LINES,
        f"CapInh:{1 << 5:016x}CapPrm:{NONE}CapEff:{NONE}CapBnd:{MASK}CapAmb:{NONE}",
    ),
    (
        "no capabilities",
        {"capabilities": None},
        CAP_LINES,
        f"CapInh:{NONE}CapPrm:{NONE}CapEff:{NONE}CapBnd:{NONE}CapAmb:{NONE}",
    ),
    (
        "noNewPrivileges",
        {"noNewPrivileges": True},
        "grep NoNew /proc/self/status",
        "NoNewPrivs:\t1\n",
    ),
    (
        "noNewPrivileges false",
        {"noNewPrivileges": False},
        "grep NoNew /proc/self/status",
        "NoNewPrivs:\t0\n",
    ),
    ("oomScoreAdj", {"oomScoreAdj": 321}, "cat /proc/self/oom_score_adj", "321\n"),
    (
        "scheduler SCHED_BATCH",
        {"scheduler": {"policy": "SCHED_BATCH", "nice": 7}},
        "cut -d' ' -f19,41 /proc/self/stat",
        "7 3\n",
    ),
    (
        "scheduler SCHED_IDLE",
        {"scheduler": {"policy": "SCHED_IDLE"}},
        "cut -d' ' -f41 /proc/self/stat",
        "5\n",
    ),
    (
        "scheduler SCHED_OTHER",
        {"scheduler": {"policy": "SCHED_OTHER", "nice": 3}},
        "cut -d' ' -f19,41 /proc/self/stat",
        "3 0\n",
    ),
    (
        "scheduler.flags",
        {"scheduler": {"policy": "SCHED_OTHER", "nice": -5, "flags": ["SCHED_FLAG_RESET_ON_FORK"]}},
        "cut -d' ' -f19 /proc/$$/stat; cut -d' ' -f19 /proc/self/stat; true",
        "-5\n0\n",
    ),
    (
        "ioPriority",
        {"ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 2}},
        "ionice",
        "best-effort: prio 2\n",
    ),
    (
        "ioPriority idle",
        {"ioPriority": {"class": "IOPRIO_CLASS_IDLE", "priority": 0}},
        "ionice",
        "idle\n",
    ),
]

# RLIMIT, line of /proc/PID/limits, values that root without CAP_SYS_RESOURCE may set
RLIMITS = {
    "CPU": ("Max cpu time", 3600, 7200),
    "FSIZE": ("Max file size", 1 << 20, 1 << 21),
    "DATA": ("Max data size", 1 << 30, 1 << 31),
    "STACK": ("Max stack size", 1 << 22, 1 << 23),
    "CORE": ("Max core file size", 0, 4096),
    "RSS": ("Max resident set", 1 << 29, 1 << 30),
    "NPROC": ("Max processes", 500, 501),
    "NOFILE": ("Max open files", 99, 100),
    "MEMLOCK": ("Max locked memory", 4096, 8192),
    "AS": ("Max address space", 1 << 31, 1 << 32),
    "LOCKS": ("Max file locks", 5, 6),
    "SIGPENDING": ("Max pending signals", 50, 60),
    "MSGQUEUE": ("Max msgqueue size", 4000, 4001),
    "NICE": ("Max nice priority", 0, 0),
    "RTPRIO": ("Max realtime priority", 0, 0),
    "RTTIME": ("Max realtime timeout", 100000, 200000),
}


@pytest.mark.parametrize(
    ("process", "script", "printed"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE]
)
def test_a_field_has_its_effect(
    runtime: PrivateRuntime, process: Config, script: str, printed: str
) -> None:
    assert runtime.bundle({"process": process}, script=script or "").printed() == printed


@pytest.mark.parametrize("name", RLIMITS)
def test_a_resource_limit_is_the_kernel_s(runtime: PrivateRuntime, name: str) -> None:
    line, soft, hard = RLIMITS[name]
    rlimits = [{"type": f"RLIMIT_{name}", "soft": soft, "hard": hard}]
    with runtime.created({"process": {"rlimits": rlimits}}) as bundle:
        result = re.search(rf"^{line} +(\d+) +(\d+)", bundle.proc("limits"), re.MULTILINE)
        assert result
        assert result.groups() == (str(soft), str(hard))


def test_unlimited_is_the_largest_number(runtime: PrivateRuntime) -> None:
    rlimits = [{"type": "RLIMIT_FSIZE", "soft": 2**64 - 1, "hard": 2**64 - 1}]
    script = "ulimit -f"
    assert (
        runtime.bundle({"process": {"rlimits": rlimits}}, script=script).printed() == "unlimited\n"
    )


def test_process_attributes_are_visible_on_the_host(runtime: PrivateRuntime) -> None:
    process = {
        "user": {"uid": 1234, "gid": 2345, "additionalGids": [3456], "umask": 0o77},
        "oomScoreAdj": 17,
        "cwd": "/etc",
        "noNewPrivileges": True,
        "capabilities": {"bounding": ["CAP_KILL"], "effective": [], "permitted": []},
    }
    with runtime.started({"process": process}) as bundle:
        facts = status(bundle.pid)
        assert facts["Uid"].split() == ["1234"] * 4
        assert facts["Gid"].split() == ["2345"] * 4
        assert facts["Groups"] == "3456"
        assert facts["Umask"] == "0077"
        assert facts["CapBnd"] == f"{1 << 5:016x}"
        assert facts["CapEff"] == NONE
        assert facts["NoNewPrivs"] == "1"
        assert facts["Seccomp"] == "2"
        assert bundle.proc("oom_score_adj") == "17\n"
        assert os.readlink(f"/proc/{bundle.pid}/cwd") == "/etc"
        # a session of its own, without a terminal
        assert bundle.proc("stat").rpartition(") ")[2].split()[3:5] == [str(bundle.pid), "0"]


def test_a_realtime_scheduler_is_the_kernel_s_or_one_clear_error(runtime: PrivateRuntime) -> None:
    process = {"scheduler": {"policy": "SCHED_FIFO", "priority": 10}}
    bundle = runtime.bundle({"process": process}, script="cut -d' ' -f40,41 /proc/self/stat")
    done = bundle.run()
    if done.returncode:  # a cgroup without a share of real time
        assert "process.scheduler: SCHED_FIFO: " in done.stderr
        assert len(done.stderr.splitlines()) == 1
    else:
        assert done.stdout == "10 1\n"


def test_an_exec_runs_on_the_requested_cpus(runtime: PrivateRuntime) -> None:
    affinity = {"initial": "0", "final": "0-1"}
    with runtime.started({"process": {"execCPUAffinity": affinity}}) as bundle:
        list_of_cpus = bundle.inside("grep Cpus_allowed_list /proc/self/status")
        assert list_of_cpus.split() == ["Cpus_allowed_list:", "0-1"]
    with runtime.started({"process": {"execCPUAffinity": {"initial": "1"}}}) as bundle:
        list_of_cpus = bundle.inside("grep Cpus_allowed_list /proc/self/status")
        assert list_of_cpus.split() == ["Cpus_allowed_list:", "1"]


@pytest.mark.parametrize(
    ("process", "text"),
    [
        ({"apparmorProfile": "p"}, "process.apparmorProfile: 'p' is requested, but apparmor"),
        ({"selinuxLabel": "a:b:c:d"}, "process.selinuxLabel: selinux label is specified"),
        ({"args": None}, "process.args"),
        ({"cwd": "tmp"}, "process.cwd: 'tmp' is not an absolute path"),
        ({"cwd": "/proc/self/fd"}, "is below /proc"),
        ({"rlimits": [{"type": "RLIMIT_X", "soft": 1, "hard": 1}]}, "RLIMIT_X"),
        ({"rlimits": [{"type": "RLIMIT_NOFILE", "soft": 2, "hard": 1}]}, "process.rlimits[0]"),
        ({"rlimits": [{"type": "RLIMIT_NOFILE", "soft": 1, "hard": 1}] * 2}, "RLIMIT_NOFILE"),
        ({"oomScoreAdj": 1001}, "process.oomScoreAdj"),
        ({"scheduler": {"policy": "SCHED_NONE"}}, "process.scheduler.policy"),
        ({"scheduler": {"policy": "SCHED_OTHER", "nice": 40}}, "process.scheduler.nice"),
        ({"ioPriority": {"class": "IOPRIO_CLASS_X", "priority": 0}}, "process.ioPriority.class"),
        ({"ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 9}}, "process.ioPriority"),
        ({"execCPUAffinity": {"initial": "x"}}, "process.execCPUAffinity"),
        ({"user": {"uid": -1, "gid": 0}}, "process.user"),
        ({"user": {"uid": 0, "gid": 0, "umask": 0o7777}}, "process.user.umask"),
        ({"args": ["nope"]}, 'exec: "nope": executable file not found in $PATH'),
        ({"args": ["/nope"]}, 'exec: "/nope": stat /nope: no such file or directory'),
        ({"args": ["/etc"]}, 'exec: "/etc": is a directory: permission denied'),
    ],
)
def test_an_invalid_spec_is_refused_in_one_line(
    runtime: PrivateRuntime, process: Config, text: str
) -> None:
    assert text in runtime.bundle({"process": process}).refused()


# terminal


def receive_master(listening: socket.socket) -> tuple[bytes, int]:
    """The name and the terminal's master that the runtime sends."""
    listening.settimeout(20)
    peer, _ = listening.accept()
    with peer:
        name, fds, _, _ = socket.recv_fds(peer, 4096, 1)
    return name, fds[0]


def read_all(master: int) -> str:
    """Read until no process has the slave open."""
    text = b""
    while True:
        try:
            text += os.read(master, 4096)
        except OSError:
            return text.decode().replace("\r\n", "\n")


def test_a_terminal_goes_to_the_console_socket_and_has_its_size(
    runtime: PrivateRuntime, tmp_path: Path
) -> None:
    process: dict[str, Any] = {
        "terminal": True,
        "consoleSize": {"height": 33, "width": 77},
        "user": {"uid": 5, "gid": 5},
    }
    script = "stty size; tty; stat -c '%t,%T %u' /dev/console; cut -d' ' -f7 /proc/self/stat"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "console"))
        listening.listen()
        flags = ("--console-socket", str(tmp_path / "console"))
        with runtime.created({"process": process}, *flags, script=script) as bundle:
            name, master = receive_master(listening)
            assert name == b"/dev/ptmx"
            assert bundle.start().returncode == 0
            lines = read_all(master).splitlines()
            os.close(master)
            assert bundle.ended() == 0
    assert lines[0] == "33 77"
    assert lines[1] in ("/dev/pts/0", "/dev/console")
    assert lines[2].startswith("88,0") and lines[2].endswith(" 5")
    assert int(lines[3]) == 34816  # the controlling terminal: major 136, minor 0


def test_a_terminal_and_a_console_socket_need_each_other(
    runtime: PrivateRuntime, tmp_path: Path
) -> None:
    with_terminal = runtime.bundle({"process": {"terminal": True}})
    assert "without a console socket" in with_terminal.refused()
    without = runtime.bundle()
    flags = ("--console-socket", str(tmp_path / "console"))
    assert "for a process without a terminal" in without.refused(*flags)
    assert f"console socket {tmp_path}/console: " in with_terminal_refused(runtime, flags)


def with_terminal_refused(runtime: PrivateRuntime, flags: tuple[str, ...]) -> str:
    """No process listens on the socket; that is noticed after the creation, which is undone."""
    bundle = runtime.bundle({"process": {"terminal": True}})
    bundle.err.write_text("")
    return bundle.refused(*flags)


@pytest.mark.parametrize("exec_too", [False, True])
def test_a_working_directory_that_only_root_may_enter_is_entered(
    runtime: PrivateRuntime, exec_too: bool
) -> None:
    process = {"user": {"uid": 1000, "gid": 1000}, "cwd": "/private/deep"}
    bundle = runtime.bundle({"process": process}, own_root=True, script="pwd; ls 2>&1; sleep 600")
    private = bundle.path / "rootfs/private"
    (private / "deep").mkdir(parents=True)
    private.chmod(0o700)
    try:
        bundle.create()
        assert bundle.start().returncode == 0
        assert os.readlink(f"/proc/{bundle.pid}/cwd") == "/private/deep"
        if exec_too:
            assert bundle.inside("readlink /proc/self/cwd") == "/private/deep\n"
    finally:
        assert bundle.delete("--force").returncode == 0


def test_a_working_directory_that_root_may_not_enter_is_entered_as_the_user(
    runtime: PrivateRuntime, tmp_path: Path
) -> None:
    """As with NFS and root_squash: here root of a user namespace, and a file of another id."""
    source = tmp_path / "source"
    (source / "home").mkdir(parents=True, mode=0o755)
    source.chmod(0o755)
    (source / "home").chmod(0o700)
    os.chown(source / "home", 1000, 1000)
    rows = [{"containerID": n, "hostID": n, "size": 1} for n in (0, 1000)]
    linux = {
        "namespaces": [*runtime.config["linux"]["namespaces"], {"type": "user"}],
        "uidMappings": [{"containerID": 0, "hostID": 200000, "size": 1}, rows[1]],
        "gidMappings": [{"containerID": 0, "hostID": 200000, "size": 10}],
    }
    mount = {"destination": "/tmp", "type": "bind", "source": str(source), "options": ["bind"]}
    process = {"user": {"uid": 1000, "gid": 0}, "cwd": "/tmp/home"}
    bundle = runtime.bundle(
        {"process": process, "linux": linux, "mounts": [*runtime.config["mounts"], mount]},
        script="readlink /proc/self/cwd",
    )
    assert bundle.printed() == "/tmp/home\n"


@pytest.mark.parametrize("readonly", [False, True])
def test_a_missing_working_directory_is_made_below_a_read_only_root_too(
    runtime: PrivateRuntime, readonly: bool
) -> None:
    changes = {"process": {"cwd": "/made/here"}, "root": {"readonly": readonly}}
    bundle = runtime.bundle(changes, own_root=True, script="pwd; touch x 2>/dev/null; echo $?")
    assert bundle.printed() == f"/made/here\n{int(readonly)}\n"


@pytest.mark.parametrize("where", ["created", "run"])
def test_a_program_is_found_from_the_working_directory(runtime: PrivateRuntime, where: str) -> None:
    changes = {"process": {"cwd": "/bin", "args": ["./sleep", "0"]}}
    if where == "run":
        runtime.bundle(changes).printed()
        return
    with runtime.started(changes) as bundle:
        assert bundle.ended() == 0


def test_strings_that_are_not_utf_8_reach_the_program(runtime: PrivateRuntime) -> None:
    bundle = runtime.bundle(
        {"process": {"env": ["PATH=/bin", "A=XX"], "cwd": "/XX"}},
        own_root=True,
        script="echo XX $A; pwd; sleep 600",
    )
    config = bundle.path / "config.json"
    config.write_bytes(config.read_bytes().replace(b"XX", b"a\xff\xfe"))
    try:
        bundle.create()
        assert bundle.start().returncode == 0
        done = subprocess.run(
            [*bundle.words("exec")[:-3], bundle.id, "echo", b"\xfe"],
            capture_output=True,
            check=True,
            timeout=60,
        )
        assert done.stdout == b"\xfe\n"
    finally:
        assert bundle.delete("--force").returncode == 0
    assert bundle.out.read_bytes() == b"a\xff\xfe a\xff\xfe\n/a\xff\xfe\n"


def test_an_empty_home_is_that_of_the_user(runtime: PrivateRuntime) -> None:
    process = {"env": ["PATH=/bin", "HOME="], "user": {"uid": 7}}
    bundle = runtime.bundle({"process": process}, own_root=True, script="echo $HOME")
    (bundle.path / "rootfs/etc/passwd").write_text("seven:x:7:7::/home/seven:/bin/sh\n")
    assert bundle.printed() == "/home/seven\n"


@pytest.mark.parametrize("limit", [20, 3])
def test_a_process_may_have_few_descriptors(runtime: PrivateRuntime, limit: int) -> None:
    """The runtime itself needs more until it executes the program."""
    process = {"rlimits": [{"type": "RLIMIT_NOFILE", "soft": limit, "hard": limit}]}
    hooks = {"createContainer": [{"path": "/bin/true"}]}
    bundle = runtime.bundle({"process": process, "hooks": hooks}, script="ulimit -n")
    assert bundle.printed() == f"{limit}\n"


def test_a_process_runs_on_every_cpu_of_its_cgroup(runtime: PrivateRuntime) -> None:
    available = os.sched_getaffinity(0)
    if len(available) < 2:
        pytest.skip("the machine has one CPU")
    done = runtime.bundle(script="grep Cpus_allowed_list /proc/self/status").run(
        preexec_fn=lambda: os.sched_setaffinity(0, {min(available)})
    )
    everywhere = Path("/sys/devices/system/cpu/online").read_text().strip()
    assert done.stdout == f"Cpus_allowed_list:\t{everywhere}\n"


def test_a_process_has_its_memory_policy(runtime: PrivateRuntime) -> None:
    linux = {
        "memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]},
        "seccomp": None,
    }
    with runtime.started({"linux": linux}) as bundle:
        assert " bind=static:0 " in bundle.proc("numa_maps")
        assert " bind=static:0 " in bundle.inside("cat /proc/self/numa_maps")


@pytest.mark.parametrize(
    ("policy", "text"),
    [
        ({"mode": "MPOL_NONE"}, "linux.memoryPolicy.mode: 'MPOL_NONE' must be one of"),
        ({"mode": "MPOL_BIND", "nodes": "x"}, "linux.memoryPolicy.nodes"),
        ({"mode": "MPOL_BIND", "nodes": "0", "flags": ["X"]}, "linux.memoryPolicy.flags: 'X'"),
        ({"mode": "MPOL_BIND", "nodes": "999"}, "linux.memoryPolicy: MPOL_BIND: invalid argument"),
    ],
)
def test_an_invalid_memory_policy_is_refused(
    runtime: PrivateRuntime, policy: Config, text: str
) -> None:
    done = runtime.bundle({"linux": {"memoryPolicy": policy}}).run()
    assert (done.returncode, text in done.stderr) == (1, True), done.stderr


def test_sockets_of_a_service_manager_reach_the_program(
    runtime: PrivateRuntime, tmp_path: Path
) -> None:
    """They are the first descriptors; those of --preserve-fds come after them."""
    bundle = runtime.bundle(script="echo $LISTEN_FDS $LISTEN_PID $LISTEN_FDNAMES; cat <&3; cat <&4")
    (tmp_path / "socket").write_text("socket ")
    (tmp_path / "file").write_text("file")
    words = " ".join(bundle.words("run", flags=("--preserve-fds", "1")))
    script = f"export LISTEN_FDS=1 LISTEN_FDNAMES=web LISTEN_PID=$$; exec 3<socket 4<file {words}"
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert (done.stdout, done.returncode) == ("1 1 web\nsocket file", 0), done.stderr

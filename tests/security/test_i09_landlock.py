"""I9: Landlock is in effect: a leaked descriptor opens no file, and usual commands still work."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from msgspec import structs

from harness import containers, images
from harness.container_runner import make_spec
from harness.engine import PROJECT, PrivateEngine
from jaula.security.landlock_ruleset import Landlock
from jaula.security.lsm import detect
from jaula.security.lsm.interface import LabelRequest
from jaula.security.seccomp import seccomp_filter
from jaula.spec import runtime_spec

ABI = detect.landlock()
pytestmark = pytest.mark.skipif(ABI < 2, reason="this kernel has no Landlock of version 2")
FIRST_ID = 1_990_000_000
SPY = """
while :; do
  for p in /proc/[0-9]*; do
    grep -q '^sleep$' "$p/comm" 2>/dev/null || continue  # skip processes that still join
    readlink "$p/exe" >/dev/null 2>&1 && echo "known $p" && continue
    test -d "$p" && echo "stranger $p"
  done
  sleep 0.1
done
"""


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """Return a root file system with busybox."""
    source = shutil.which("busybox")
    assert source is not None, "busybox-static is not installed"
    rootfs = tmp_path / "bundle/rootfs"
    for name in ("bin", "dev", "proc", "sys", "tmp"):
        (rootfs / name).mkdir(parents=True)
    shutil.copy(source, rootfs / "bin/busybox")
    for path in (rootfs, *rootfs.rglob("*")):
        os.chown(path, FIRST_ID, FIRST_ID)
    for path in tmp_path, *tmp_path.parents:  # the container's root is another user
        if path.stat().st_uid == os.getuid() and str(path) != "/" and "pytest" in str(path):
            path.chmod(path.stat().st_mode | 0o011)
    return tmp_path / "bundle"


def run_with_leak(
    bundle: Path, leaked: Path, script: str, *options: str
) -> subprocess.CompletedProcess[str]:
    """Run a script as a container whose descriptor 3 is a directory of the host."""
    name = containers.unique("ll")
    made = make_spec(("/bin/busybox", "sh", "-c", script), cgroup=f"/jlt-{name}", first_id=FIRST_ID)
    assert made.process is not None
    assert made.process.capabilities is not None
    assert made.linux is not None
    profile = seccomp_filter.default_profile(made.process.capabilities)
    made = structs.replace(made, linux=structs.replace(made.linux, seccomp=profile))
    made = Landlock(ABI).confine(made, LabelRequest(options))
    (bundle / "config.json").write_bytes(runtime_spec.encode(made))
    program = (sys.executable, "-I", "-S", "-X", "utf8", str(PROJECT / "src/jaula/oci/__main__.py"))
    state = ("--root", str(bundle.parent / "state"))
    flags = ("run", "--bundle", str(bundle), "--preserve-fds", "1", name)
    return subprocess.run(
        ["sh", "-c", 'exec "$@" 3<"$0"', str(leaked), *program, *state, *flags],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


READ = "/bin/busybox cat /proc/self/fd/3/secret"
WRITE = "echo changed > /proc/self/fd/3/made"
ENTER = "cd /proc/self/fd/3 && /bin/busybox cat secret"
LIST = "/bin/busybox ls /proc/self/fd/3/"


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """Return a world-writable directory of the host: only Landlock protects it."""
    tree = tmp_path / "host"
    tree.mkdir()
    tree.chmod(0o777)
    (tree / "secret").write_text("of the host\n")
    return tree


@pytest.mark.parametrize("cve", ["CVE-2024-21626"])
@pytest.mark.parametrize("script", [READ, WRITE, ENTER, LIST])
def test_a_leaked_directory_descriptor_opens_no_file(
    bundle: Path, host: Path, script: str, cve: str
) -> None:
    done = run_with_leak(bundle, host, script)
    assert done.returncode != 0
    assert "denied" in done.stderr.lower()
    assert done.stdout == ""
    assert [path.name for path in host.iterdir()] == ["secret"]


@pytest.mark.parametrize("script", [READ, WRITE, ENTER, LIST])
def test_without_landlock_the_same_leak_is_an_escape(bundle: Path, host: Path, script: str) -> None:
    done = run_with_leak(bundle, host, script, "off")
    assert done.returncode == 0, done.stderr
    assert "secret" in done.stdout or "of the host" in done.stdout or (host / "made").exists()


def test_a_default_container_is_in_a_domain_and_an_exec_is_not(
    engine: PrivateEngine, busybox: str
) -> None:
    """A process in a domain cannot read a process outside of it."""
    with containers.running(engine, busybox, "sh", "-c", SPY) as name:
        assert engine.cli("jaula", "exec", "-d", name, "sleep", "600").returncode == 0

        def seen() -> bool:
            return "stranger" in engine.cli("jaula", "logs", name).stdout

        containers.eventually(seen, "the exec'd process is a stranger to init's")


@pytest.mark.parametrize("option", ["off", "unconfined"])
def test_landlock_can_be_disabled(engine: PrivateEngine, busybox: str, option: str) -> None:
    flags = ("--security-opt", f"landlock={option}")
    with containers.running(engine, busybox, "sh", "-c", SPY, flags=flags) as name:
        assert engine.cli("jaula", "exec", "-d", name, "sleep", "600").returncode == 0

        def seen() -> bool:
            return "known" in engine.cli("jaula", "logs", name).stdout

        containers.eventually(seen, "the exec'd process is looked into")
        assert "stranger" not in engine.cli("jaula", "logs", name).stdout
        assert containers.inspect(engine, name)["Landlock"] == ""


@pytest.mark.parametrize(
    "script",
    [
        "readlink /proc/1/exe",
        "cat /proc/1/environ",
        "ls /proc/1/root/ /proc/1/cwd/ /proc/1/fd/",
        "echo into the log > /proc/1/fd/1",
        "kill -0 1",
        "echo x > /dev/stdout",
        ": < /dev/stdin",
        "touch /tmp/a && ln /tmp/a /etc/a && mv /tmp/a /root/a",
    ],
)
@pytest.mark.parametrize("flags", [(), ("--init",), ("-t",)])
def test_an_exec_can_inspect_the_processes_of_the_container(
    engine: PrivateEngine, busybox: str, script: str, flags: tuple[str, ...]
) -> None:
    if "--init" in flags and not os.path.exists("/usr/bin/tini-static"):
        pytest.skip("tini-static is not installed")
    with containers.running(engine, busybox, flags=flags) as name:
        done = engine.cli("jaula", "exec", name, "sh", "-c", script)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "script",
    [
        "echo x > /dev/stdout; echo x > /proc/self/fd/2; echo x > /proc/1/fd/1",
        ": < /dev/stdin",
        "touch /tmp/a && ln /tmp/a /etc/a && mv /tmp/a /root/a && rm /root/a",
        "sh -c 'sleep 1 & readlink /proc/$!/exe && kill $!'",
    ],
)
@pytest.mark.parametrize("flags", [(), ("-t",), ("-i",), ("-u", "0:0", "-v", "/data")])
def test_the_program_works_as_without_landlock(
    engine: PrivateEngine, busybox: str, script: str, flags: tuple[str, ...]
) -> None:
    containers.run(engine, busybox, "sh", "-c", script, flags=flags)


# System calls that take a path or a descriptor of a mount which the kernel keeps to itself.
INTERNAL_MOUNTS = {
    "mq_open, mqueue": "rt = ctypes.CDLL('librt.so.1', use_errno=True)\n"
    "q = check(rt.mq_open(b'/queue', os.O_CREAT | os.O_RDWR, 0o600, None))\n"
    "check(rt.mq_send(q, b'text', 4, 0))\n"
    "check(rt.mq_open(b'/queue', os.O_RDONLY))\n"
    "check(rt.mq_unlink(b'/queue'))",
    "memfd_create, reopened": "fd = os.memfd_create('m')\n"
    "os.write(os.open(f'/proc/self/fd/{fd}', os.O_RDWR), b'text')\n"
    "os.truncate(f'/proc/self/fd/{fd}', 1)",
    "memfd_create, executed": "fd = os.memfd_create('m', 0)\n"
    "os.write(fd, open('/bin/busybox', 'rb').read())\n"
    "pid = os.fork()\n"
    "pid or os.execve(fd, ['true'], {})\n"
    "assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0",
    "O_TMPFILE, linked": "top = '/tmp' if os.access('/tmp', os.W_OK) else '/dev/shm'\n"
    "fd = os.open(top, os.O_TMPFILE | os.O_RDWR, 0o600)\n"
    "os.write(os.open(f'/proc/self/fd/{fd}', os.O_RDWR), b'text')\n"
    "slash = os.open('/', os.O_RDONLY)\n"  # so that Python calls linkat(2), which follows
    "os.link(f'/proc/self/fd/{fd}', f'{top}/linked', src_dir_fd=slash, follow_symlinks=True)",
    "pipe, reopened": "r, w = os.pipe()\n"
    "os.write(os.open(f'/proc/self/fd/{w}', os.O_WRONLY), b'text')\n"
    "assert os.read(os.open(f'/proc/self/fd/{r}', os.O_RDONLY), 4) == b'text'",
    "shm_open": "c = ctypes.CDLL(None, use_errno=True)\n"
    "fd = check(c.shm_open(b'/area', os.O_CREAT | os.O_RDWR, 0o600))\n"
    "os.ftruncate(fd, 4096)\n"
    "mmap.mmap(fd, 4096)[0] = 1\n"
    "check(c.shm_unlink(b'/area'))",
    "shmget, attached": "c = ctypes.CDLL(None, use_errno=True)\n"
    "c.shmat.restype = ctypes.c_ssize_t\n"
    "area = check(c.shmget(0, 4096, 0o600))\n"
    "check(c.shmat(area, None, 0))\n"
    "check(c.shmctl(area, 0, None))",
    "shared anonymous memory": "mmap.mmap(-1, 4096, mmap.MAP_SHARED)[0] = 1",
    "pidfd_open": "os.close(os.pidfd_open(os.getpid()))",
    "sem_open": "c = ctypes.CDLL(None, use_errno=True)\n"
    "c.sem_open.restype = ctypes.c_ssize_t\n"
    "assert c.sem_open(b'/sem', os.O_CREAT, 0o600, 1)",
}
PRELUDE = """
import ctypes, mmap, os
def check(result):
    if result == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
"""


RUN_CASES = """
for name, text in cases.items():
    try:
        exec(text)
    except OSError as error:
        print(f"{name}: {error.strerror}", flush=True)
    else:
        print(f"{name}: works", flush=True)
"""


@pytest.fixture(scope="module", params=[(), ("--read-only", "--tmpfs", "/tmp"), ("-u", "1000")])
def internal_mounts(engine: PrivateEngine, request: pytest.FixtureRequest) -> dict[str, str]:
    """Return the result of each system call in a container, whose first process is in a domain."""
    program = "\n".join((PRELUDE, f"cases = {INTERNAL_MOUNTS!r}", RUN_CASES))
    words = ("--rm", *request.param, *images.host_tools(engine), "/usr/bin/python3", "-c", program)
    done = engine.cli("jaula", "run", *words)
    assert done.returncode == 0, done.stderr
    return dict(line.split(": ", 1) for line in done.stdout.splitlines())


@pytest.mark.parametrize("case", INTERNAL_MOUNTS)
def test_mounts_that_the_kernel_keeps_to_itself_are_usable(
    internal_mounts: dict[str, str], case: str
) -> None:
    assert internal_mounts[case] == "works"


def test_writable_mounts_of_a_read_only_root_stay_writable(
    engine: PrivateEngine, busybox: str
) -> None:
    flags = ("--read-only", "--tmpfs", "/run", "-v", "/data")
    script = "touch /run/a /data/a /dev/shm/a && echo x > /dev/null && ! touch /etc/a 2>&1"
    assert "ead-only" in containers.run(engine, busybox, "sh", "-c", script, flags=flags)


def test_port_rules_apply_to_the_program_and_every_exec(
    engine: PrivateEngine, busybox: str
) -> None:
    flags = ("--security-opt", "landlock=tcp-bind=8080,tcp-connect=none")
    listen = ("/bin/busybox", "timeout", "1", "/bin/busybox", "nc", "-l", "-p")
    connect = ("/bin/busybox", "nc", "127.0.0.1", "8080")
    with containers.running(engine, busybox, flags=flags) as name:
        refused = engine.cli("jaula", "exec", name, *listen, "8081")
        assert "ermission denied" in refused.stderr
        allowed = engine.cli("jaula", "exec", name, *listen, "8080")
        assert "ermission denied" not in allowed.stderr
        assert "ermission denied" in engine.cli("jaula", "exec", name, *connect).stderr
        assert engine.cli("jaula", "exec", name, "kill", "-0", "1").returncode == 0
        assert engine.cli("jaula", "exec", name, "readlink", "/proc/1/exe").returncode != 0
        printed = containers.inspect(engine, name)["Landlock"]
        assert printed == "/ rwx, /dev/mqueue rwx, tcp-bind 8080, tcp-connect none, exec too"
    done = engine.cli("jaula", "run", "--rm", *flags, busybox, *listen, "8081")
    assert "ermission denied" in done.stderr


@pytest.mark.parametrize(
    "flags",
    [
        ("--privileged",),
        ("--cap-add", "sys_admin"),
        ("--pid", "host"),
        ("--security-opt", "seccomp=unconfined"),
    ],
)
def test_containers_that_landlock_would_break_are_not_confined(
    engine: PrivateEngine, busybox: str, flags: tuple[str, ...]
) -> None:
    with containers.running(engine, busybox, flags=flags) as name:
        assert containers.inspect(engine, name)["Landlock"] == ""


def test_info_inspect_and_verify_show_landlock(engine: PrivateEngine, plain: str) -> None:
    info = engine.request("GET", "/info").json()
    assert f"name=landlock,abi={ABI}" in info["SecurityOptions"]
    assert containers.inspect(engine, plain)["Landlock"] == "/ rwx, /dev/mqueue rwx"
    proof = engine.cli("jaula", "verify", plain)
    assert any(
        "landlock" in line and "/ rwx, /dev/mqueue rwx" in line and line.endswith("holds")
        for line in proof.stdout.splitlines()
    ), proof.stdout


@pytest.mark.parametrize(
    ("flags", "output"),
    [
        (("--security-opt", "landlock=perhaps"), "landlock=perhaps"),
        (("--security-opt", "landlock=tcp-bind=http"), "is not a TCP port"),
        (("--annotation", "io.jaula.landlock={}"), "reserved for the engine"),
    ],
)
def test_an_invalid_rule_is_refused(
    engine: PrivateEngine, busybox: str, flags: tuple[str, ...], output: str
) -> None:
    done = engine.cli("jaula", "create", *flags, busybox, "true")
    assert done.returncode != 0
    assert output in done.stderr

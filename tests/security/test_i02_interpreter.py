"""I2 for ``jaula-runtime``: no container can write to the interpreter that created it.

The container of these tests has no user namespace: its root is the host's. The interpreter is a
private copy, so a successful attack changes only the copy.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.engine import PROJECT
from harness.private_runtime import Bundle, PrivateRuntime
from jaula.oci import clone_exec

REFUSED = "Read-only file system"
# For this script the kernel runs the executable of the calling process. It keeps a descriptor
# of it and gives way to a shell, which writes once nothing runs from the file any more.
ATTACK = """#!/proc/self/exe -IS
import os
fd = os.open("/proc/self/exe", os.O_PATH)
os.set_inheritable(fd, True)
found = b"%d" % os.stat(fd).st_ino
script = b'''
for n in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
    (echo changed >> /proc/self/fd/%d) 2>&1 | tail -n 1
    sleep 0.1
done
''' % fd
os.execv("/bin/sh", ["sh", "-c", b"echo " + found + b"; " + script])
"""
HOST_LIBRARIES = [
    {"destination": path, "source": path, "type": "bind", "options": ["rbind", "ro"]}
    for path in ("/usr", "/lib", "/lib64")
    if os.path.isdir(path)
]


class Copied:
    """The runtime, run by a copy of the interpreter; ``start`` are the words before it."""

    def __init__(self, runtime: PrivateRuntime, start: list[str]) -> None:
        self.runtime = runtime
        self.start_words = start
        self.python = runtime.base / "interpreter"
        shutil.copy(os.path.realpath(sys.executable), self.python)
        self.before = self.digest()
        self.inode = str(self.python.stat().st_ino)

    def digest(self) -> bytes:
        return hashlib.sha256(self.python.read_bytes()).digest()

    def words(self, *words: str) -> list[str]:
        main = str(PROJECT / "src/jaula/oci/__main__.py")
        start = [*self.start_words, str(self.python), "-I", "-S", "-X", "utf8", main]
        return [*start, "--root", str(self.runtime.root), *words]

    def call(self, *words: str) -> str:
        """Return the output of a successful command; a container's output is in its own file."""
        done = subprocess.run(
            self.words(*words),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start(self, bundle: Bundle, *words: str) -> str:
        """Run ``create`` or ``run -d`` and return the output file of the container."""
        out = bundle.path / "out"
        with out.open("wb") as file:
            subprocess.run(
                self.words(*words, "--bundle", str(bundle.path), bundle.id),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                timeout=20,
                check=True,
            )
        return str(out)


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[PrivateRuntime]:
    made = PrivateRuntime(tmp_path / "runtime")
    made.adopt(False)  # an exec'd process without a waiting parent would keep its container's init
    try:
        yield made
    finally:
        made.clear()


@pytest.fixture(params=["interpreter", clone_exec.NAME])
def copied(runtime: PrivateRuntime, request: pytest.FixtureRequest) -> Copied:
    """The interpreter makes the clone, or the program of the launcher does."""
    start = []
    if request.param == clone_exec.NAME:
        program = runtime.base / clone_exec.NAME
        program.write_bytes(clone_exec.program())
        program.chmod(0o755)
        start = [str(program)]
    (runtime.rootfs / "attack").write_text(ATTACK)
    (runtime.rootfs / "attack").chmod(0o755)
    runtime.config["mounts"] += HOST_LIBRARIES
    return Copied(runtime, start)


def _wait_for(path: str, lines: int) -> list[str]:
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        result = Path(path).read_text().splitlines()
        if len(result) >= lines:
            return result
        time.sleep(0.05)
    raise AssertionError(f"too little was said: {Path(path).read_text()!r}")


@pytest.mark.parametrize("cve", ["CVE-2019-5736"])
def test_a_container_that_executes_the_runtime_cannot_write_to_it(
    runtime: PrivateRuntime, copied: Copied, cve: str
) -> None:
    bundle = runtime.bundle({"process": {"args": ["/attack"]}})
    output = _wait_for(copied.start(bundle, "run", "--detach"), 12)
    copied.call("delete", "--force", bundle.id)
    assert output[0] == copied.inode, "the attack did not get hold of the interpreter at all"
    assert all(REFUSED in line or "Text file busy" in line for line in output[1:]), output
    assert REFUSED in output[-1]
    assert copied.digest() == copied.before


@pytest.mark.parametrize("cve", ["CVE-2019-5736"])
def test_an_exec_that_executes_the_runtime_cannot_write_to_it(
    runtime: PrivateRuntime, copied: Copied, cve: str
) -> None:
    bundle = runtime.bundle()
    copied.start(bundle, "run", "--detach")
    out = bundle.path / "said"
    with out.open("wb") as file:
        subprocess.run(
            copied.words("exec", "--detach", bundle.id, "/attack"),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            timeout=20,
            check=True,
        )
    output = _wait_for(str(out), 12)
    copied.call("delete", "--force", bundle.id)
    assert output[0] == copied.inode
    assert REFUSED in output[-1], output
    assert copied.digest() == copied.before


@pytest.mark.parametrize("cve", ["CVE-2019-5736"])
def test_a_waiting_init_runs_from_a_read_only_mount(
    runtime: PrivateRuntime, copied: Copied, cve: str
) -> None:
    bundle = runtime.bundle()
    copied.start(bundle, "create", "--pid-file", str(bundle.path / "pid"))
    executable = f"/proc/{(bundle.path / 'pid').read_text()}/exe"
    assert os.statvfs(executable).f_flag & os.ST_RDONLY
    assert os.path.samefile(executable, copied.python)
    copied.call("delete", "--force", bundle.id)
    assert not os.statvfs(copied.python).f_flag & os.ST_RDONLY, "the host's own mount was changed"


@pytest.mark.parametrize("cve", ["CVE-2019-5736"])
def test_an_init_of_the_launcher_runs_from_a_read_only_mount(
    runtime: PrivateRuntime, cve: str
) -> None:
    bundle = runtime.bundle()
    launcher = [str(PROJECT / "jaula-runtime"), "--root", str(runtime.root)]
    pid_file = bundle.path / "pid"
    flags = ["--pid-file", str(pid_file), "--bundle", str(bundle.path)]
    with (bundle.path / "out").open("wb") as out:
        subprocess.run(
            [*launcher, "create", *flags, bundle.id],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            timeout=20,
            check=True,
        )
    executable = f"/proc/{pid_file.read_text()}/exe"
    assert os.statvfs(executable).f_flag & os.ST_RDONLY
    subprocess.run([*launcher, "delete", "--force", bundle.id], timeout=20, check=True)


@pytest.mark.parametrize("cve", ["CVE-2019-5736"])
def test_an_init_of_the_installed_package_runs_from_a_read_only_mount(
    runtime: PrivateRuntime, cve: str
) -> None:
    entry_point = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["scripts"]
    module, _, function = entry_point["jaula-runtime"].partition(":")
    script = runtime.base / "jaula-runtime"
    script.write_text(f"from {module} import {function}\n{function}()\n")
    bundle = runtime.bundle()
    pid_file = bundle.path / "pid"
    words = ["--root", str(runtime.root), "create", "--pid-file", str(pid_file)]
    with (bundle.path / "out").open("wb") as out:
        subprocess.run(
            [sys.executable, str(script), *words, "--bundle", str(bundle.path), bundle.id],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            timeout=20,
            check=True,
        )
    assert os.statvfs(f"/proc/{pid_file.read_text()}/exe").f_flag & os.ST_RDONLY
    words = [str(PROJECT / "jaula-runtime"), "--root", str(runtime.root)]
    subprocess.run([*words, "delete", "--force", bundle.id], timeout=20, check=True)


def test_descriptors_and_input_survive_the_re_execution(
    runtime: PrivateRuntime, copied: Copied, tmp_path: Path
) -> None:
    bundle = runtime.bundle(
        script="read line; echo $line; cat <&3; cat <&4; ls /proc/self/fd | wc -l"
    )
    for name in ("three", "four"):
        (tmp_path / name).write_text(f"{name}\n")
    opening = f'exec 3<{tmp_path}/three 4<{tmp_path}/four; exec "$@"'
    words = copied.words("run", "--preserve-fds", "2", "--bundle", str(bundle.path), bundle.id)
    done = subprocess.run(
        ["sh", "-c", opening, "sh", *words],
        input="from stdin\n",
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    # 0 to 4, and the one with which ls reads the directory
    assert done.stdout.split("\n") == ["from stdin", "three", "four", "6", ""]

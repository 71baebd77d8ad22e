"""dockerd with runc in the host's mount namespace, as a foreign engine that is audited.

Its directories, socket, containerd and network namespace are its own, so its bridge and its rules
of iptables touch no other.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.callers.caller import until
from jaula.kernel import mountinfo

if TYPE_CHECKING:
    from typing import Self


class ForeignDockerd:
    """A daemon and its client; ``flags`` are further flags of the daemon. A context manager."""

    def __init__(self, archive: Path, flags: Sequence[str] = ()) -> None:
        self.archive = archive
        self.flags = flags
        # Not on a tmpfs, which another overlay file system may be refused on.
        self.base = Path(tempfile.mkdtemp(prefix="jfd", dir="/var/tmp"))
        self.state = Path(f"/run/{self.base.name}")
        self.daemon: subprocess.Popen[bytes] | None = None

    @property
    def socket(self) -> Path:
        return self.state / "docker.sock"

    @property
    def address(self) -> str:
        return f"unix://{self.socket}"

    def __enter__(self) -> Self:
        self.state.mkdir(mode=0o700)
        words = (
            *("dockerd", "--data-root", str(self.base / "data"), "--exec-root", str(self.state)),
            *("--pidfile", str(self.state / "pid"), "--host", self.address),
            *("--config-file", "/dev/null", "--cgroup-parent", f"/{self.base.name}"),
            *("--exec-opt", "native.cgroupdriver=cgroupfs", "--log-level", "info"),
            *self.flags,
        )
        with (self.base / "log").open("wb") as log:
            self.daemon = subprocess.Popen(
                ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh", *words],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                env={**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"},
            )  # fmt: skip
        try:
            until(
                lambda: self("version", expect=None).returncode == 0,
                f"dockerd, see {self.base}/log",
            )
            self("load", "-i", str(self.archive))
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *details: object) -> None:
        self._end()

    def _end(self) -> None:
        assert self.daemon is not None
        names = self("ps", "-aq", expect=None).stdout.split()
        if names:
            self("rm", "-f", *names, expect=None)
        self.daemon.terminate()
        self.daemon.wait(40)
        data = str(self.base / "data")
        if any(mount.target == data for mount in mountinfo.read("/proc/self/mountinfo")):
            subprocess.run(["umount", data], check=True)  # dockerd binds it, and may keep it
        shutil.rmtree(self.base)
        shutil.rmtree(self.state, ignore_errors=True)
        for tree in (Path("/sys/fs/cgroup"), *Path("/sys/fs/cgroup").glob("*")):
            group = tree / self.base.name
            if group.is_dir() and not tree.is_symlink():
                group.rmdir()

    def __call__(self, *words: str, expect: int | None = 0) -> subprocess.CompletedProcess[str]:
        """Run the client and assert its exit status; None allows any."""
        done = subprocess.run(
            ["docker", "--config", str(self.base / "client"), "--host", self.address, *words],
            capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip
        assert expect is None or done.returncode == expect, f"{words}: {done.stdout}{done.stderr}"
        return done

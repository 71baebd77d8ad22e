"""sshd(8) on a loopback port, for git repositories of one user that exists only there.

The server has a mount namespace with its own /run and /etc/passwd, so the host needs no account,
no host key and no running service. ``JAULA_TEST_SSHD`` names another program ``sshd``.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SSHD = os.environ.get("JAULA_TEST_SSHD", "/usr/sbin/sshd")
REPOSITORIES = "/run/git"
"""The directory of the repositories, as the server sees it."""
_UID = 64999  # of the user git
_SET_UP = """
set -e
mount -t tmpfs -o mode=755 tmpfs /run
mkdir /run/sshd
cp -r "$1/repositories" /run/git
cp "$1/authorized_keys" /run/authorized_keys
chown -R $2:$2 /run/git
chmod -R go+rX /run/git /run/authorized_keys
mount --bind "$1/passwd" /etc/passwd
exec "$3" -D -e -f "$1/config"
"""
_CONFIG = """
ListenAddress 127.0.0.1:{port}
HostKey {place}/host
PidFile none
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
AuthorizedKeysFile /run/authorized_keys
AllowUsers git
LogLevel VERBOSE
"""


def is_installed() -> bool:
    return os.access(SSHD, os.X_OK)


class SshServer:
    """A running server; ``log`` is its output."""

    def __init__(self, port: int, log: Path) -> None:
        self.port = port
        self.log = log

    def url(self, name: str) -> str:
        """Return the address of a repository."""
        return f"ssh://git@127.0.0.1:{self.port}{REPOSITORIES}/{name}.git"


def new_key(path: Path, kind: str) -> Path:
    """Create a key without a passphrase, and its public part beside it."""
    command = ["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return path


@contextmanager
def served(top: Path, repositories: Path, keys: list[Path]) -> Iterator[SshServer]:
    """Serve a copy of the repositories to the holders of the keys; ``top`` is for own files."""
    new_key(top / "host", "ed25519")
    shutil.copytree(repositories, top / "repositories", symlinks=True)
    authorized = "".join(path.with_name(f"{path.name}.pub").read_text() for path in keys)
    (top / "authorized_keys").write_text(authorized)
    users = "".join(
        f"{name}:*:{uid}:{uid}::/nonexistent:{shell}\n"
        for name, uid, shell in (
            ("sshd", _UID + 1, "/usr/sbin/nologin"),
            ("git", _UID, "/usr/bin/git-shell"),
        )
    )
    rows = Path("/etc/passwd").read_text().splitlines(keepends=True)
    kept = "".join(row for row in rows if row.partition(":")[0] not in ("sshd", "git"))
    (top / "passwd").write_text(kept + users)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (top / "config").write_text(_CONFIG.format(port=port, place=top))
    log = top / "log"
    unshare = ["unshare", "--mount", "--propagation", "private", "sh", "-c", _SET_UP, "sh"]
    with log.open("wb") as output:
        server = subprocess.Popen(
            [*unshare, str(top), str(_UID), SSHD],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        _wait(server, port, log)
        yield SshServer(port, log)
    finally:
        server.terminate()
        server.wait(30)


def _wait(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    for _ in range(600):
        assert server.poll() is None, log.read_text()
        try:
            socket.create_connection(("127.0.0.1", port), 30).close()
        except ConnectionRefusedError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError(log.read_text())

"""Check out one commit of a git repository, for ``ADD`` and as a build context.

Only the required commit is fetched, if the server allows that. A server of plain files ("dumb"
HTTP) does not, so the history of the branch or tag is fetched. git(1) runs in a sandbox
(``jaula.sandbox.git_program``), without hooks, filters and user configuration, and only with
allowed protocols. Submodules are fetched one by one by the same rules. git does not fetch them,
since it would follow the configuration of the repository.

A small pack can hold endless files, by trees that repeat. So git lists sizes and names of a commit
before it writes them, the list is bounded, and git is ended when the disk is nearly full.
"""

from __future__ import annotations

import errno
import json
import os
import posixpath
import selectors
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from time import monotonic

import msgspec

import jaula.sandbox
from jaula.errors import InvalidRequest, NotFound, Unavailable, Unsupported
from jaula.features.build.files.remote import git_url
from jaula.features.build.files.remote.git_transport import (
    MOUNT_POINT,
    SOCKET,
    GitTransport,
    GitTransports,
    authorization_of,
)
from jaula.features.build.files.remote.git_url import GitUrl
from jaula.images.registry.cancellation import Cancellation
from jaula.images.registry.http.proxy_choice import Proxies
from jaula.kernel import openat2
from jaula.sandbox.start_sandbox import raise_oom_score

PROGRAM = str(Path(jaula.sandbox.__file__).with_name("git_program.py"))
NOBODY = 65534
_TIMEOUT = 600.0  # seconds for one command
_MAX_DEPTH = 6  # levels of nested submodules
_MAX_SUBMODULES = 128  # in total
_ERROR_PREFIXES = ("fatal:", "error:", "remote:", "Host key")
_NO_SHALLOW = "dumb http transport does not support shallow capabilities"
_EVERYTHING = ("+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*")
_OUTPUT_LIMIT = 64 << 20  # bytes of git's output, as of the list of a commit's files
_ERROR_LIMIT = 2000  # bytes of git's error output that are reported
_BYTES_LIMIT = 16 << 30  # bytes of the files of all checkouts of a build
_FILES_LIMIT = 1_000_000  # of all checkouts of a build
_SPACE = 1 << 30  # bytes of the disk that git leaves free, a twentieth of a small one
_ROUND = 0.5  # seconds between two checks of a running git
TREE = "tree"
"""The subdirectory with the checked out files."""
_VARIABLES = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "HOME": "/nonexistent",
    "LC_ALL": "C",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ASKPASS": "/bin/false",
    "GIT_LFS_SKIP_SMUDGE": "1",
}
_SETTINGS = (
    *("-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", "-c", "protocol.allow=never"),
    *("-c", "protocol.https.allow=always", "-c", "protocol.http.allow=always"),
    *("-c", "protocol.git.allow=always", "-c", "protocol.ssh.allow=always"),
    *("-c", "core.symlinks=true", "-c", "advice.detachedHead=false", "-c", "gc.auto=0"),
    *("-c", "http.lowSpeedLimit=1000", "-c", "http.lowSpeedTime=60", "-c", "safe.directory=*"),
    *("-c", "transfer.fsckObjects=true", "-c", "maintenance.auto=false"),
    # one pack, of which git holds no large file in memory
    *("-c", "transfer.unpackLimit=1", "-c", "core.bigFileThreshold=32m"),
)


Agent = Callable[[str], AbstractContextManager[None]]
"""Provide the client's ssh agent at a socket path for the duration of the context."""

Secret = Callable[[str], bytes | None]
"""Return a secret of the client by its id; None if the client does not have it."""


class GitRepositories:
    """Git checkouts of one build. ``agent`` is used for ssh addresses only.

    ``secret`` has the client's tokens of git servers, which http addresses need.
    """

    def __init__(
        self,
        cancel: Cancellation,
        *,
        host_network: bool = False,
        proxies: Proxies | None = None,
        agent: Agent | None = None,
        secret: Secret = lambda id: None,
        user: tuple[int, int] = (NOBODY, NOBODY),
    ) -> None:
        self._cancel = cancel
        self._transports = GitTransports(
            proxies or Proxies("", "", ""), host_network=host_network, agent=agent is not None
        )
        self._agent = agent
        self._secret = secret
        self._user = user
        self._submodules = 0
        self._bytes = 0
        self._files = 0

    def check_out(self, address: GitUrl, directory: int) -> str:
        """Check a commit out into ``tree`` of an empty directory and return the commit's name.

        ``.git`` is included. The directory is given to ``user``, and git can access no other.

        :raises InvalidRequest: if the address is refused or the commit is not the requested one.
        :raises NotFound: if the branch, tag or commit does not exist.
        :raises Unavailable: if the repository cannot be fetched.
        :raises Unsupported: if git is not installed.
        """
        if shutil.which("git") is None:
            raise Unsupported(
                "git is not installed", hint="install git to fetch repositories in builds"
            )
        os.mkdir(TREE, 0o755, dir_fd=directory)
        try:
            for name in (TREE, "."):
                os.chown(name, *self._user, dir_fd=directory)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            raise Unsupported(
                f"{address.url}: git runs as the user {self._user[0]}, which is not mapped in the"
                " user namespace of this engine",
                hint="give the user more ids in /etc/subuid and /etc/subgid",
            ) from None
        try:
            with self._ssh_agent(directory):
                authorization = authorization_of(address.url, self._secret)
                commit = self._check_out(address, directory, TREE, 0, authorization)
        except _Failed as error:
            raise Unavailable(f"{address.url} cannot be checked out: {error.output}") from None
        if not commit.startswith(address.commit):
            raise InvalidRequest(
                f"{address.url} is at {commit}, but {address.commit} was requested"
            )
        return commit

    @contextmanager
    def _ssh_agent(self, directory: int) -> Iterator[None]:
        if self._agent is None:
            yield
            return
        with self._agent(f"/proc/self/fd/{directory}/{SOCKET}"):
            os.chown(SOCKET, *self._user, dir_fd=directory, follow_symlinks=False)
            yield

    def _check_out(
        self,
        address: GitUrl,
        directory: int,
        path: str,
        depth: int,
        authorization: Mapping[str, str],
    ) -> str:
        url, transport = address.url, self._transports.to(address.url)
        variables = {**transport.variables, **authorization}
        transport = msgspec.structs.replace(transport, variables=variables)
        self._git(directory, path, ["init", "-q"], transport)
        self._git(directory, path, ["remote", "add", "origin", "--", url], transport)
        revision = self._fetch(address, directory, path, transport)
        self._check_size(url, directory, path, revision)
        self._git(directory, path, ["checkout", "-q", "--force", "--detach", revision], transport)
        commit = self._git(directory, path, ["rev-parse", "HEAD"], transport).strip()
        self._add_submodules(url, directory, path, depth, authorization)
        return commit

    def _fetch(self, address: GitUrl, directory: int, path: str, transport: GitTransport) -> str:
        """Fetch the requested ref and return the revision to check out."""
        ref = address.ref or "HEAD"
        fetch = ["fetch", "-q", "--no-recurse-submodules"]
        is_commit = 8 <= len(ref) <= 64 and set(ref) <= set("0123456789abcdef")
        complete = False
        try:
            self._git(
                directory, path, [*fetch, "--no-tags", "--depth=1", "origin", "--", ref], transport
            )
            return "FETCH_HEAD"
        except _Failed as error:
            complete = _NO_SHALLOW in error.output
            if not (complete or is_commit):
                raise self._fetch_error(address, error) from None
        try:
            if complete and not is_commit:
                self._git(directory, path, [*fetch, "--no-tags", "origin", "--", ref], transport)
                revision = "FETCH_HEAD"
            else:  # the server does not serve single commits
                self._git(directory, path, [*fetch, "origin", "--", *_EVERYTHING], transport)
                verify = ["rev-parse", "-q", "--verify", "--end-of-options", f"{ref}^{{commit}}"]
                revision = self._git(directory, path, verify, transport).strip()
        except _Failed as error:
            raise self._fetch_error(address, error) from None
        if complete:
            self._check_objects(address, directory, path)
        return revision

    def _check_size(self, url: str, directory: int, path: str, revision: str) -> None:
        """Count the files of a commit.

        :raises InvalidRequest: if they are too many or too large.
        """
        listed = self._git(directory, path, ["ls-tree", "-r", "-l", "-z", "--full-tree", revision])
        for line in listed.split("\0")[:-1]:
            size = line.partition("\t")[0].split()[3]
            self._files += 1
            self._bytes += int(size) if size.isdecimal() else 0  # '-': a submodule
        if self._files > _FILES_LIMIT or self._bytes > _BYTES_LIMIT:
            raise InvalidRequest(
                f"the files of {url} are too large to be checked out: {self._files} files with"
                f" {self._bytes} bytes",
                hint=f"the limit of a build is {_FILES_LIMIT} files with {_BYTES_LIMIT >> 30} GiB",
            )

    def _check_objects(self, address: GitUrl, directory: int, path: str) -> None:
        """Check objects that git does not check while it fetches them: those of plain files.

        :raises InvalidRequest: if one is malformed.
        """
        try:
            self._git(directory, path, ["fsck", "--strict", "--no-dangling", "--no-progress"])
        except _Failed as error:
            raise InvalidRequest(f"{address.url} has damaged objects: {error.output}") from None

    def _fetch_error(self, address: GitUrl, error: _Failed) -> NotFound | Unavailable:
        if "couldn't find remote ref" in error.output or not error.output:
            ref = address.ref or "HEAD"
            return NotFound(f"{address.url} has no branch, tag or commit {ref!r}")
        return Unavailable(f"{address.url} cannot be fetched: {error.output}")

    # -- submodules -----------------------------------------------------------------------------

    def _add_submodules(
        self, url: str, directory: int, path: str, depth: int, authorization: Mapping[str, str]
    ) -> None:
        """Check out every submodule at the commit that the repository records."""
        staged = self._git(directory, path, ["ls-files", "-z", "--stage"])
        links = {}
        for line in staged.split("\0"):
            facts, _, name = line.partition("\t")
            if facts.startswith("160000 "):
                links[name] = facts.split(" ")[1]
        if not links:
            return
        listed = ["config", "-z", "--file", ".gitmodules", "--list"]
        settings = self._git(directory, path, listed)
        for name, origin in _origins(settings).items():
            if name not in links:
                continue
            self._submodules += 1
            if depth >= _MAX_DEPTH or self._submodules > _MAX_SUBMODULES:
                raise InvalidRequest(f"{url} has too many or too deeply nested submodules")
            address = git_url.parse(_relative(url, origin))
            module = GitUrl(address.url, links[name])
            inner = posixpath.join(path, name)
            self._refuse_links(directory, inner)
            self._check_out(module, directory, inner, depth + 1, authorization)

    def _refuse_links(self, directory: int, path: str) -> None:
        resolve = openat2.RESOLVE.BENEATH | openat2.RESOLVE.NO_SYMLINKS
        try:
            os.close(openat2.openat2(directory, path, os.O_PATH | os.O_DIRECTORY, resolve=resolve))
        except OSError as error:
            raise InvalidRequest(
                f"the path of the submodule {path!r} is not a directory: {error}"
            ) from None

    # -- git ------------------------------------------------------------------------------------

    def _git(
        self,
        directory: int,
        path: str,
        arguments: list[str],
        transport: GitTransport = GitTransport(),  # noqa: B008 - frozen
    ) -> str:
        """Run git and return its output.

        :raises _Failed: if git fails.
        """
        self._cancel.check()
        settings = {
            "path": [os.path.abspath(name) for name in sys.path if name],
            "ids": self._user,
            "directory": directory,
            "mount_point": MOUNT_POINT,
            "unix": "SSH_AUTH_SOCK" in transport.variables,
            "engine": os.getpid(),
        }
        program = [sys.executable, "-I", "-S", "-X", "utf8", PROGRAM, json.dumps(settings)]
        with subprocess.Popen(
            [*program, "git", *_SETTINGS, *transport.settings, "-C", path, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**_VARIABLES, **transport.variables},
            cwd="/",
            pass_fds=(directory,),
            start_new_session=True,
        ) as process:
            try:
                raise_oom_score(process.pid)
                stdout, stderr = self._read(process, directory)
            except BaseException:
                _kill(process)
                raise
        if process.returncode:
            raise _Failed(_error_lines(stderr))
        return os.fsdecode(stdout)

    def _read(self, process: subprocess.Popen[bytes], directory: int) -> tuple[bytes, bytes]:
        """Return the output and the end of the error output of a process that ends."""
        assert process.stdout is not None
        assert process.stderr is not None
        output = {process.stdout.fileno(): bytearray(), process.stderr.fileno(): bytearray()}
        stdout, stderr = output.values()
        deadline = monotonic() + _TIMEOUT
        with selectors.DefaultSelector() as selector:
            for descriptor in output:
                selector.register(descriptor, selectors.EVENT_READ)
            checked = 0.0
            while selector.get_map():
                ready = selector.select(_ROUND)
                if monotonic() - checked >= _ROUND:
                    self._check(directory, deadline)
                    checked = monotonic()
                for key, _ in ready:
                    data = os.read(key.fd, 1 << 16)
                    if not data:
                        selector.unregister(key.fd)
                    output[key.fd] += data
                del stderr[:-_ERROR_LIMIT]
                if len(stdout) > _OUTPUT_LIMIT:
                    raise InvalidRequest(
                        "the names of a repository's files take more than"
                        f" {_OUTPUT_LIMIT >> 20} MiB",
                        hint="it may hold trees that repeat without end",
                    )
        while True:  # the pipes are closed, so nothing but the end is left
            try:
                process.wait(_ROUND)
            except subprocess.TimeoutExpired:
                self._check(directory, deadline)
            else:
                return bytes(stdout), bytes(stderr)

    def _check(self, directory: int, deadline: float) -> None:
        """Return if git may go on.

        :raises Unavailable: if it takes too long, or fills the disk.
        """
        self._cancel.check()
        if monotonic() > deadline:
            raise Unavailable(f"git took longer than {_TIMEOUT:.0f} seconds")
        disk = os.fstatvfs(directory)
        size = disk.f_frsize
        if disk.f_bavail * size < min(_SPACE, disk.f_blocks * size // 20):
            raise Unavailable(
                "the repository leaves too little space on the disk of the engine's data",
                hint="free some, for example with `jaula system prune`",
            )


class _Failed(Exception):
    """git failed; ``output`` is its error output."""

    def __init__(self, output: str) -> None:
        super().__init__(output)
        self.output = output


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill git and its children: they are a process group of their own."""
    try:
        os.killpg(process.pid, 9)
    except ProcessLookupError:
        return


def _error_lines(stderr: bytes) -> str:
    lines = stderr.decode("utf-8", "replace").splitlines()
    errors = [
        line for line in lines if line.startswith(_ERROR_PREFIXES) or "denied" in line
    ] or lines
    text = "; ".join(line.strip() for line in errors)
    return "".join(c for c in text if c.isprintable())


def _origins(listed: str) -> dict[str, str]:
    """Return paths and URLs from ``git config -z --list`` of a ``.gitmodules``."""
    modules: dict[str, dict[str, str]] = {}
    for item in listed.split("\0"):
        name, _, value = item.partition("\n")
        section, _, key = name.rpartition(".")
        if section.startswith("submodule.") and key in ("path", "url"):
            modules.setdefault(section, {})[key] = value
    return {m["path"]: m["url"] for m in modules.values() if len(m) == 2}


def _relative(base: str, text: str) -> str:
    """Return the URL of a submodule, resolved relative to the repository's."""
    if not text.startswith(("./", "../")):
        return text
    base = base.rstrip("/")
    while True:
        if text.startswith("./"):
            text = text[2:]
        elif text.startswith("../"):
            base, text = base.rpartition("/")[0], text[3:]
        else:
            return f"{base}/{text}"


def without_git(path: bytes) -> bool:
    """Return whether a path is not part of a ``.git`` directory."""
    return b".git" not in path.split(b"/")

"""One commit of a git repository as a directory: ``ADD`` of a repository, and a context from one.

Only what is needed is fetched: one commit where the server gives single ones. git(1) runs in a cage
(:mod:`~.gitcage`), without hooks, filters and configuration of anybody, and with the protocols that
an address may have. Submodules are fetched one by one by the same rules instead of by git, which
would do as the repository says.
"""

from __future__ import annotations

import errno
import os
import posixpath
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from jaula.errors import InvalidRequest, NotFound, Unavailable, Unsupported
from jaula.images.build.remote import git_sandbox, git_url
from jaula.images.build.remote.git_transport import SOCKET, GitTransport, GitTransports
from jaula.images.build.remote.git_url import GitUrl
from jaula.images.registry.cancellation import Cancellation
from jaula.images.registry.http.proxy import Proxies
from jaula.kernel import paths

NOBODY = 65534
_PATIENCE = 600.0  # seconds for one command
_DEEP = 6  # submodules in submodules
_MANY = 128  # submodules in all
_TELLING = ("fatal:", "error:", "remote:", "Host key")
_SAID = 2000  # characters of git's words that are passed on
TREE = "tree"
"""Where the files are, in the directory that they are checked out to."""
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
)


Agent = Callable[[str], AbstractContextManager[None]]
"""Makes the client's ssh agent listen at a path of a socket, for as long as the context lasts."""


class GitRepositories:
    """Checks out for one build. ``agent`` is used for addresses of ssh only."""

    def __init__(
        self,
        cancel: Cancellation,
        *,
        host_network: bool = False,
        proxies: Proxies | None = None,
        agent: Agent | None = None,
        user: tuple[int, int] = (NOBODY, NOBODY),
    ) -> None:
        self._cancel = cancel
        self._routes = GitTransports(
            proxies or Proxies("", "", ""), host_network=host_network, agent=agent is not None
        )
        self._agent = agent
        self._user = user
        self._submodules = 0

    def check_out(self, address: GitUrl, directory: int) -> str:
        """Put a commit's files into ``tree`` of an empty directory; the commit's name.

        ``.git`` is among them. The directory becomes the user's, and git sees no other.

        :raises InvalidRequest: another commit than was asked for, or an address that is refused.
        :raises NotFound: no such branch, tag or commit.
        :raises Unavailable: the repository cannot be had.
        """
        if shutil.which("git") is None:
            raise Unsupported("git is not installed", hint="it fetches repositories for builds")
        os.mkdir(TREE, 0o755, dir_fd=directory)
        try:
            for place in (TREE, "."):
                os.chown(place, *self._user, dir_fd=directory)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            raise Unsupported(
                f"{address.url}: git runs as the user {self._user[0]}, who does not exist for this"
                " engine",
                hint="give the user more ids in /etc/subuid and /etc/subgid",
            ) from None
        try:
            with self._listening(directory):
                commit = self._check_out(address, directory, TREE, 0)
        except _Failed as error:
            raise Unavailable(f"{address.url} cannot be checked out: {error.said}") from None
        if not commit.startswith(address.commit):
            raise InvalidRequest(
                f"{address.url} is at {commit}, and {address.commit} was asked for"
            )
        return commit

    @contextmanager
    def _listening(self, directory: int) -> Iterator[None]:
        if self._agent is None:
            yield
            return
        with self._agent(f"/proc/self/fd/{directory}/{SOCKET}"):
            os.chown(SOCKET, *self._user, dir_fd=directory, follow_symlinks=False)
            yield

    def _check_out(self, address: GitUrl, directory: int, where: str, depth: int) -> str:
        url, route = address.url, self._routes.to(address.url)
        self._git(directory, where, ["init", "-q"], route)
        self._git(directory, where, ["remote", "add", "origin", "--", url], route)
        wanted = self._fetched(address, directory, where, route)
        self._git(directory, where, ["checkout", "-q", "--force", "--detach", wanted], route)
        commit = self._git(directory, where, ["rev-parse", "HEAD"], route).strip()
        self._add_submodules(url, directory, where, depth)
        return commit

    def _fetched(self, address: GitUrl, directory: int, where: str, route: GitTransport) -> str:
        """Fetch what is asked for; what to check out."""
        ref = address.ref or "HEAD"
        fetch = ["fetch", "-q", "--no-tags", "--no-recurse-submodules", "--depth=1"]
        try:
            self._git(directory, where, [*fetch, "origin", "--", ref], route)
            return "FETCH_HEAD"
        except _Failed as error:
            if not (8 <= len(ref) <= 64 and set(ref) <= set("0123456789abcdef")):
                raise self._explained(address, error) from None
        everything = ["+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*"]
        try:  # a server that gives no single commits
            whole = ["fetch", "-q", "--no-recurse-submodules", "origin", "--", *everything]
            self._git(directory, where, whole, route)
            found = ["rev-parse", "-q", "--verify", "--end-of-options", f"{ref}^{{commit}}"]
            return self._git(directory, where, found, route).strip()
        except _Failed as error:
            raise self._explained(address, error) from None

    def _explained(self, address: GitUrl, error: _Failed) -> NotFound | Unavailable:
        if "couldn't find remote ref" in error.said or not error.said:
            ref = address.ref or "HEAD"
            return NotFound(f"{address.url} has no branch, tag or commit {ref!r}")
        return Unavailable(f"{address.url} cannot be fetched: {error.said}")

    # -- submodules -----------------------------------------------------------------------------

    def _add_submodules(self, url: str, directory: int, where: str, depth: int) -> None:
        """Check out every submodule at the commit that the repository names."""
        staged = self._git(directory, where, ["ls-files", "-z", "--stage"])
        links = {}
        for line in staged.split("\0"):
            described, _, path = line.partition("\t")
            if described.startswith("160000 "):
                links[path] = described.split(" ")[1]
        if not links:
            return
        listed = ["config", "-z", "--file", ".gitmodules", "--list"]
        settings = self._git(directory, where, listed)
        for path, origin in _origins(settings).items():
            if path not in links:
                continue
            self._submodules += 1
            if depth >= _DEEP or self._submodules > _MANY:
                raise InvalidRequest(f"{url} has too many submodules, or submodules too deep")
            address = git_url.parse(_relative(url, origin))
            module = GitUrl(address.url, links[path])
            inner = posixpath.join(where, path)
            self._refuse_links(directory, inner)
            self._check_out(module, directory, inner, depth + 1)

    def _refuse_links(self, directory: int, path: str) -> None:
        resolve = paths.RESOLVE.BENEATH | paths.RESOLVE.NO_SYMLINKS
        try:
            os.close(paths.openat2(directory, path, os.O_PATH | os.O_DIRECTORY, resolve=resolve))
        except OSError as error:
            raise InvalidRequest(f"the submodule {path!r} has no directory: {error}") from None

    # -- git ------------------------------------------------------------------------------------

    def _git(
        self,
        directory: int,
        where: str,
        words: list[str],
        route: GitTransport = GitTransport(),  # noqa: B008 - frozen
    ) -> str:
        """What git prints. Raises :class:`_Failed`."""
        self._cancel.check()
        cage = [sys.executable, "-I", "-S", "-X", "utf8", git_sandbox.__file__]
        cage += [str(self._user[0]), str(self._user[1]), str(directory), "--"]
        with subprocess.Popen(
            [*cage, "git", *_SETTINGS, *route.settings, "-C", where, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**_VARIABLES, **route.variables},
            cwd="/",
            pass_fds=(directory,),
            start_new_session=True,
        ) as running:
            stdout, stderr = self._ended(running)
        if running.returncode:
            raise _Failed(_said(stderr))
        return os.fsdecode(stdout)

    def _ended(self, running: subprocess.Popen[bytes]) -> tuple[bytes, bytes]:
        waited = 0.0
        try:
            while True:
                try:
                    return running.communicate(timeout=0.5)
                except subprocess.TimeoutExpired:
                    self._cancel.check()
                    waited += 0.5
                    if waited > _PATIENCE:
                        raise Unavailable("git takes too long") from None
        except BaseException:
            _end(running)
            raise


class _Failed(Exception):
    """git ended with an error; ``said`` is what it printed."""

    def __init__(self, said: str) -> None:
        super().__init__(said)
        self.said = said


def _end(running: subprocess.Popen[bytes]) -> None:
    """Kill git and what it started: they are a session of their own."""
    try:
        os.killpg(running.pid, 9)
    except ProcessLookupError:
        return


def _said(stderr: bytes) -> str:
    lines = stderr[-_SAID:].decode("utf-8", "replace").splitlines()
    shown = [line for line in lines if line.startswith(_TELLING) or "denied" in line] or lines
    text = "; ".join(line.strip() for line in shown)
    return "".join(c for c in text if c.isprintable())


def _origins(listed: str) -> dict[str, str]:
    """Paths and addresses from ``git config -z --list`` of a ``.gitmodules``."""
    found: dict[str, dict[str, str]] = {}
    for item in listed.split("\0"):
        name, _, value = item.partition("\n")
        section, _, key = name.rpartition(".")
        if section.startswith("submodule.") and key in ("path", "url"):
            found.setdefault(section, {})[key] = value
    return {f["path"]: f["url"] for f in found.values() if len(f) == 2}


def _relative(base: str, text: str) -> str:
    """A submodule's address, which may be relative to the repository's."""
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
    """Whether a path is none of git's own."""
    return b".git" not in path.split(b"/")

"""Repositories: served by git itself on loopback, hostile ones among them."""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from base64 import b64encode
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from harness import git_server, landlock
from harness.build_context import listed
from harness.git_server import commit, git, repository
from jaula.errors import InvalidRequest, JaulaError, NotFound, Unavailable
from jaula.features.build.files.remote import git as remote_git
from jaula.features.build.files.remote.git import PROGRAM, GitRepositories
from jaula.features.build.files.remote.git_url import parse
from jaula.images.registry.cancellation import Cancellation
from jaula.kernel import mounts

pytestmark = [pytest.mark.needs(git_server.BACKEND), pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    top = tmp_path_factory.mktemp("repositories")
    with git_server.served(top) as address:
        yield address, top


def checked_out(
    top: Path, text: str, *, host_network: bool = True, secrets: Mapping[str, bytes] = {}
) -> dict[str, str]:
    """Return the working tree of an address, without git's own files."""
    place = top / "out"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    try:
        made = GitRepositories(Cancellation(), host_network=host_network, secret=secrets.get)
        made.check_out(parse(text), descriptor)
    finally:
        os.close(descriptor)
    return {k: v for k, v in listed(place / "tree").items() if ".git" not in k.split("/")}


def test_branches_tags_and_commits(tmp_path: Path, served: tuple[str, Path]) -> None:
    url, top = served
    place = repository(top, "refs", {"a": "1", "d/run": "#!/bin/sh\n"})
    (place / "d/run").chmod(0o755)
    first = commit(place, {"a": "2"})
    git(place, "tag", "v1")
    git(place, "checkout", "-q", "-b", "other")
    last = commit(place, {"a": "3"})
    git(place, "checkout", "-q", "main")
    who = "65534:65534"
    result = checked_out(tmp_path, f"{url}/refs.git")
    assert result == {"a": f"644 {who} 2", "d/": f"755 {who}", "d/run": f"755 {who} #!/bin/sh\n"}
    for ref, content in (("other", "3"), ("v1", "2"), (first, "2"), (last[:12], "3")):
        assert checked_out(tmp_path, f"{url}/refs.git#{ref}")["a"].endswith(content), ref
    with pytest.raises(InvalidRequest, match="was requested"):
        checked_out(tmp_path, f"{url}/refs.git?ref=main&commit=0123")
    with pytest.raises(NotFound, match="no branch, tag or commit 'nope'"):
        checked_out(tmp_path, f"{url}/refs.git#nope")
    with pytest.raises(NotFound):
        checked_out(tmp_path, f"{url}/refs.git#" + "0" * 40)


def test_no_such_repository(tmp_path: Path, served: tuple[str, Path]) -> None:
    with pytest.raises(Unavailable, match="cannot be fetched"):
        checked_out(tmp_path, f"{served[0]}/nope.git")


def test_the_hosts_own_services_are_not_for_builds(
    tmp_path: Path, served: tuple[str, Path]
) -> None:
    repository(served[1], "private", {"a": ""})
    with pytest.raises(InvalidRequest, match="an address of the host itself"):
        checked_out(tmp_path, f"{served[0]}/private.git", host_network=False)


def test_hooks_and_filters_of_a_repository_are_not_run(
    tmp_path: Path, served: tuple[str, Path]
) -> None:
    url, top = served
    mark = tmp_path / "ran"
    place = repository(top, "hooks", {"a": "x", ".gitattributes": "a filter=evil\n"})
    hook = place / ".git/hooks/post-checkout"
    hook.write_text(f"#!/bin/sh\ntouch {mark}\n")
    hook.chmod(0o755)
    git(place, "config", "filter.evil.smudge", f"touch {mark}")
    commit(place, {".gitconfig": f"[core]\n\tfsmonitor = touch {mark}\n"})
    assert checked_out(tmp_path, f"{url}/hooks.git")["a"].endswith("x")
    assert not mark.exists()


def test_a_repository_is_fetched_from_a_server_of_plain_files(tmp_path: Path) -> None:
    place = repository(tmp_path, "work", {"a": "1", "d/b": "x"})
    first = git(place, "rev-parse", "HEAD")
    git(place, "tag", "-a", "-m", "t", "v1")
    last = commit(place, {"a": "2"})
    top = tmp_path / "top"
    target = git_server.bare(place, top / "plain.git")
    with git_server.served_as_files(top) as (url, requests):
        for suffix, content in (
            ("", "2"),
            ("#main", "2"),
            ("#v1", "1"),
            ("#refs/heads/main", "2"),
            (f"#{first}", "1"),
            (f"#{first[:10]}", "1"),
            (f"?ref=main&commit={last}", "2"),
        ):
            assert checked_out(tmp_path, f"{url}/plain.git{suffix}")["a"].endswith(content), suffix
        git(target, "repack", "-adq")
        git(target, "update-server-info")
        assert checked_out(tmp_path, f"{url}/plain.git")["d/b"].endswith("x")
        for suffix in ("#absent", f"#{last[::-1]}"):
            with pytest.raises(NotFound):
                checked_out(tmp_path, f"{url}/plain.git{suffix}")
        with pytest.raises(InvalidRequest, match="address of the host itself"):
            checked_out(tmp_path, f"{url}/plain.git", host_network=False)
        assert not any(header for _, header in requests)


def test_a_server_of_plain_files_cannot_name_files_or_other_servers(tmp_path: Path) -> None:
    """Objects that ``alternates`` would bring are not fetched, and so are missing."""
    place = repository(tmp_path, "work", {"a": "1"})
    top = tmp_path / "top"
    target = git_server.bare(place, top / "plain.git")
    with git_server.served_as_files(tmp_path / "other") as (other, asked):
        shutil.copytree(target / "objects", tmp_path / "other" / "objects")
        shutil.rmtree(target / "objects")
        (target / "objects" / "info").mkdir(parents=True)
        for name, text in (
            ("http-alternates", f"{other}/objects/"),
            ("alternates", f"{tmp_path}/other/objects"),
            ("alternates", "/../../../../objects"),
        ):
            (target / "objects" / "info" / name).write_text(f"{text}\n")
            with (
                git_server.served_as_files(top) as (url, _),
                pytest.raises(Unavailable, match="cannot be fetched"),
            ):
                checked_out(tmp_path, f"{url}/plain.git")
        assert asked == []


def test_malformed_objects_of_a_server_of_plain_files_are_refused(tmp_path: Path) -> None:
    place = repository(tmp_path, "work", {"a": "1"})
    blob = git(place, "rev-parse", "HEAD:a")
    entry = b"100644 .gitmodules/x\0" + bytes.fromhex(blob)
    body = tmp_path / "tree"
    body.write_bytes(entry)
    tree = git(place, "hash-object", "-t", "tree", "-w", "--literally", str(body))
    made = git(place, "commit-tree", "-m", "x", tree)
    git(place, "update-ref", "refs/heads/evil", made)
    top = tmp_path / "top"
    git_server.bare(place, top / "plain.git")
    with git_server.served_as_files(top) as (url, _):
        with pytest.raises(InvalidRequest, match="damaged objects"):
            checked_out(tmp_path, f"{url}/plain.git#evil")
        assert checked_out(tmp_path, f"{url}/plain.git")["a"].endswith("1")


@pytest.mark.slow
def test_a_token_of_the_client_goes_to_its_repository_only(tmp_path: Path) -> None:
    inner = repository(tmp_path, "inner", {"in": "side"})
    outer = repository(tmp_path, "outer", {"a": ""})
    git(outer, "submodule", "add", "-q", str(inner), "m")
    git(outer, "config", "-f", ".gitmodules", "submodule.m.url", "../inner.git")
    commit(outer, {"b": ""})
    top = tmp_path / "top"
    git_server.bare(inner, top / "inner.git")
    git_server.bare(outer, top / "outer.git")
    with git_server.served_as_files(top) as (url, requests):
        host = url.removeprefix("http://")
        basic = "basic " + b64encode(b"x-access-token:t1").decode()
        for secrets, expected in (
            ({"GIT_AUTH_TOKEN": b"t1\n"}, basic),
            ({"GIT_AUTH_HEADER": b"Bearer x", "GIT_AUTH_TOKEN": b"t1"}, "Bearer x"),
            ({"GIT_AUTH_HEADER": b"Bearer x", f"GIT_AUTH_TOKEN.{host}": b"t1"}, basic),
            ({"GIT_AUTH_TOKEN.example.org": b"t1"}, ""),
        ):
            requests.clear()
            result = checked_out(tmp_path, f"{url}/outer.git", secrets=secrets)
            assert result["m/in"].endswith("side")
            assert {header for path, header in requests if "outer" in path} == {expected}
            assert {header for path, header in requests if "inner" in path} == {""}
        with pytest.raises(InvalidRequest, match="GIT_AUTH_HEADER is not"):
            checked_out(tmp_path, f"{url}/outer.git", secrets={"GIT_AUTH_HEADER": b"a\r\nX: y"})


def test_submodules_are_fetched_too(tmp_path: Path, served: tuple[str, Path]) -> None:
    url, top = served
    repository(top, "inner", {"in": "side"})
    place = repository(top, "outer", {"a": ""})
    git(place, "submodule", "add", "-q", str(top / "inner.git"), "mod/inner")
    git(place, "config", "-f", ".gitmodules", "submodule.mod/inner.url", "../inner.git")
    commit(place, {"b": ""})
    assert checked_out(tmp_path, f"{url}/outer.git")["mod/inner/in"].endswith("side")


@pytest.mark.parametrize(
    "origin", ["file:///etc", "/srv/x", "ext::sh -c id", "-u./evil", "ssh://-oProxyCommand=x/y"]
)
def test_a_submodule_by_another_protocol_is_refused(
    tmp_path: Path, served: tuple[str, Path], origin: str
) -> None:
    url, top = served
    name = f"sub{abs(hash(origin))}"
    repository(top, name + "inner", {"in": ""})
    place = repository(top, name, {"a": ""})
    git(place, "submodule", "add", "-q", str(top / f"{name}inner.git"), "m")
    git(place, "config", "-f", ".gitmodules", "submodule.m.url", origin)
    commit(place, {"b": ""})
    with pytest.raises(JaulaError, match=r"not a valid repository|disallowed submodule"):
        checked_out(tmp_path, f"{url}/{name}.git")


def test_git_cannot_read_or_write_files_of_the_host(
    tmp_path: Path, served: tuple[str, Path]
) -> None:
    """A program in the sandbox can read no private file, and can write only to its directory."""
    secret = tmp_path / "secret"
    secret.write_text("s")
    directory = tmp_path / "directory"
    directory.mkdir()
    os.chown(directory, 65534, 65534)
    script = (
        f"cat {secret}; cat /root/.bashrc; touch /var/tmp/x-{os.getpid()}; id -u; pwd; "
        "touch inside; mount -t tmpfs x /tmp"
    )
    done = sandboxed(directory, "sh", "-c", script)
    assert done.stdout.split() == ["65534", "/tmp"], done
    assert (directory / "inside").exists()
    assert not Path(f"/var/tmp/x-{os.getpid()}").exists()


@pytest.fixture
def public() -> Iterator[Path]:
    """Yield a directory that every user of the host may enter, as they may none of pytest."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        os.chmod(name, 0o755)
        yield Path(name)


def _errors(attempts: str, directory: Path, *words: str, unix: bool = True) -> dict[str, int]:
    """Return the errno of each attempt of a program in the sandbox, 0 if it was possible."""
    os.chown(directory, 65534, 65534)
    command = ("python3", "-I", "-S", "-c", attempts + _TRY_ALL, *words)
    done = sandboxed(directory, *command, unix=unix)
    assert done.returncode == 0, done.stderr
    errors: dict[str, int] = json.loads(done.stdout)
    return errors


_TRY_ALL = """
results = {}
for name, attempt in TABLE.items():
    try:
        attempt()
        results[name] = 0
    except OSError as error:
        results[name] = error.errno
print(json.dumps(results))
"""

BEYOND_THE_RULES = """
import json, os, socket, sys
place = sys.argv[1]
TABLE = {
    "read": lambda: open(place + "/notes").close(),
    "list": lambda: os.listdir(place),
    "status of a process": lambda: open("/proc/self/status").close(),
    "execute": lambda: os.execv(place + "/tool", ["tool"]),
    "port": lambda: socket.socket().bind(("127.0.0.1", 0)),
}
"""


@pytest.mark.skipif(landlock.abi() < 4, reason="needs Linux 6.7")
def test_landlock_hides_what_every_user_of_the_host_may_use(tmp_path: Path, public: Path) -> None:
    """The ids of git, its mounts and its filter allow each of these."""
    (public / "notes").write_text("of another user")
    (public / "tool").write_text("#!/bin/sh\n")
    (public / "tool").chmod(0o755)
    results = _errors(BEYOND_THE_RULES, tmp_path, str(public))
    assert len(results) == 5
    assert set(results.values()) == {errno.EACCES}, results


ATTRIBUTES = """
import json, os, sys
files = sys.argv[1:]
TABLE = {
    f"{change.__name__} {file}": lambda file=file, change=change, value=value: change(file, value)
    for file in files
    for change, value in ((os.chmod, 0o666), (os.utime, (1, 1)))
}
"""


def test_files_of_gits_own_user_keep_their_attributes(tmp_path: Path, public: Path) -> None:
    """Landlock does not check chmod(2) and utime(2): a mount that is read-only refuses them.

    So does each mount below: /dev/shm is one.
    """
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        os.chmod(name, 0o755)
        files = [public / "file", Path(name) / "file"]
        for file in files:
            file.write_text("")
            file.chmod(0o600)
            os.chown(file, 65534, 65534)
        before = [(file.stat().st_mode, file.stat().st_mtime_ns) for file in files]
        results = _errors(ATTRIBUTES, tmp_path, *map(str, files))
        after = [(file.stat().st_mode, file.stat().st_mtime_ns) for file in files]
    assert len(results) == 4
    assert set(results.values()) == {errno.EROFS}, results
    assert after == before


def test_no_mount_of_git_gives_an_id_a_device_or_a_program(tmp_path: Path) -> None:
    script = "import os; print(*(os.statvfs(path).f_flag for path in ('/', '/dev/shm', '/tmp')))"
    os.chown(tmp_path, 65534, 65534)
    done = sandboxed(tmp_path, "python3", "-I", "-S", "-c", script)
    root, below, directory = map(int, done.stdout.split())
    assert (root & below) & (os.ST_RDONLY | os.ST_NOSUID) == os.ST_RDONLY | os.ST_NOSUID
    own = os.ST_NOSUID | os.ST_NODEV | os.ST_NOEXEC
    assert directory & (own | os.ST_RDONLY) == own


HELD = """
import os
held = []
for fd in range(1024):
    try:
        os.fstat(fd)
    except OSError:
        continue
    held.append(fd)
print(held)
"""


def test_git_inherits_no_descriptor(tmp_path: Path) -> None:
    """The directory at its place on the host would be one: there it has no flag of a mount."""
    os.chown(tmp_path, 65534, 65534)
    done = sandboxed(tmp_path, "python3", "-I", "-S", "-c", HELD)
    assert done.stdout == "[0, 1, 2]\n", done


def test_a_build_that_has_ended_starts_no_git(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[list[str]] = []

    class Recorded(subprocess.Popen[bytes]):
        def __init__(self, words: list[str], **options: Any) -> None:
            started.append(words)
            super().__init__(words, **options)

    monkeypatch.setattr(remote_git.subprocess, "Popen", Recorded)
    cancel = Cancellation()
    cancel.cancel()
    descriptor = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with pytest.raises(JaulaError, match="cancelled"):
            GitRepositories(cancel, host_network=True).check_out(
                parse("http://127.0.0.1:1/x.git"), descriptor
            )
    finally:
        os.close(descriptor)
    assert started == []


def test_a_fetch_is_cancelled(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        cancel = Cancellation()
        timer = threading.Timer(1.0, cancel.cancel)
        timer.start()
        descriptor = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            address = parse(f"http://127.0.0.1:{silent.getsockname()[1]}/x.git")
            with pytest.raises(JaulaError, match="cancelled"):
                GitRepositories(cancel, host_network=True).check_out(address, descriptor)
        finally:
            os.close(descriptor)
            timer.join()


@pytest.mark.needs("ssh-add")
def test_the_ssh_agent_of_the_client_is_available_in_the_sandbox(tmp_path: Path) -> None:
    """A program that git starts for an ssh address can reach the agent in its directory."""
    directory = tmp_path / "directory"
    directory.mkdir()
    os.chown(directory, 65534, 65534)
    with socket.socket(socket.AF_UNIX) as agent:
        agent.bind(str(directory / "agent"))
        agent.listen()
        os.chown(directory / "agent", 65534, 65534)

        def serve() -> None:
            client, _ = agent.accept()
            with client:
                while client.recv(100):
                    client.sendall(b"\0\0\0\5\x0c\0\0\0\0")  # no keys (RFC draft-miller-ssh-agent)

        thread = threading.Thread(target=serve)
        thread.start()
        done = sandboxed(directory, "ssh-add", "-l", SSH_AUTH_SOCK="/tmp/agent")
        thread.join()
    assert done.stdout == "The agent has no identities.\n", done


def test_git_and_its_helper_have_no_privilege_as_the_kernel_shows_it(tmp_path: Path) -> None:
    """A server that does not answer holds them."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        cancel = Cancellation()
        descriptor = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
        address = parse(f"http://127.0.0.1:{silent.getsockname()[1]}/x.git")

        def fetch() -> None:
            with pytest.raises(JaulaError, match="cancelled"):
                GitRepositories(cancel, host_network=True).check_out(address, descriptor)

        thread = threading.Thread(target=fetch)
        thread.start()
        try:
            silent.settimeout(60)
            with silent.accept()[0]:
                found = {pid: _state(pid) for pid in _descendants(os.getpid())}
                held = {pid for pid in found if _holds(pid, tmp_path)}
        finally:
            cancel.cancel()
            thread.join()
            os.close(descriptor)
    confined = {pid: facts for pid, facts in found.items() if facts["Name"].startswith("git")}
    assert {facts["Name"] for facts in confined.values()} == {"git", "git-remote-http"}
    assert held.isdisjoint(confined)
    for pid, facts in confined.items():
        assert facts["Uid"].split() == facts["Gid"].split() == ["65534"] * 4
        assert facts["Groups"] == ""
        for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            assert int(facts[name], 16) == 0, name
        assert (facts["NoNewPrivs"], facts["Seccomp"]) == ("1", "2")
        assert facts["NSpid"].split()[0] == str(pid)
        assert len(facts["NSpid"].split()) == 1 + len(_state(os.getpid())["NSpid"].split())
        assert facts["Max data size"] == str(2 << 30)
        assert facts["Max file size"] == str(16 << 30)
        assert int(facts["Max cpu time"]) <= 1800
        assert int(facts["Max processes"]) <= 1024
        assert facts["oom_score_adj"] == "800"  # as of each sandboxed process
        deadline = time.monotonic() + 30
        while Path(f"/proc/{pid}").exists():  # the kernel ends what is left of its pid namespace
            assert time.monotonic() < deadline
            time.sleep(0.01)


ATTEMPTS = """
import json, mmap, os, socket, sys, ctypes
libc = ctypes.CDLL(None, use_errno=True)
def call(*arguments):
    if libc.syscall(*arguments) < 0:
        raise OSError(ctypes.get_errno(), "")
def listen():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
def run():
    with open("/tmp/tool", "w") as file:
        file.write("#!/bin/sh\\n")
    os.chmod("/tmp/tool", 0o755)
    os.execv("/tmp/tool", ["tool"])
TABLE = {
    "unix": lambda: socket.socket(socket.AF_UNIX),
    "packet": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW),
    "alg": lambda: socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET),
    "vsock": lambda: socket.socket(socket.AF_VSOCK),
    "netlink of audit": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 9),
    "listen": listen,
    "executable memory": lambda: mmap.mmap(-1, 4096, prot=7),
    "user namespace": lambda: call(272, 0x10000000),
    "ptrace": lambda: call(101, 0, 0, 0, 0),
    "mount": lambda: call(165, 0, 0, 0, 0, 0),
    "keyctl": lambda: call(250, 0, -3, 0),
    "bpf": lambda: call(321, 0, 0, 0),
    "io_uring": lambda: call(425, 1, 0),
    "parent death signal": lambda: call(157, 1, 0),
    "kill": lambda: os.kill(int(sys.argv[1]), 0),
    "exec": run,
    "write elsewhere": lambda: open("/var/tmp/never-made", "w"),
    "inet": lambda: socket.socket(),
    "netlink": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0),
    "write": lambda: open("/tmp/made", "w"),
}
"""


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="numbers of system calls")
def test_a_taken_over_git_finds_every_way_out_refused(tmp_path: Path) -> None:
    results = _errors(ATTEMPTS, tmp_path, str(os.getpid()), unix=False)
    allowed = {name for name, number in results.items() if number == 0}
    assert allowed == {"inet", "netlink", "write"}, results
    expected = {errno.EPERM, errno.EACCES, errno.EROFS, errno.ESRCH, errno.ENOSYS}
    assert set(results.values()) - {0} <= expected, results


def _hostile(place: Path, entries: bytes, levels: int, files: int) -> None:
    """Commit a tree of ``files`` names of one object, at each of ``levels``."""
    kind, name = b"100644 blob ", entries
    for _ in range(levels):
        lines = b"".join(b"%s%s\t%06d\n" % (kind, name, index) for index in range(files))
        made = subprocess.run(
            ["git", "-C", str(place), "mktree"], input=lines, check=True, capture_output=True
        )
        kind, name = b"040000 tree ", made.stdout.strip()
    commit_id = git(place, "commit-tree", "-m", "x", name.decode())
    git(place, "update-ref", "refs/heads/main", commit_id)


def test_trees_that_repeat_are_not_checked_out(
    tmp_path: Path, served: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten levels of ten entries each: ten thousand million files in some hundred bytes."""
    url, top = served
    place = repository(top, "repeated", {"a": "x"})
    _hostile(place, git(place, "rev-parse", "HEAD:a").encode(), 10, 10)
    monkeypatch.setattr(remote_git, "_OUTPUT_LIMIT", 1 << 20)
    with pytest.raises(InvalidRequest, match="names of a repository's files take more than 1 MiB"):
        checked_out(tmp_path, f"{url}/repeated.git")
    assert os.listdir(tmp_path / "out/tree") == [".git"]


def test_more_bytes_than_the_limit_are_not_checked_out(
    tmp_path: Path, served: tuple[str, Path]
) -> None:
    """A file of zeros with three hundred names: 19 GB in some kilobytes."""
    url, top = served
    place = repository(top, "zeros", {"a": "x"})
    with open(place / "zeros", "wb") as file:
        file.truncate(64 << 20)
    _hostile(place, git(place, "hash-object", "-w", "zeros").encode(), 1, 300)
    with pytest.raises(InvalidRequest, match="too large to be checked out: 300 files with"):
        checked_out(tmp_path, f"{url}/zeros.git")
    assert os.listdir(tmp_path / "out/tree") == [".git"]


def test_git_leaves_space_on_the_disk(tmp_path: Path, served: tuple[str, Path]) -> None:
    url, top = served
    repository(top, "small", {"a": "x"})
    place = tmp_path / "disk"
    place.mkdir()
    mounts.mount("tmpfs", str(place), "tmpfs", 0, "size=32m")
    try:
        assert checked_out(place, f"{url}/small.git")["a"].endswith("x")
        (place / "file").write_bytes(bytes(31 << 20))
        with pytest.raises(Unavailable, match="too little space on the disk"):
            checked_out(place, f"{url}/small.git")
    finally:
        mounts.umount2(str(place), 2)


def test_links_of_a_repository_are_never_followed(tmp_path: Path, served: tuple[str, Path]) -> None:
    """A link out is checked out as a link; a submodule beneath one is refused."""
    url, top = served
    victim = tmp_path / "victim"
    victim.mkdir(mode=0o777)
    victim.chmod(0o777)
    place = repository(top, "links", {"a": "x"})
    (place / "out").symlink_to(victim)
    (place / "host").symlink_to("/etc/passwd")
    commit(place, {})
    tree = checked_out(tmp_path, f"{url}/links.git")
    assert tree["out"].endswith(str(victim))
    assert tree["host"].endswith("/etc/passwd")
    inner = repository(top, "links-inner", {"in": "x"})
    git(place, "config", "-f", ".gitmodules", "submodule.m.path", "out/m")
    git(place, "config", "-f", ".gitmodules", "submodule.m.url", "../links-inner.git")
    git(place, "add", ".gitmodules")
    head = git(inner, "rev-parse", "HEAD")
    git(place, "rm", "-q", "--cached", "out")
    git(place, "update-index", "--add", "--cacheinfo", f"160000,{head},out/m")
    (victim / "m").mkdir(mode=0o777)
    link = git(place, "rev-parse", "HEAD:out")
    tree_id = git(place, "write-tree")
    listing = git(place, "ls-tree", tree_id).splitlines()
    listing.append(f"120000 blob {link}\tout")
    made = subprocess.run(
        ["git", "-C", str(place), "mktree"],
        input="\n".join(listing).encode() + b"\n",
        check=True,
        capture_output=True,
    )
    git(
        place,
        "update-ref",
        "refs/heads/main",
        git(place, "commit-tree", "-m", "x", made.stdout.decode().strip()),
    )
    with pytest.raises(JaulaError, match=r"cannot be fetched|is not a directory"):
        checked_out(tmp_path, f"{url}/links.git")
    assert os.listdir(victim / "m") == []


def _descendants(pid: int) -> list[int]:
    children: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        children += map(int, (task / "children").read_text().split())
    return children + [below for child in children for below in _descendants(child)]


def _holds(pid: int, path: Path) -> bool:
    """Return whether a process has a descriptor of a file."""
    place = Path(f"/proc/{pid}/fd")
    return any(os.path.samefile(each, path) for each in place.iterdir() if each.exists())


def _state(pid: int) -> dict[str, str]:
    """Return what the kernel says about a process: its status, soft limits and oom_score_adj."""
    place = Path(f"/proc/{pid}")
    facts = {
        name: value.strip()
        for name, _, value in (
            line.partition(":") for line in (place / "status").read_text().splitlines()
        )
    }
    for line in (place / "limits").read_text().splitlines()[1:]:
        facts[line[:26].strip()] = line[26:].split()[0]
    facts["oom_score_adj"] = (place / "oom_score_adj").read_text().strip()
    return facts


def sandboxed(
    directory: Path, *words: str, unix: bool = True, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a program in the sandbox."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    settings = {
        "path": [os.path.abspath(name) for name in sys.path if name],
        "ids": (65534, 65534),
        "directory": descriptor,
        "mount_point": "/tmp",
        "unix": unix,
        "engine": os.getpid(),
    }
    command = [sys.executable, "-I", "-S", PROGRAM, json.dumps(settings)]
    try:
        return subprocess.run(
            [*command, *words],
            env={**os.environ, **variables},
            pass_fds=(descriptor,),
            capture_output=True,
            text=True,
        )
    finally:
        os.close(descriptor)

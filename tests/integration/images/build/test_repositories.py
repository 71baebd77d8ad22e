"""Repositories: served by git itself on loopback, hostile ones among them."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from harness.copying import listed
from jaula.errors import InvalidRequest, JaulaError, NotFound, Unavailable
from jaula.images.build.gitaddress import parse
from jaula.images.build.repositories import Repositories
from jaula.images.registry.cancellation import Cancellation

pytestmark = [pytest.mark.needs("git"), pytest.mark.timeout(240)]
BACKEND = "/usr/lib/git-core/git-http-backend"
AUTHOR = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a"}
ENVIRONMENT = {**os.environ, **AUTHOR, "GIT_COMMITTER_EMAIL": "a@b", "HOME": "/nonexistent"}


def git(where: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", "-c", "protocol.file.allow=always", "-C", str(where), *words],
        env=ENVIRONMENT,
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip()


def repository(top: Path, name: str, files: dict[str, str]) -> Path:
    """A repository with one commit on the branch ``main``."""
    place = top / f"{name}.git"
    place.mkdir(parents=True)
    git(place, "init", "-q", "-b", "main")
    commit(place, files)
    return place


def commit(place: Path, files: dict[str, str]) -> str:
    for path, content in files.items():
        target = place / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content)
    git(place, "add", "-A")
    git(place, "commit", "-q", "-m", "x")
    return git(place, "rev-parse", "HEAD")


class Handler(BaseHTTPRequestHandler):
    """git-http-backend behind the standard library's server."""

    root = Path()

    def do_GET(self) -> None:
        self._serve(b"")

    def do_POST(self) -> None:
        self._serve(self.rfile.read(int(self.headers.get("Content-Length", 0))))

    def _serve(self, body: bytes) -> None:
        path, _, query = self.path.partition("?")
        variables = {
            **os.environ,
            "GIT_PROJECT_ROOT": str(self.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "safe.directory",
            "GIT_CONFIG_VALUE_0": "*",
        }
        done = subprocess.run([BACKEND], input=body, env=variables, capture_output=True)
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().splitlines() if ": " in line)
        self.send_response(int(headers.pop("Status", "200").split()[0]))
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        return


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    if not os.path.exists(BACKEND):
        pytest.skip("git-http-backend is not installed")
    top = tmp_path_factory.mktemp("repositories")
    handler = type("Served", (Handler,), {"root": top})
    held = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    held.daemon_threads = True
    thread = threading.Thread(target=held.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{held.server_port}", top
    held.shutdown()
    held.server_close()
    thread.join()


def checked_out(top: Path, text: str, *, host_network: bool = True) -> dict[str, str]:
    """The working tree of an address, without git's own files."""
    place = top / "out"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    try:
        made = Repositories(Cancellation(), host_network=host_network)
        made.check_out(parse(text), descriptor)
    finally:
        os.close(descriptor)
    return {k: v for k, v in listed(place).items() if ".git" not in k.split("/")}


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
    found = checked_out(tmp_path, f"{url}/refs.git")
    assert found == {"a": f"644 {who} 2", "d/": f"755 {who}", "d/run": f"755 {who} #!/bin/sh\n"}
    for ref, content in (("other", "3"), ("v1", "2"), (first, "2"), (last[:12], "3")):
        assert checked_out(tmp_path, f"{url}/refs.git#{ref}")["a"].endswith(content), ref
    with pytest.raises(InvalidRequest, match="was asked for"):
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
    with pytest.raises(InvalidRequest, match="for the host alone"):
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
    with pytest.raises(JaulaError, match=r"no repository|disallowed submodule"):
        checked_out(tmp_path, f"{url}/{name}.git")


def test_git_reads_and_writes_nothing_of_the_host(tmp_path: Path, served: tuple[str, Path]) -> None:
    """What runs in git's place can read no private file, and write only in its room."""
    from jaula.images.build import gitcage

    secret = tmp_path / "secret"
    secret.write_text("s")
    room = tmp_path / "room"
    room.mkdir()
    os.chown(room, 65534, 65534)
    descriptor = os.open(room, os.O_RDONLY | os.O_DIRECTORY)
    script = (
        f"cat {secret}; cat /root/.bashrc; touch /var/tmp/x-{os.getpid()}; id -u; "
        "grep -E 'Cap(Eff|Prm|Bnd)|NoNewPrivs' /etc/../proc/self/status; pwd; touch inside; "
        "mount -t tmpfs x /tmp"
    )
    try:
        import sys

        command = [sys.executable, "-I", "-S", gitcage.__file__, "65534", "65534"]
        done = subprocess.run(
            [*command, str(descriptor), "--", "sh", "-c", script],
            pass_fds=(descriptor,),
            capture_output=True,
            text=True,
        )
    finally:
        os.close(descriptor)
    assert done.stdout.split() == ["65534", "/tmp"], done
    assert (room / "inside").exists()
    assert not Path(f"/var/tmp/x-{os.getpid()}").exists()


def test_a_fetch_is_cancelled(tmp_path: Path) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        cancel = Cancellation()
        timer = threading.Timer(1.0, cancel.cancel)
        timer.start()
        descriptor = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            address = parse(f"http://127.0.0.1:{silent.getsockname()[1]}/x.git")
            with pytest.raises(JaulaError, match="cancelled"):
                Repositories(cancel, host_network=True).check_out(address, descriptor)
        finally:
            os.close(descriptor)
            timer.join()

"""Contexts and sources that the engine fetches, for builds with the host's network."""

from __future__ import annotations

import hashlib
import subprocess
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from harness import git_server
from harness.git_server import commit, git, repository
from harness.images import archive, file

pytestmark = [pytest.mark.needs(git_server.BACKEND), pytest.mark.timeout(240)]
Run = Callable[..., "subprocess.CompletedProcess[str]"]
HOST = ("--network", "host")


class Handler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        return


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Yield a file server and its directory."""
    top = tmp_path / "web"
    top.mkdir()
    held = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(top)))
    thread = threading.Thread(target=held.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{held.server_port}", top
    held.shutdown()
    held.server_close()
    thread.join()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    top = tmp_path / "repositories"
    top.mkdir()
    with git_server.served(top) as address:
        yield address, top


def done(jaula: Run, *words: str, **options: object) -> str:
    """Return the id of the image."""
    built = jaula("build", "-q", *HOST, *words, **options)
    assert built.returncode == 0, built.stderr
    return built.stdout.strip()


def out(jaula: Run, image: str, *words: str) -> str:
    ran = jaula("run", "--rm", image, *words)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_a_git_repository_is_a_context(jaula: Run, busybox: str, served: tuple[str, Path]) -> None:
    url, top = served
    files = {"sub/Dockerfile": f"FROM {busybox}\nCOPY . /c\n", "sub/a": "1", "sub/no": "", "b": ""}
    place = repository(top, "context", files | {"sub/.dockerignore": "no\n.dockerignore\n"})
    git(place, "tag", "v1")
    commit(place, {"sub/a": "2"})
    image = done(jaula, f"{url}/context.git#v1:sub")
    assert out(jaula, image, "sh", "-c", "cat /c/a; ls -A /c") == "1Dockerfile\na\n"
    image = done(jaula, "-f", "sub/Dockerfile", f"{url}/context.git")
    assert out(jaula, image, "cat", "/c/sub/a") == "2"


def test_add_clones_a_git_repository(jaula: Run, busybox: str, served: tuple[str, Path]) -> None:
    url, top = served
    place = repository(top, "added", {"d/x": "content", "y": ""})
    head = git(place, "rev-parse", "HEAD")
    text = (
        f"FROM {busybox}\n"
        f"ADD --chown=7:8 --checksum={head[:10]} {url}/added.git#main:d /without\n"
        f"ADD --keep-git-dir=true {url}/added.git /with/\n"
    )
    image = done(jaula, "-", input=text)
    reported = out(jaula, image, "sh", "-c", "ls -A /without /with; stat -c %u:%g /without/x")
    assert reported.split() == ["/with:", ".git", "d", "y", "/without:", "x", "7:8"]
    failed = jaula(
        "build", *HOST, "-", input=f"FROM {busybox}\nADD --checksum=00 {url}/added.git /"
    )
    assert failed.returncode == 1 and "00 was requested" in failed.stderr


def test_a_moved_branch_misses_the_cache(
    jaula: Run, busybox: str, served: tuple[str, Path]
) -> None:
    url, top = served
    place = repository(top, "moving", {"x": "1"})
    text = f"FROM {busybox}\nADD {url}/moving.git#main /r\n"
    first = done(jaula, "-", input=text)
    assert done(jaula, "-", input=text) == first
    commit(place, {"x": "2"})
    assert out(jaula, done(jaula, "-", input=text), "cat", "/r/x") == "2"


def test_add_downloads_a_url(jaula: Run, busybox: str, web: tuple[str, Path]) -> None:
    url, top = web
    (top / "plain.txt").write_text("plain")
    (top / "a.tar").write_bytes(archive([file("in", b"side")]))
    digest = hashlib.sha256(b"plain").hexdigest()
    text = (
        f"FROM {busybox}\n"
        f"ADD --checksum=sha256:{digest} {url}/plain.txt /d/\n"
        f"ADD --chmod=644 {url}/plain.txt /named\n"
        f"ADD {url}/a.tar /kept/\nADD --unpack=true {url}/a.tar /opened/\n"
    )
    image = done(jaula, "-", input=text)
    script = "stat -c %a /d/plain.txt /named; ls /kept /opened; cat /opened/in"
    assert out(jaula, image, "sh", "-c", script).split() == [
        *("600", "644"),
        *("/kept:", "a.tar", "/opened:", "in", "side"),
    ]
    wrong = f"FROM {busybox}\nADD --checksum=sha256:{'0' * 64} {url}/plain.txt /\n"
    failed = jaula("build", *HOST, "-", input=wrong)
    assert failed.returncode == 1 and digest in failed.stderr


@pytest.mark.parametrize("kind", ["Dockerfile", "context.tar"])
def test_a_url_is_a_context(jaula: Run, busybox: str, web: tuple[str, Path], kind: str) -> None:
    url, top = web
    text = f"FROM {busybox}\nRUN echo made > /made\n".encode()
    (top / "Dockerfile").write_bytes(text)
    (top / "context.tar").write_bytes(archive([file("Dockerfile", text)]))
    assert out(jaula, done(jaula, f"{url}/{kind}"), "cat", "/made") == "made\n"


def test_without_the_host_network_the_services_of_the_host_are_unreachable(
    jaula: Run, busybox: str, web: tuple[str, Path], served: tuple[str, Path]
) -> None:
    repository(served[1], "x", {"Dockerfile": f"FROM {busybox}"})
    (web[1] / "f").write_text("x")
    for words, text in (
        ([f"{served[0]}/x.git"], ""),
        ([f"{web[0]}/f"], ""),
        (["-"], f"FROM {busybox}\nADD {web[0]}/f /\n"),
        (["-"], f"FROM {busybox}\nADD {served[0]}/x.git /\n"),
        (["-"], f"FROM {busybox}\nADD http://169.254.169.254/latest/meta-data /\n"),
    ):
        failed = jaula("build", *words, input=text)
        assert failed.returncode == 1, (words, failed.stderr)
        assert "an address of the host itself" in failed.stderr


def test_local_git_protocols_are_refused(jaula: Run, busybox: str, tmp_path: Path) -> None:
    repository(tmp_path, "local", {"a": ""})
    for source in (f"file://{tmp_path}/local.git", f"{tmp_path}/local.git", "ext::sh -c id.git"):
        failed = jaula("build", *HOST, "-", input=f'FROM {busybox}\nADD ["{source}", "/"]\n')
        assert failed.returncode == 1 and "is not in the build context" in failed.stderr

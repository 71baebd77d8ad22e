"""Files from the web, of a scripted server on loopback."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from harness.build_context import LOCATION, listed
from harness.images import archive, file
from jaula.errors import InvalidRequest, JaulaError, Unavailable
from jaula.features.build.files.copy_files import prepare
from jaula.features.build.files.remote.git import GitRepositories
from jaula.features.build.files.remote.http_download import Download, Downloads
from jaula.features.build.files.remote.remote import RemoteSources
from jaula.images.dockerfile.ast import Add
from jaula.images.registry.cancellation import Cancellation, Cancelled
from jaula.images.registry.http.proxy_choice import Proxies
from jaula.images.registry.timeouts import Timeouts

CONTENT = b"hello\n" * 1000
DIGEST = "sha256:" + hashlib.sha256(CONTENT).hexdigest()
DATE = "Sun, 06 Nov 1994 08:49:37 GMT"
MOMENT = 784111777


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/circle":
            self._answer(302, b"", Location="/circle")
        elif path == "/moved":
            self._answer(301, b"", Location="/sub/file.txt")
        elif path == "/short":
            self.send_response(200)
            self.send_header("Content-Length", "99999")
            self.end_headers()
            self.wfile.write(b"x")
            self.close_connection = True
        elif path == "/slow":
            self.send_response(200)
            self.send_header("Content-Length", "99999")
            self.end_headers()
            self.wfile.flush()
            threading.Event().wait(20)
        elif path == "/nothing":
            self._answer(404, b"none")
        elif path == "/tar":
            self._answer(200, archive([file("in/side", b"x")]))
        elif path == "/dockerfile":
            self._answer(200, b"FROM scratch\n")
        elif path == "/elsewhere":
            self._answer(302, b"", Location="file:///etc/passwd")
        else:
            self._answer(200, CONTENT, **{"Last-Modified": DATE})

    def _answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        return


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    held = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    held.daemon_threads = True
    thread = threading.Thread(target=held.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{held.server_port}"
    held.shutdown()
    held.server_close()
    thread.join()


def downloads(*, host_network: bool = True, stall: float = 60) -> Downloads:
    timeouts = Timeouts(stall=stall, connect=3, window=2)
    return Downloads(
        Proxies("", "", ""), Cancellation(), host_network=host_network, timeouts=timeouts
    )


def fetched(top: Path, url: str, **options: float) -> Download:
    target = os.open(top / "target", os.O_CREAT | os.O_WRONLY, 0o600)
    try:
        return downloads(**options).fetch(url, target)  # type: ignore[arg-type]
    finally:
        os.close(target)


@pytest.mark.parametrize("path", ["/sub/file.txt", "/sub/file.txt?a=b#c", "/sub/file%2Etxt"])
def test_a_file_is_fetched(tmp_path: Path, server: str, path: str) -> None:
    result = fetched(tmp_path, server + path)
    assert result == Download("file.txt", DIGEST, len(CONTENT), MOMENT)
    assert (tmp_path / "target").read_bytes() == CONTENT


def test_a_redirect_is_followed_and_the_first_name_counts(tmp_path: Path, server: str) -> None:
    assert fetched(tmp_path, server + "/moved").name == "moved"


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("/circle", "more than 10 times"),
        ("/nothing", "404"),
        ("/short", "ended after"),
        ("/elsewhere", "not a valid URL"),
    ],
)
def test_a_failed_download_is_one_clear_error(
    tmp_path: Path, server: str, path: str, error: str
) -> None:
    with pytest.raises(JaulaError, match=error):
        fetched(tmp_path, server + path)


@pytest.mark.parametrize(
    "url", ["http://", "https:///x", "http://a b/", "http://u:p@h/x", "http://h/\r\nX: y"]
)
def test_an_invalid_url_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(InvalidRequest, match="not a valid URL"):
        fetched(tmp_path, url)


def test_the_hosts_own_services_are_not_for_builds(tmp_path: Path, server: str) -> None:
    port = server.rpartition(":")[2]
    for host in ("127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "127.1"):
        with pytest.raises((InvalidRequest, Unavailable)):
            fetched(tmp_path, f"http://{host}:{port}/sub/file.txt", host_network=False)
    with pytest.raises(InvalidRequest, match="an address of the host itself"):
        fetched(tmp_path, server + "/sub/file.txt", host_network=False)


def test_a_closed_port_is_reported(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="refused"):
        fetched(tmp_path, "http://127.0.0.1:1/x")


def test_a_stalled_server_times_out(tmp_path: Path, server: str) -> None:
    with pytest.raises(Unavailable):
        fetched(tmp_path, server + "/slow", stall=1)


def test_a_download_is_cancelled_at_once(tmp_path: Path, server: str) -> None:
    cancel = Cancellation()
    fetching = Downloads(Proxies("", "", ""), cancel, host_network=True)
    timer = threading.Timer(0.3, cancel.cancel)
    timer.start()
    target = os.open(tmp_path / "t", os.O_CREAT | os.O_WRONLY)
    try:
        with pytest.raises(Cancelled):
            fetching.fetch(server + "/slow", target)
    finally:
        os.close(target)
        timer.join()


# -- ADD -------------------------------------------------------------------------------------------


@pytest.fixture
def remotes(tmp_path: Path) -> Iterator[RemoteSources]:
    directory = tmp_path / "fetched"
    directory.mkdir()
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    with RemoteSources(descriptor, downloads, lambda: GitRepositories(Cancellation())) as made:
        yield made
    os.close(descriptor)


def added(
    tmp_path: Path, remotes: RemoteSources, url: str, to: str, **options: object
) -> dict[str, str]:
    root = tmp_path / "root"
    root.mkdir(exist_ok=True)
    instruction = Add(LOCATION, "ADD", (url,), to, **options)  # type: ignore[arg-type]
    taking = prepare(instruction, None, remotes)
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        assert taking.digest() == taking.digest()
        taking.copy_to(descriptor, "/", None)
    finally:
        os.close(descriptor)
    return listed(root)


def test_an_address_is_added(tmp_path: Path, server: str, remotes: RemoteSources) -> None:
    result = added(tmp_path, remotes, server + "/sub/file.txt", "/d/", checksum=DIGEST)
    assert result["d/file.txt"] == "600 0:0 " + CONTENT.decode()
    assert (tmp_path / "root/d/file.txt").stat().st_mtime == MOMENT
    assert "named" in added(tmp_path, remotes, server + "/sub/file.txt", "/named")


def test_a_downloaded_archive_is_unpacked_only_on_request(
    tmp_path: Path, server: str, remotes: RemoteSources
) -> None:
    assert "a/tar" in added(tmp_path, remotes, server + "/tar", "/a/")
    assert "b/in/side" in added(tmp_path, remotes, server + "/tar", "/b/", unpack=True)


@pytest.mark.parametrize("checksum", ["sha256:" + "0" * 64, "sha256:zz", "md5:00", "sha512:00"])
def test_a_wrong_checksum_is_an_error(
    tmp_path: Path, server: str, remotes: RemoteSources, checksum: str
) -> None:
    with pytest.raises(InvalidRequest, match=checksum):
        added(tmp_path, remotes, server + "/x", "/", checksum=checksum)


def test_an_address_without_a_name_needs_one(
    tmp_path: Path, server: str, remotes: RemoteSources
) -> None:
    with pytest.raises(InvalidRequest, match="does not end with a file name"):
        added(tmp_path, remotes, server + "/", "/d/")


def test_a_context_can_be_an_address(tmp_path: Path, server: str, remotes: RemoteSources) -> None:
    from jaula.features.build.files.context_directory import fetch

    directory = tmp_path / "context"
    directory.mkdir()
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        assert fetch(server + "/dockerfile", descriptor, remotes) == "FROM scratch\n"
        assert fetch(server + "/tar", descriptor, remotes) is None
    finally:
        os.close(descriptor)
    assert set(listed(directory)) == {"in/", "in/side"}

"""A listener on another port of the view's host name receives no secret of a browser.

The listener is a program of the host, or a container with a published port. The same context of a
browser looks at the view and at the listener, whose page attacks the view with all that it has.
"""

from __future__ import annotations

import contextlib
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from browser.conftest import TIMEOUT, show
from harness import containers
from harness.engine import PrivateEngine
from harness.oidc_issuer import Issuer, metadata
from harness.web_view import WebView, web_view

PAGE = "<!doctype html><title>other</title><body>other"
SCRIPT = f"""
while read -r line; do
    echo "$line" >>/tmp/heads
    [ "$line" = "$(printf '\\r')" ] && break
done
printf 'HTTP/1.1 200 OK\\r\\nContent-Type: text/html\\r\\nConnection: close\\r\\n\\r\\n{PAGE}'
"""
ATTACKS = """async view => {
  const found = {};
  for (const path of ['/session', '/api/containers/json', '/', '/downloads/x'])
    for (const mode of ['cors', 'no-cors'])
      found[`${mode} ${path}`] = await fetch(view + path, {mode, credentials: 'include'})
        .then(async answer => `${answer.type} ${await answer.text()}`, () => 'refused');
  const headers = {Authorization: "Bearer x"};
  found.header = await fetch(view + "/session", {headers, credentials: "include"})
    .then(answer => answer.text(), () => 'refused');
  for (const path of ['/stream', '/terminal'])
    found[path] = await new Promise(resolve => {
      const socket = new WebSocket(view.replace('http', 'ws') + path);
      socket.onmessage = event => resolve(`message ${event.data}`);
      socket.onclose = () => resolve('closed');
    });
  found.storage = JSON.stringify({...sessionStorage, ...localStorage, cookie: document.cookie});
  return found;
}"""

Received = Callable[[], str]


@contextlib.contextmanager
def host_listener() -> Iterator[tuple[int, Received]]:
    """Run a listener on the host; yield its port, and what it has received."""
    heads: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            heads.append(f"{self.requestline}\n{self.headers}")
            body = PAGE.encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_address[1], lambda: "\n".join(heads)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.contextmanager
def container_listener(engine: PrivateEngine, busybox: str) -> Iterator[tuple[int, Received]]:
    """Run a listener in a container with a published port."""
    words = ("nc", "-ll", "-p", "80", "-e", "sh", "-c", SCRIPT)
    with containers.running(engine, busybox, *words, flags=("-p", "127.0.0.1::80")) as name:
        facts = engine.request("GET", f"/containers/{name}/json").json()
        port = int(facts["NetworkSettings"]["Ports"]["80/tcp"][0]["HostPort"])

        def received() -> str:
            return engine.cli("jaula", "exec", name, "cat", "/tmp/heads").stdout

        containers.eventually(lambda: answers(port), "the listener of the container answers")
        yield port, received


@pytest.fixture(params=["host", "container"])
def listener(
    request: pytest.FixtureRequest, engine: PrivateEngine, busybox: str
) -> Iterator[tuple[int, Received]]:
    with (
        host_listener() if request.param == "host" else container_listener(engine, busybox) as found
    ):
        yield found


@pytest.fixture
def context(chromium: Browser) -> Iterator[BrowserContext]:
    made = chromium.new_context(locale="en")
    made.set_default_timeout(TIMEOUT)
    yield made
    made.close()


def answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as answer:
            return bool(answer.status == HTTPStatus.OK)
    except OSError:
        return False


def look(page: Page, port: int) -> None:
    """Look at the page of the listener."""
    page.goto(f"http://127.0.0.1:{port}/")
    expect(page.locator("body")).to_have_text("other")


def secrets_of(page: Page) -> dict[str, str]:
    return {
        name: value
        for name, value in page.evaluate("({...sessionStorage})").items()
        if name in ("jaula.session", "jaula.login")
    }


def test_another_port_of_the_host_receives_no_session(
    context: BrowserContext, view: WebView, listener: tuple[int, Received]
) -> None:
    port, received = listener
    page, other = context.new_page(), context.new_page()
    link = view.link()
    page.goto(link)
    page.wait_for_selector(".live.up")
    for path in ("/", "/images", "/events", "/create"):
        show(page, path)
        look(other, port)
    secret = secrets_of(page)["jaula.session"]
    assert len(secret) > 30
    assert not context.cookies()
    assert page.evaluate("document.cookie + JSON.stringify({...localStorage})").count(secret) == 0
    found = other.evaluate(ATTACKS, view.url)
    assert found.pop("storage") == '{"cookie":""}'
    no_body = {"refused", "closed", "opaque "}
    assert set(found.values()) <= no_body, found
    with context.expect_page() as opened:  # a page that a script of the view opens
        page.evaluate("address => { window.open(address); }", f"http://127.0.0.1:{port}/")
    expect(opened.value.locator("body")).to_have_text("other")
    assert opened.value.evaluate("[document.referrer, window.opener === null]") == ["", True]
    look(page, port)  # the same tab
    assert not secrets_of(page)
    heads = received()
    assert heads.count("GET / HTTP/1.1") >= 6
    for word in (secret, link.partition("#")[2], view.address, "Cookie:", "Authorization:"):
        assert word.lower() not in heads.lower(), word
    page.go_back()
    page.wait_for_selector(".live.up")  # the tab has its session still


def test_a_download_goes_by_an_address_that_works_once(
    context: BrowserContext, view: WebView, engine: PrivateEngine, busybox: str
) -> None:
    with containers.running(engine, busybox) as name:
        page = context.new_page()
        page.goto(view.link())
        page.wait_for_selector(".live.up")
        show(page, f"/containers/{name}?tab=files&path=/etc")
        urls: list[str] = []
        page.on("request", lambda request: urls.append(request.url))
        with page.expect_download() as download:
            page.click("[aria-label='Download passwd']")
        secret = secrets_of(page)["jaula.session"]
        assert download.value.suggested_filename == "passwd"
        assert "/downloads/" in download.value.url
        assert not [url for url in (*urls, download.value.url) if secret in url]
        second = context.new_page()
        answer = second.goto(download.value.url)
        assert answer is not None
        assert answer.status == 403


@contextlib.contextmanager
def provider(issuer: Issuer) -> Iterator[tuple[str, list[str]]]:
    """Run a provider that logs its user in at once; yield its address and the queries it got."""
    queries: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            if parts.path == "/auth":
                queries.append(f"{self.path}\n{self.headers}")
                query = {name: values[0] for name, values in parse_qs(parts.query).items()}
                issuer.nonce, issuer.challenge = query["nonce"], query["code_challenge"]
                back = urlencode({"code": "the-code", "state": query["state"]})
                self.send_response(302)
                self.send_header("Location", f"{query['redirect_uri']}?{back}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.answer(issuer.fetch("GET", self.path, None, {}))

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.answer(issuer.fetch("POST", self.path, body, {}))

        def answer(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    url = f"http://127.0.0.1:{server.server_address[1]}"
    issuer.name, issuer.metadata = url, metadata(url)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield url, queries
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_login_of_a_provider_leaves_nothing_that_another_port_can_use(
    context: BrowserContext, engine: PrivateEngine, chromium: Browser
) -> None:
    issuer = Issuer()
    issuer.now = time.time()
    with provider(issuer) as (url, queries), host_listener() as (port, received):
        settings = (
            f'[oidc]\nissuer = "{url}"\nclient-id = "jaula"\nname = "Example"\n'
            '[oidc.users]\n"alice@example.com" = "root"\n'
        )
        with web_view(engine, settings) as view:
            page = context.new_page()
            page.goto(view.url)
            requests: list[str] = []
            page.on("request", lambda request: requests.append(request.url))
            page.click("button:has-text('Example')")
            page.wait_for_selector(".live.up")
            assert urlsplit(page.url).query == ""  # of the provider's answer
            assert list(secrets_of(page)) == ["jaula.session"]
            secret = secrets_of(page)["jaula.session"]
            assert not context.cookies()
            look(context.new_page(), port)
            assert "Cookie" not in received()
            callback = next(each for each in requests if "/login/oidc/callback?" in each)
            assert secret not in "".join((*queries, *requests))
            stranger = chromium.new_context(locale="en")  # another browser has seen the address
            try:
                stolen = stranger.new_page()
                stolen.goto(callback)
                expect(stolen.locator(".login .error-box")).to_contain_text("not begun by")
            finally:
                stranger.close()

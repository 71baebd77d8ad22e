"""I28: a secret of a browser is bound to scheme, host and port (RFC 6265, section 8.5).

No other page, container port or user of the host receives it: no cookie carries authority, no
address that a log, a history or a ``Referer`` keeps is worth anything after its use, and no page of
another origin reads an answer. ``tests/browser/test_secrets.py`` shows the same in a browser.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator

import pytest

from harness import containers
from harness.engine import PrivateEngine
from harness.web_view import Browser, Rejected, WebSocket, WebView, web_view
from jaula.features.web.static_files import DIRECTORY

OTHER_PORT = "http://127.0.0.1:1"
FIRST_MESSAGE_SECONDS = 10


@pytest.fixture(scope="module")
def view(engine: PrivateEngine) -> Iterator[WebView]:
    if not (DIRECTORY / "vendor").exists():
        pytest.skip("scripts/web-assets has not installed static/vendor")
    with web_view(engine) as running:
        yield running


@pytest.fixture(scope="module")
def root(view: WebView) -> Browser:
    return view.log_in()


@pytest.fixture(scope="module")
def file(engine: PrivateEngine, busybox: str) -> Iterator[str]:
    """Yield the path of a file of a container, as the view serves it."""
    with containers.running(engine, busybox, "sleep", "infinity") as name:
        yield f"/files/{name}?path=/etc/passwd"


def lower(headers: dict[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def test_no_answer_sets_a_cookie_or_admits_another_origin(root: Browser, file: str) -> None:
    requests = [
        ("GET", "/"), ("GET", "/login"), ("GET", "/session"), ("GET", "/login/oidc/callback?a=b"),
        ("GET", "/static/app.js"), ("GET", "/api/containers/json"), ("GET", file),
        ("GET", "/downloads/x"), ("POST", "/login"), ("POST", "/login/certificate"),
        ("POST", "/login/oidc"), ("POST", "/login/oidc/callback"), ("POST", "/downloads"),
        ("GET", "/absent"), ("OPTIONS", "/api/containers/json"),
    ]  # fmt: skip
    for method, path in requests:
        for origin in (root.view.url, OTHER_PORT, "null"):
            headers = {"Origin": origin, "Access-Control-Request-Headers": "authorization"}
            body = {} if method == "POST" else None
            reply = root.request(method, path, body, headers=headers)
            found = lower(reply.headers)
            assert "set-cookie" not in found, path
            assert not [name for name in found if name.startswith("access-control-")], path
            assert found["referrer-policy"] == "no-referrer", path
            assert found["cross-origin-resource-policy"] == "same-origin", path
            if origin != root.view.url:
                assert reply.status == 403, path
            elif not path.startswith(("/static", "/?")) and path != "/":
                assert found["cache-control"] == "no-store", path


@pytest.mark.parametrize("prefix", ["", "__Host-"])
def test_a_cookie_has_no_authority(root: Browser, file: str, prefix: str) -> None:
    port = root.view.port
    names = ("jaula-session", f"jaula-session-{port}", "jaula-oidc", "session", "Authorization")
    cookie = "; ".join(f"{prefix}{name}={root.session}" for name in names)
    only = {"Cookie": cookie, "Authorization": ""}
    for method, path in (
        ("GET", "/api/containers/json"), ("GET", file), ("POST", "/api/volumes/create"),
        ("POST", "/downloads"), ("POST", "/logout"),
    ):  # fmt: skip
        body = {"path": file} if method == "POST" else None
        assert root.request(method, path, body, headers=only).status == 401, path
    assert "user" not in root.request("GET", "/session", headers=only).json()
    for path in ("/stream", "/terminal"):
        with (
            root.socket(path, {"Cookie": cookie}, first={}) as closed,
            pytest.raises(Rejected, match="4401"),
        ):
            closed.receive()


def test_the_session_in_an_address_has_no_authority(root: Browser, file: str) -> None:
    for name in ("session", "token", "access_token", "authorization", "Authorization"):
        path = f"/api/containers/json?{name}={root.session}"
        assert root.request("GET", path, headers={"Authorization": ""}).status == 401
        with (
            root.socket(f"/stream?{name}={root.session}", first={"open": 1}) as closed,
            pytest.raises(Rejected, match="4401"),
        ):
            closed.receive()


@pytest.mark.parametrize("path", ["/stream", "/terminal"])
@pytest.mark.parametrize(
    "first",
    [
        b"x",
        [],
        {},
        {"session": None},
        {"session": 1},
        {"session": ""},
        {"session": "x"},
        {"session": "x" * 4096},
        {"open": 1, "path": "/events"},
    ],
)
def test_a_websocket_must_begin_with_its_session(root: Browser, path: str, first: object) -> None:
    header = {"Authorization": f"Bearer {root.session}"}  # no page can send it: not looked at
    with root.socket(path, header, first=first) as closed, pytest.raises(Rejected, match="4401"):
        closed.receive()


@pytest.mark.slow
def test_a_websocket_that_says_nothing_is_closed(root: Browser) -> None:
    opened = [WebSocket(root.view, path, {"Origin": root.view.url}) for path in
              ("/stream", "/terminal")]  # fmt: skip
    begun = time.monotonic()
    for each in opened:
        with pytest.raises(Rejected, match="4401"):
            each.receive()
        each.close()
    assert time.monotonic() - begun >= FIRST_MESSAGE_SECONDS - 2


def test_the_address_of_a_download_works_once(root: Browser, file: str) -> None:
    address, plain = root.download(file), Browser(root.view)
    assert root.session not in address
    assert file.partition("?")[0] not in address
    assert plain.request("HEAD", address).status == 405
    for site in ("same-site", "cross-site", "none"):
        assert plain.request("GET", address, headers={"Sec-Fetch-Site": site}).status == 403
    assert plain.request("GET", address, headers={"Origin": OTHER_PORT}).status == 403
    reply = plain.request("GET", address, headers={"Origin": ""})
    assert reply.body.startswith(b"root:")
    headers = lower(reply.headers)
    assert headers["content-disposition"].startswith("attachment")
    assert headers["cache-control"] == "no-store"
    for again in (root, plain):
        assert again.request("GET", address).status == 403


def test_an_address_of_a_download_ends_with_its_session_and_leads_nowhere_else(
    view: WebView, file: str
) -> None:
    browser = view.log_in()
    address, plain = browser.download(file), Browser(view)
    assert plain.request("GET", f"{address}/../../api/containers/json").status in (401, 403, 404)
    assert browser.request("POST", "/logout").status == 204
    assert plain.request("GET", address).status == 403
    other = view.log_in()
    for path in ("", "/", "/session", "http://x/files/y", "//x/files/y", "/downloads", "/apix",
                 "/files\n", "/filés/x", 7, None):  # fmt: skip
        assert other.request("POST", "/downloads", {"path": path}).status == 400, path
    for path in ("/api/jaula/web/links", "/api/jaula/web/../web/links", "/api/exec/x/start",
                 "/api/containers/x/attach", "/api/%6aaula/web/logins"):  # fmt: skip
        assert plain.request("GET", other.download(path)).status == 400, path


def test_an_address_of_a_download_has_the_rights_of_its_user(
    new_engine: Callable[..., PrivateEngine],
    view: WebView,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    policy = tmp_path_factory.mktemp("policy") / "policy.toml"
    policy.write_text('[user.54321]\naccess = "read"\n')
    engine = new_engine("--policy", str(policy))
    os.chmod(engine.run, 0o711)
    os.chmod(engine.socket, 0o666)
    with web_view(engine) as own:
        reader = own.log_in(user=54321, group=54321, extra_groups=[])
        address = reader.download("/api/jaula/audit-log")
        direct = reader.api("GET", "/jaula/audit-log")
        assert direct.status >= 400
        assert Browser(own).request("GET", address).status == direct.status


def test_the_code_of_a_link_is_in_no_request(view: WebView) -> None:
    """The fragment of an address is not sent; the page of a link is the same for each code."""
    link = view.link()
    address, _, code = link.partition("#")
    assert code
    assert code not in address
    page = Browser(view).request("GET", "/login")
    assert code.encode() not in page.body

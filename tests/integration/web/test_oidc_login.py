"""A login with OpenID Connect through the view: a provider over HTTP, with real signatures."""

from __future__ import annotations

import time
from urllib.parse import parse_qs, urlsplit

import pytest

from harness.engine import PrivateEngine, Reply
from harness.oidc_issuer import Issuer, serving
from harness.web_view import Browser, WebView, web_view

CALLBACK = "/login/oidc/callback"


def begin(browser: Browser, issuer: Issuer) -> tuple[str, str]:
    """Begin a login; return the state that the provider sends back, and the page's secret."""
    reply = browser.request("POST", "/login/oidc")
    assert reply.status == 200
    target = urlsplit(reply.json()["url"])
    query = parse_qs(target.query)
    assert query["redirect_uri"] == [f"{browser.view.url}/login/oidc/callback"]
    issuer.nonce, issuer.challenge = query["nonce"][0], query["code_challenge"][0]
    secret = reply.json()["login"]
    assert secret not in reply.json()["url"]
    return query["state"][0], secret


def finish(browser: Browser, state: str, secret: str) -> Reply:
    """Present the provider's answer, as the page of the callback does."""
    body = {"answer": f"code=the-code&state={state}", "login": secret}
    return browser.request("POST", CALLBACK, body)


@pytest.mark.usefixtures("third_party_files")
def test_a_user_of_the_provider_is_a_user_of_the_host(engine: PrivateEngine) -> None:
    issuer = Issuer()
    issuer.now = time.time()
    with serving(issuer) as url:
        settings = (
            f'[oidc]\nissuer = "{url}"\nclient-id = "jaula"\nname = "Example"\n'
            '[oidc.users]\n"alice@example.com" = "root"\n'
        )
        with web_view(engine, settings) as view:
            _check(view, issuer)


def _check(view: WebView, issuer: Issuer) -> None:
    browser, other = Browser(view), Browser(view)
    assert browser.request("GET", "/session").json()["methods"]["oidc"] == "Example"
    for secret in ("", "x", "the state itself"):  # of a client that has seen the address only
        state, _ = begin(browser, issuer)
        assert finish(other, state, state if " " in secret else secret).status == 403
    state, secret = begin(browser, issuer)
    page = other.request("GET", f"{CALLBACK}?code=the-code&state={state}", headers={"Origin": ""})
    assert (page.status, page.headers["cache-control"]) == (200, "no-store")  # logs nobody in
    document = browser.begin(finish(browser, state, secret))
    assert not browser.cookies
    assert finish(other, state, secret).status == 403  # it was used
    assert (document["user"], document["method"]) == ("root", "oidc")
    assert browser.api("GET", "/jaula/web/whoami").json()["Caller"] == "0"
    issuer.claims = {"email": "mallory@example.com"}
    reply = finish(other, *begin(other, issuer))
    assert (reply.status, "has no access" in reply.json()["message"]) == (403, True)
    assert other.api("GET", "/containers/json").status == 401

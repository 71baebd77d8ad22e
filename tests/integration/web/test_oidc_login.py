"""A login with OpenID Connect through the view: a provider over HTTP, with real signatures."""

from __future__ import annotations

import time
from urllib.parse import parse_qs, urlsplit

import pytest

from harness.engine import PrivateEngine
from harness.oidc_issuer import Issuer, serving
from harness.web_view import Browser, WebView, web_view


def begin(browser: Browser, issuer: Issuer) -> str:
    """Begin a login; return the state that the provider sends back."""
    reply = browser.request("GET", "/login/oidc")
    assert reply.status == 303
    target = urlsplit(reply.headers["location"])
    query = parse_qs(target.query)
    assert query["redirect_uri"] == [f"{browser.view.url}/login/oidc/callback"]
    issuer.nonce, issuer.challenge = query["nonce"][0], query["code_challenge"][0]
    return query["state"][0]


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
    state = begin(browser, issuer)
    callback = f"/login/oidc/callback?code=the-code&state={state}"
    stolen = other.request("GET", callback, headers={"Origin": ""})  # another browser has no cookie
    assert stolen.status == 403
    state = begin(browser, issuer)
    callback = f"/login/oidc/callback?code=the-code&state={state}"
    reply = browser.request("GET", callback, headers={"Origin": ""})
    assert reply.status == 200
    assert "samesite=strict" in reply.headers["set-cookie"].lower()
    document = browser.begin()
    assert (document["user"], document["method"]) == ("root", "oidc")
    assert browser.api("GET", "/jaula/web/whoami").json()["Caller"] == "0"
    issuer.claims = {"email": "mallory@example.com"}
    state = begin(other, issuer)
    reply = other.request(
        "GET", f"/login/oidc/callback?code=the-code&state={state}", headers={"Origin": ""}
    )
    assert (reply.status, "has no access" in reply.json()["message"]) == (403, True)
    assert other.api("GET", "/containers/json").status == 401

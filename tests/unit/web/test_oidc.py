"""Login with a provider that the test makes: real keys, real signatures."""

from __future__ import annotations

import asyncio
import json
import os
import pwd
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from harness.oidc_issuer import ISSUER, KIDS, NOW, Issuer, b64, jwks, number, sign, token
from jaula.errors import NotAuthorized, Unavailable
from jaula.features.web import oidc
from jaula.features.web.oidc import Provider
from jaula.features.web.web_config import Oidc

CONFIG = Oidc(issuer=ISSUER, client_id="jaula", users={"alice@example.com": "root"})


def login(issuer: Issuer, config: Oidc = CONFIG, **answer: str) -> Any:
    async def run() -> Any:
        provider = Provider(config, issuer.fetch, lambda: NOW)
        target, secret = await provider.begin("http://127.0.0.1:8320/login/oidc/callback")
        query = parse_qs(urlsplit(target).query)
        assert query["code_challenge_method"] == ["S256"]
        assert query["tenant"] == ["1"]
        issuer.nonce, issuer.challenge = query["nonce"][0], query["code_challenge"][0]
        given = {"code": "the-code", "state": query["state"][0]} | answer
        return await provider.finish(given, secret)

    return asyncio.run(run())


@pytest.mark.parametrize("algorithm", KIDS)
def test_a_signed_token_is_a_user_of_this_host(algorithm: str) -> None:
    issuer = Issuer()
    issuer.algorithm = algorithm
    user = login(issuer)
    entry = pwd.getpwnam("root")
    assert (user.uid, user.gid, user.name) == (0, entry.pw_gid, "root")
    assert set(user.groups) == set(os.getgrouplist("root", entry.pw_gid))


@pytest.mark.parametrize(
    ("claims", "problem"),
    [
        ({"iss": "https://evil.example"}, "another issuer"),
        ({"aud": "other"}, "another client"),
        ({"aud": ["jaula", "other"]}, "another client"),
        ({"azp": "other"}, "another client"),
        ({"nonce": "other"}, "another login"),
        ({"exp": NOW - 120}, "expired"),
        ({"exp": "soon"}, "not a number"),
        ({"exp": True}, "not a number"),
        ({"iat": NOW + 600}, "future"),
        ({"nbf": NOW + 600}, "future"),
        ({"email": "mallory@example.com"}, "has no access"),
        ({"email": ["alice@example.com"]}, "has no access"),
        ({"email": "root"}, "has no access"),
        ({"email_verified": False}, "not verified"),
    ],
)
def test_a_token_that_is_not_for_this_login_is_refused(
    claims: dict[str, Any], problem: str
) -> None:
    issuer = Issuer()
    issuer.claims = claims
    with pytest.raises(NotAuthorized, match=problem):
        login(issuer)


def test_an_unsigned_token_is_refused() -> None:
    claims = {"iss": ISSUER, "aud": "jaula", "email": "alice@example.com"}
    body = ".".join(b64(json.dumps(part).encode()) for part in ({"alg": "none"}, claims))
    issuer = Issuer()
    issuer.token = f"{body}."
    with pytest.raises(NotAuthorized, match="signature"):
        login(issuer)


def test_an_hmac_with_the_public_key_is_refused() -> None:
    issuer = Issuer()
    issuer.header = {"alg": "HS256"}
    with pytest.raises(NotAuthorized, match="signature"):
        login(issuer)


@pytest.mark.parametrize("part", [0, 1, 2])
def test_a_changed_token_is_refused(part: int) -> None:
    issuer = Issuer()
    claims = {"iss": ISSUER, "aud": "jaula", "nonce": "x", "iat": NOW, "exp": NOW + 9}
    parts = token(claims).split(".")
    parts[part] = ("A" if parts[part][0] != "A" else "B") + parts[part][1:]
    issuer.token = ".".join(parts)
    with pytest.raises(NotAuthorized):
        login(issuer)


@pytest.mark.parametrize("text", ["", "a.b", "a.b.c", "....", "e30.e30.", "x" * 70000, "é.é.é"])
def test_text_that_is_not_a_token_is_refused(text: str) -> None:
    issuer = Issuer()
    issuer.token = text or "."
    with pytest.raises(NotAuthorized):
        login(issuer)


def test_a_short_rsa_key_and_a_key_for_encryption_are_refused() -> None:
    small = rsa.generate_private_key(65537, 1024)
    public = small.public_key().public_numbers()
    key = {"kty": "RSA", "n": number(public.n), "e": number(public.e)}
    signature = small.sign(b"data", padding.PKCS1v15(), hashes.SHA256())
    assert not oidc.verifies(key, "RS256", b"data", signature)
    own = jwks()[0] | {"use": "enc"}
    assert not oidc.verifies(own, "RS256", b"data", sign("RS256", b"data"))
    assert oidc.verifies(jwks()[0], "RS256", b"data", sign("RS256", b"data"))


def test_a_new_key_of_the_provider_is_fetched() -> None:
    issuer = Issuer()
    issuer.keys = jwks()[1:]
    with pytest.raises(NotAuthorized, match="signature"):
        login(issuer)
    issuer.keys = jwks()
    login(issuer)


def test_the_answer_must_be_for_the_browser_that_began() -> None:
    async def run() -> None:
        issuer = Issuer()
        provider = Provider(CONFIG, issuer.fetch, lambda: NOW)
        for known in ("", "other", "{state}"):  # who sees the addresses knows the state
            target, secret = await provider.begin("http://127.0.0.1:8320/cb")
            (state,) = parse_qs(urlsplit(target).query)["state"]
            assert secret not in target
            answer = {"code": "the-code", "state": state}
            with pytest.raises(NotAuthorized, match="not begun by this browser"):
                await provider.finish(answer, known.format(state=state))
            with pytest.raises(NotAuthorized):  # the state was used
                await provider.finish(answer, secret)

    asyncio.run(run())


def test_an_error_and_another_issuer_in_the_answer_are_refused() -> None:
    with pytest.raises(NotAuthorized, match="refused the login"):
        login(Issuer(), error="access_denied")
    with pytest.raises(NotAuthorized, match="another provider"):
        login(Issuer(), iss="https://evil.example")


def test_a_provider_without_tls_or_with_another_name_is_refused() -> None:
    issuer = Issuer()
    issuer.metadata["token_endpoint"] = "http://login.example/token"
    with pytest.raises(Unavailable, match="token_endpoint"):
        login(issuer)
    other = Issuer()
    other.metadata["issuer"] = "https://evil.example"
    with pytest.raises(Unavailable, match="another issuer"):
        login(other)


def test_a_provider_that_does_not_answer_is_an_error() -> None:
    def fetch(*_: Any) -> bytes:
        raise ConnectionRefusedError("refused")

    async def run() -> None:
        with pytest.raises(Unavailable, match="does not answer"):
            await Provider(CONFIG, fetch).begin("http://127.0.0.1:8320/cb")

    asyncio.run(run())

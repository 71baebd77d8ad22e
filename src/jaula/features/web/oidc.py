"""Login with an OpenID Connect provider: the authorization code flow with PKCE.

Source: OpenID Connect Core 1.0, section 3.1; OpenID Connect Discovery 1.0; RFC 7636 (PKCE); RFC
7515 to 7519 (JWS, JWK, JWT); RFC 9207 (the issuer in the answer). Only asymmetric signatures are
accepted: an HMAC could be made with a public key by a client that mistakes it for a secret.

A provider proves a claim; the settings say which user of this host has it. A claim without an entry
has no access, so a provider cannot name a user such as root.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import http.client
import json
import os
import pwd
import secrets
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote, urlencode, urlsplit

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from jaula import tls, trusted_file
from jaula.errors import InvalidRequest, NotAuthorized, Unavailable
from jaula.features.web.web_config import OIDC_LOGIN_SECONDS
from jaula.spec.api_params import WebUser

if TYPE_CHECKING:
    from jaula.features.web.web_config import Oidc

_MAX_ANSWER = 1 << 20  # bytes
_MAX_TOKEN = 64 * 1024  # bytes
_SECONDS = 15.0  # for one request to the provider
_KEYS_SECONDS = 3600.0  # for which the provider's keys are kept
_KEYS_AGAIN = 30.0  # seconds between two requests for a key that is not known
LEEWAY = 60  # seconds between the clocks
MAX_LOGINS = 256  # that have begun
_RSA: dict[str, hashes.HashAlgorithm] = {
    "RS256": hashes.SHA256(),
    "RS384": hashes.SHA384(),
    "RS512": hashes.SHA512(),
}
_PSS: dict[str, hashes.HashAlgorithm] = {
    "PS256": hashes.SHA256(),
    "PS384": hashes.SHA384(),
    "PS512": hashes.SHA512(),
}
_EC = {
    "ES256": ("P-256", ec.SECP256R1, hashes.SHA256, 32),
    "ES384": ("P-384", ec.SECP384R1, hashes.SHA384, 48),
}
_MIN_RSA = 2048  # bits

Fetch = Callable[[str, str, "bytes | None", dict[str, str]], bytes]
"""Sends a request (method, URL, body, headers) and returns the body. Blocks."""


class _Login(NamedTuple):
    verifier: str
    nonce: str
    redirect: str
    browser: bytes  # digest of the secret of the page that began it
    until: float


class Provider:
    """One provider. ``fetch`` and ``clock`` are replaced by tests."""

    def __init__(
        self,
        config: Oidc,
        fetch: Fetch | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._config = config
        self._secret = _read_secret(config.client_secret_file)
        self._fetch = fetch or _fetcher(config.ca)
        self._clock = clock
        self._logins: dict[str, _Login] = {}
        self._metadata: dict[str, Any] = {}
        self._keys: list[dict[str, Any]] = []
        self._keys_at = float("-inf")

    @property
    def name(self) -> str:
        """The name on the button of the login page."""
        return self._config.name

    async def begin(self, redirect: str) -> tuple[str, str]:
        """Return where to send the browser, and a secret that only the page keeps.

        The state goes to the provider and comes back in an address. The secret goes to neither,
        so that who sees the address, or listens on another port of this host, cannot use it.

        :raises Unavailable: when the provider does not answer.
        """
        metadata = await self._discover()
        now = self._clock()
        self._logins = {key: login for key, login in self._logins.items() if login.until > now}
        if len(self._logins) >= MAX_LOGINS:
            raise Unavailable("too many logins have begun", hint="try again later")
        state, verifier = secrets.token_urlsafe(32), secrets.token_urlsafe(48)
        nonce, browser = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
        until = now + OIDC_LOGIN_SECONDS
        self._logins[state] = _Login(verifier, nonce, redirect, _digest(browser), until)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest())
        query = {
            "response_type": "code",
            "client_id": self._config.client_id,
            "redirect_uri": redirect,
            "scope": " ".join(self._config.scopes),
            "state": state,
            "nonce": nonce,
            "code_challenge": challenge.rstrip(b"=").decode(),
            "code_challenge_method": "S256",
        }
        endpoint = str(metadata["authorization_endpoint"])
        return f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(query)}", browser

    async def finish(self, answer: dict[str, str], browser: str) -> WebUser:
        """Return the user for the provider's answer. ``browser`` is the secret of the page.

        The login ends, also if the secret is another one: its answer has become known.

        :raises NotAuthorized: when the answer does not prove a user who has access.
        :raises Unavailable: when the provider does not answer.
        """
        login = self._logins.pop(answer.get("state", ""), None)
        if login is None or not hmac.compare_digest(login.browser, _digest(browser)):
            raise NotAuthorized("the login was not begun by this browser, or is too old")
        if login.until <= self._clock():
            raise NotAuthorized("the login has taken too long")
        if "error" in answer:
            raise NotAuthorized(f"the provider refused the login: {answer['error'][:200]}")
        if answer.get("iss", self._config.issuer) != self._config.issuer:
            raise NotAuthorized("the answer is of another provider")
        metadata = await self._discover()
        form = {
            "grant_type": "authorization_code",
            "code": answer.get("code", ""),
            "redirect_uri": login.redirect,
            "client_id": self._config.client_id,
            "code_verifier": login.verifier,
        }
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        if self._secret:
            pair = f"{quote(self._config.client_id, safe='')}:{quote(self._secret, safe='')}"
            headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
        document = await self._json(
            "POST", str(metadata["token_endpoint"]), urlencode(form).encode(), headers
        )
        claims = await self._verified(str(document.get("id_token", "")))
        check_claims(claims, self._config, login.nonce, self._clock())
        return user_of_claims(claims, self._config)

    async def _verified(self, token: str) -> dict[str, Any]:
        """Return the claims of a token whose signature is of the provider.

        :raises NotAuthorized: when it is not.
        """
        header, claims, signed, signature = split_token(token)
        for attempt in range(2):
            keys = await self._key_set(again=attempt == 1)
            found = [key for key in keys if header.get("kid") in (None, key.get("kid"))]
            if any(verifies(key, str(header.get("alg")), signed, signature) for key in found):
                return claims
            if found and header.get("kid") is not None:
                break
        raise NotAuthorized("the signature of the provider's token is not valid")

    async def _key_set(self, *, again: bool) -> list[dict[str, Any]]:
        age = self._clock() - self._keys_at
        if age > (_KEYS_AGAIN if again else _KEYS_SECONDS):
            metadata = await self._discover()
            document = await self._json("GET", str(metadata["jwks_uri"]), None, {})
            keys = document.get("keys")
            self._keys = [key for key in keys if isinstance(key, dict)] if keys else []
            self._keys_at = self._clock()
        return self._keys

    async def _discover(self) -> dict[str, Any]:
        if not self._metadata:
            url = self._config.issuer.rstrip("/") + "/.well-known/openid-configuration"
            document = await self._json("GET", url, None, {})
            if document.get("issuer") != self._config.issuer:
                raise Unavailable(f"the provider at {url} names another issuer")
            for key in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
                if not _is_secure(str(document.get(key, ""))):
                    raise Unavailable(f"the provider's {key} is not an https URL")
            self._metadata = document
        return self._metadata

    async def _json(
        self, method: str, url: str, body: bytes | None, headers: dict[str, str]
    ) -> dict[str, Any]:
        try:
            async with asyncio.timeout(_SECONDS * 2):
                data = await asyncio.to_thread(
                    self._fetch, method, url, body, {"Accept": "application/json"} | headers
                )
            document = json.loads(data)
        except (OSError, http.client.HTTPException, TimeoutError) as error:
            raise Unavailable(f"the provider does not answer: {error}") from None
        except (ValueError, RecursionError):
            raise Unavailable(f"the answer of {url} is not a JSON document") from None
        if not isinstance(document, dict):
            raise Unavailable(f"the answer of {url} is not a JSON object")
        return document


def split_token(token: str) -> tuple[dict[str, Any], dict[str, Any], bytes, bytes]:
    """Return header, claims, signed bytes and signature of a JWS in its compact form. Pure.

    :raises NotAuthorized: when it is not one.
    """
    parts = token.split(".")
    if len(parts) != 3 or len(token) > _MAX_TOKEN or not token.isascii():
        raise NotAuthorized("the provider's token is not a signed JWT")
    try:
        header, claims = (json.loads(_decoded(part)) for part in parts[:2])
        signature = _decoded(parts[2])
    except (ValueError, RecursionError):
        raise NotAuthorized("the provider's token is not a signed JWT") from None
    if not isinstance(header, dict) or not isinstance(claims, dict) or "crit" in header:
        raise NotAuthorized("the provider's token is not a signed JWT")
    return header, claims, f"{parts[0]}.{parts[1]}".encode(), signature


def verifies(key: dict[str, Any], algorithm: str, signed: bytes, signature: bytes) -> bool:
    """Return whether a signature is of a key (RFC 7517). Pure."""
    if key.get("use", "sig") != "sig" or key.get("alg", algorithm) != algorithm:
        return False
    try:
        if algorithm in _RSA or algorithm in _PSS:
            _verify_rsa(key, algorithm, signed, signature)
        elif algorithm in _EC:
            _verify_ec(key, algorithm, signed, signature)
        elif algorithm == "EdDSA" and key.get("crv") == "Ed25519":
            raw = _decoded(str(key["x"]))
            ed25519.Ed25519PublicKey.from_public_bytes(raw).verify(signature, signed)
        else:
            return False
    except (InvalidSignature, ValueError, KeyError):
        return False
    return True


def _verify_rsa(key: dict[str, Any], algorithm: str, signed: bytes, signature: bytes) -> None:
    if key["kty"] != "RSA":
        raise ValueError("not an RSA key")
    exponent, modulus = (int.from_bytes(_decoded(str(key[name]))) for name in ("e", "n"))
    public = rsa.RSAPublicNumbers(exponent, modulus).public_key()
    if public.key_size < _MIN_RSA:
        raise ValueError("the key is too short")
    if algorithm in _RSA:
        public.verify(signature, signed, padding.PKCS1v15(), _RSA[algorithm])
        return
    digest = _PSS[algorithm]
    scheme = padding.PSS(padding.MGF1(digest), digest.digest_size)
    public.verify(signature, signed, scheme, digest)


def _verify_ec(key: dict[str, Any], algorithm: str, signed: bytes, signature: bytes) -> None:
    name, curve, digest, size = _EC[algorithm]
    if key["kty"] != "EC" or key["crv"] != name or len(signature) != 2 * size:
        raise ValueError("another key")
    x, y = (int.from_bytes(_decoded(str(key[part]))) for part in "xy")
    public = ec.EllipticCurvePublicNumbers(x, y, curve()).public_key()
    pair = int.from_bytes(signature[:size]), int.from_bytes(signature[size:])
    public.verify(encode_dss_signature(*pair), signed, ec.ECDSA(digest()))


def check_claims(claims: dict[str, Any], config: Oidc, nonce: str, now: float) -> None:
    """Check the claims of a token (OpenID Connect Core, section 3.1.3.7). Pure.

    :raises NotAuthorized: when the token is not for this login.
    """
    audience = claims.get("aud")
    audiences = audience if isinstance(audience, list) else [audience]
    party = claims.get("azp", config.client_id if len(audiences) == 1 else None)
    problem = ""
    if claims.get("iss") != config.issuer:
        problem = "is of another issuer"
    elif config.client_id not in audiences or party != config.client_id:
        problem = "is for another client"
    elif not hmac.compare_digest(str(claims.get("nonce", "")).encode(), nonce.encode()):
        problem = "is of another login"
    elif _time(claims.get("exp")) <= now - LEEWAY:
        problem = "has expired"
    elif _time(claims.get("iat")) > now + LEEWAY or _time(claims.get("nbf", 0)) > now + LEEWAY:
        problem = "is of the future"
    if problem:
        raise NotAuthorized(f"the provider's token {problem}")


def user_of_claims(claims: dict[str, Any], config: Oidc) -> WebUser:
    """Return the user of this host for a token.

    :raises NotAuthorized: when the settings name none, or the host does not have it.
    """
    value = claims.get(config.claim)
    if config.claim == "email" and claims.get("email_verified") is False:
        raise NotAuthorized("the provider has not verified the address of this user")
    name = config.users.get(value) if isinstance(value, str) else None
    if name is None:
        raise NotAuthorized(
            f"the provider's user {str(value)[:80]!r} has no access",
            hint="the operator adds it to oidc.users in web.toml",
        )
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise NotAuthorized(f"the user {name} of web.toml does not exist on this host") from None
    groups = tuple(os.getgrouplist(name, entry.pw_gid))
    return WebUser(uid=entry.pw_uid, gid=entry.pw_gid, groups=groups, name=name)


def _time(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise NotAuthorized("the provider's token has a time that is not a number")
    return float(value)


def _decoded(text: str) -> bytes:
    """Return the bytes of base64url without padding.

    :raises ValueError: when it is not that.
    """
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from None


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def _is_secure(url: str) -> bool:
    return url.startswith(("https://", "http://127.0.0.1:", "http://[::1]:"))


def _read_secret(path: str) -> str:
    if not path:
        return ""
    data = trusted_file.read(path, 4096, "client secret", required=True)
    assert data is not None
    secret = data.decode("utf-8", "replace").strip()
    if not secret:
        raise InvalidRequest(f"client secret {path} is empty")
    return secret


def _fetcher(ca: str) -> Fetch:
    """Return the function that sends requests. It follows no redirect."""

    def fetch(method: str, url: str, body: bytes | None, headers: dict[str, str]) -> bytes:
        parts = urlsplit(url)
        assert parts.hostname is not None
        if parts.scheme == "https":
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                parts.hostname, parts.port, timeout=_SECONDS, context=tls.client_context(ca)
            )
        else:
            connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=_SECONDS)
        try:
            target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            connection.request(method, target, body, headers)
            answer = connection.getresponse()
            data = answer.read(_MAX_ANSWER + 1)
        finally:
            connection.close()
        if answer.status != http.client.OK or len(data) > _MAX_ANSWER:
            raise Unavailable(f"the provider answered {answer.status} for {parts.path}")
        return data

    return fetch

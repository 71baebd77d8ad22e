"""Proving who is there: a password, or a token that a token server gives for it.

Source: distribution project, "Token Authentication Specification" and "Token Authentication with
OAuth2"; RFC 6750, RFC 7617.

* The scope of a token is what we want to do, never what the challenge asks for: a registry cannot
  have us fetch a token for somebody else's repository.
* Credentials are shown to a token server only where :meth:`Hosts.trusts_realm` says so; elsewhere
  the answer is an error, not a request without them. Without credentials any server with HTTPS
  may be asked for a token.
* Tokens are kept for one operation and forgotten with it.
"""

from __future__ import annotations

import threading
from base64 import b64decode, b64encode
from collections.abc import Iterable
from time import monotonic
from urllib.parse import urlencode

import msgspec

from jaula.errors import InvalidRequest, NotAuthorized
from jaula.images.registry import errors
from jaula.images.registry.auth.www_authenticate import Challenge
from jaula.images.registry.cancellation import Cancellation
from jaula.images.registry.errors import NoCredentials
from jaula.images.registry.hosts import Endpoint
from jaula.images.registry.http import url
from jaula.images.registry.http.transport import Transport
from jaula.images.registry.http.url import Url
from jaula.images.registry.timeouts import ERROR_LIMIT, TOKEN_LIMIT
from jaula.spec.api import RegistryAuth

_CLIENT = "jaula"
_LEAST_LIFE = 60  # seconds; the specification's default
_MARGIN = 10  # seconds before the end at which a token is not used any more


class _Answer(msgspec.Struct, frozen=True):
    token: str | None = None
    access_token: str | None = None
    refresh_token: str | None = None
    expires_in: float | None = None


class Credentials(msgspec.Struct, frozen=True):
    """What a person has for one registry. Never shown."""

    user: str = ""
    password: str = ""
    identity_token: str = ""  # given by a token server in place of the password
    registry_token: str = ""  # a finished bearer token

    def __repr__(self) -> str:
        return f"Credentials({'some' if self else 'none'})"

    def __bool__(self) -> bool:
        return bool(self.user or self.identity_token or self.registry_token)

    @property
    def basic(self) -> str:
        pair = f"{self.user}:{self.password}".encode()
        return "Basic " + b64encode(pair).decode()


def credentials(auth: RegistryAuth | None) -> Credentials:
    """The document of the API as credentials; ``auth`` is user and password in base 64."""
    if auth is None:
        return Credentials()
    user, password = auth.username, auth.password
    if auth.auth and not user:
        try:
            user, _, password = b64decode(auth.auth, validate=True).decode().partition(":")
        except ValueError:
            raise InvalidRequest("the credentials for the registry cannot be read") from None
    for value in (auth.identity_token, auth.registry_token):
        _check_token(value)
    return Credentials(user, password, auth.identity_token, auth.registry_token)


class Authorizer:
    """The ``Authorization`` header for one endpoint, for as long as one operation lasts."""

    def __init__(self, transport: Transport, endpoint: Endpoint, held: Credentials) -> None:
        self._transport = transport
        self._endpoint = endpoint
        self._held = Credentials() if endpoint.mirror else held
        self._challenge: Challenge | None = None
        self._origin: Url | None = None
        self._tokens: dict[tuple[str, ...], tuple[str, float]] = {}
        self._lock = threading.Lock()
        self.identity_token = ""  # what a token server gave for the password

    @property
    def challenged(self) -> Challenge | None:
        return self._challenge

    def learn(self, challenge: Challenge | None, origin: Url) -> None:
        """What the endpoint itself asked for; earlier tokens were not good enough."""
        with self._lock:
            self._challenge, self._origin = challenge, origin
            self._tokens.clear()

    def header(
        self, scopes: Iterable[str], cancel: Cancellation, *, offline: bool = False
    ) -> str | None:
        """The value for a request that needs ``scopes``; None where nothing was asked for.

        Raises :class:`NoCredentials`, :class:`NotAuthorized` for a server that is not trusted with
        them, and what a token server answers.
        """
        challenge, origin = self._challenge, self._origin
        if challenge is None or origin is None:
            return None
        if challenge.scheme == "basic":
            if not self._held.user:
                raise NoCredentials("no basic auth credentials")
            return self._held.basic
        if self._held.registry_token:
            return f"Bearer {self._held.registry_token}"
        key = tuple(sorted(scopes))
        with self._lock:  # threads that need the same token ask for it once
            token, until = self._tokens.get(key, ("", 0.0))
            if monotonic() >= until:
                token, life = self._fetch(challenge, origin, key, cancel, offline)
                self._tokens[key] = (token, monotonic() + life - _MARGIN)
        return f"Bearer {token}"

    def _fetch(
        self,
        challenge: Challenge,
        origin: Url,
        scopes: tuple[str, ...],
        cancel: Cancellation,
        offline: bool,
    ) -> tuple[str, float]:
        realm = url.parse(challenge.parameters["realm"])
        self._check_realm(realm, origin)
        service = challenge.parameters.get("service", "")
        pairs = [("service", service)] if service else []
        pairs += [("scope", scope) for scope in scopes]
        headers, body, method = {"Accept": "application/json"}, b"", "GET"
        if self._held.identity_token:
            method = "POST"
            pairs += [
                ("grant_type", "refresh_token"),
                ("refresh_token", self._held.identity_token),
                ("client_id", _CLIENT),
            ]
            if scopes:
                pairs = [p for p in pairs if p[0] != "scope"] + [("scope", " ".join(scopes))]
            body = urlencode(pairs).encode()
            headers["Content-Type"] = "application/x-www-form-urlencoded"
            headers["Content-Length"] = str(len(body))
        else:
            if self._held.user:
                pairs.append(("account", self._held.user))
                headers["Authorization"] = self._held.basic
            if offline:
                pairs += [("client_id", _CLIENT), ("offline_token", "true")]
            realm = realm.with_query(urlencode(pairs)) if pairs else realm
        with self._transport.request(
            method,
            realm,
            headers,
            cancel=cancel,
            endpoint=self._endpoint,
            body=(lambda: (body,)) if body else None,
        ) as answer:
            if answer.status != 200:
                raise errors.refused(
                    answer.status, answer.document(ERROR_LIMIT, "the token server's answer")
                )
            data = answer.document(TOKEN_LIMIT, "the token server's answer")
        return self._read(data)

    def _check_realm(self, realm: Url, origin: Url) -> None:
        if realm.scheme == "http" and (
            origin.scheme == "https" or not self._transport.hosts.relaxed(realm.host, realm.port)
        ):
            raise NotAuthorized(
                f"the registry {self._endpoint.name} names a token server without encryption, "
                f"{realm.authority}: refused"
            )
        if self._held and not self._transport.hosts.trusts_realm(self._endpoint, realm):
            raise NotAuthorized(
                f"the registry {self._endpoint.name} wants your credentials to be sent to "
                f"{realm.authority}: refused",
                hint="if that is its token server, start the engine with "
                f"--registry-realm {self._endpoint.name}={realm.host}",
            )

    def _read(self, data: bytes) -> tuple[str, float]:
        try:
            answer = msgspec.json.decode(data, type=_Answer)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise InvalidRequest(f"the token server's answer is not valid: {error}") from None
        token = answer.token or answer.access_token or ""
        if not token:
            raise NotAuthorized("authorization server did not include a token in the response")
        _check_token(token)
        _check_token(answer.refresh_token or "")
        self.identity_token = answer.refresh_token or ""
        return token, max(answer.expires_in or 0, _LEAST_LIFE)


def _check_token(token: str) -> None:
    """A token becomes a part of a header line."""
    if any(not "!" <= c <= "~" for c in token):
        raise InvalidRequest("a token holds characters that no token has")

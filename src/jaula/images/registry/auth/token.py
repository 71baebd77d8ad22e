"""Authentication at a registry: a password, or a token from a token server.

Source: distribution project, "Token Authentication Specification" and "Token Authentication with
OAuth2"; RFC 6750, RFC 7617.

* The scope of a token is the scope of our request, never the one in the challenge. So a registry
  cannot make us fetch a token for another repository.
* Credentials are sent to a token server only if :meth:`Hosts.trusts_realm` allows it. Otherwise the
  request fails; it is not sent without them. Without credentials, any HTTPS server may be asked for
  a token.
* Tokens are cached for one operation.
"""

from __future__ import annotations

import threading
from base64 import b64decode, b64encode
from collections.abc import Iterable
from time import monotonic
from urllib.parse import urlencode

import msgspec

from jaula.errors import InvalidRequest, NotAuthorized
from jaula.images.registry import registry_errors
from jaula.images.registry.auth.www_authenticate import Challenge
from jaula.images.registry.cancellation import Cancellation
from jaula.images.registry.http import url
from jaula.images.registry.http.registry_transport import Transport
from jaula.images.registry.http.url import Url
from jaula.images.registry.registry_errors import NoCredentials
from jaula.images.registry.registry_hosts import Endpoint
from jaula.images.registry.timeouts import ERROR_LIMIT, TOKEN_LIMIT
from jaula.spec.api_documents import RegistryAuth

_CLIENT = "jaula"
_MIN_LIFETIME = 60  # seconds; the specification's default
_MARGIN = 10  # seconds before its expiry at which a token is replaced


class _TokenResponse(msgspec.Struct, frozen=True):
    token: str | None = None
    access_token: str | None = None
    refresh_token: str | None = None
    expires_in: float | None = None


class Credentials(msgspec.Struct, frozen=True):
    """The user's credentials for one registry. ``repr`` hides them."""

    user: str = ""
    password: str = ""
    identity_token: str = ""  # issued by a token server in place of the password
    registry_token: str = ""  # a bearer token, sent unchanged

    def __repr__(self) -> str:
        return f"Credentials({'some' if self else 'none'})"

    def __bool__(self) -> bool:
        return bool(self.user or self.identity_token or self.registry_token)

    @property
    def basic(self) -> str:
        pair = f"{self.user}:{self.password}".encode()
        return "Basic " + b64encode(pair).decode()


def credentials(auth: RegistryAuth | None) -> Credentials:
    """Return the credentials in a document of the API.

    ``auth.auth`` is base64 of user and password.

    :raises InvalidRequest: if they cannot be read.
    """
    if auth is None:
        return Credentials()
    user, password = auth.username, auth.password
    if auth.auth and not user:
        try:
            user, _, password = b64decode(auth.auth, validate=True).decode().partition(":")
            password = password.strip("\0")  # some clients pad it, and Docker removes this
        except ValueError:
            raise InvalidRequest("the credentials for the registry cannot be read") from None
    for value in (auth.identity_token, auth.registry_token):
        _check_token(value)
    return Credentials(user, password, auth.identity_token, auth.registry_token)


class Authorizer:
    """The ``Authorization`` header for one endpoint during one operation."""

    def __init__(self, transport: Transport, endpoint: Endpoint, credentials: Credentials) -> None:
        self._transport = transport
        self._endpoint = endpoint
        self._credentials = Credentials() if endpoint.mirror else credentials
        self._challenge: Challenge | None = None
        self._origin: Url | None = None
        self._tokens: dict[tuple[str, ...], tuple[str, float]] = {}
        self._lock = threading.Lock()
        self.identity_token = ""  # issued by a token server for the password

    @property
    def challenge(self) -> Challenge | None:
        return self._challenge

    def set_challenge(self, challenge: Challenge | None, origin: Url) -> None:
        """Set the challenge of the endpoint. Discard earlier tokens, which were not sufficient."""
        with self._lock:
            self._challenge, self._origin = challenge, origin
            self._tokens.clear()

    def header(
        self, scopes: Iterable[str], cancel: Cancellation, *, offline: bool = False
    ) -> str | None:
        """Return the header value for ``scopes``, or None if the server requires none.

        ``offline`` requests an identity token too.

        :raises NoCredentials: if credentials are required and absent.
        :raises NotAuthorized: if the token server is not trusted with the credentials.
        :raises RegistryError: if the token server refuses.
        """
        challenge, origin = self._challenge, self._origin
        if challenge is None or origin is None:
            return None
        if challenge.scheme == "basic":
            if not self._credentials.user:
                raise NoCredentials("no basic auth credentials")
            return self._credentials.basic
        if self._credentials.registry_token:
            return f"Bearer {self._credentials.registry_token}"
        key = tuple(sorted(scopes))
        with self._lock:  # threads that need the same token fetch it once
            token, expiry = self._tokens.get(key, ("", 0.0))
            if monotonic() >= expiry:
                token, lifetime = self._fetch(challenge, origin, key, cancel, offline)
                self._tokens[key] = (token, monotonic() + lifetime - _MARGIN)
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
        if self._credentials.identity_token:
            method = "POST"
            pairs += [
                ("grant_type", "refresh_token"),
                ("refresh_token", self._credentials.identity_token),
                ("client_id", _CLIENT),
            ]
            if scopes:
                pairs = [p for p in pairs if p[0] != "scope"] + [("scope", " ".join(scopes))]
            body = urlencode(pairs).encode()
            headers["Content-Type"] = "application/x-www-form-urlencoded"
            headers["Content-Length"] = str(len(body))
        else:
            if self._credentials.user:
                pairs.append(("account", self._credentials.user))
                headers["Authorization"] = self._credentials.basic
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
        ) as response:
            if response.status != 200:
                raise registry_errors.registry_error(
                    response.status, response.document(ERROR_LIMIT, "the token server's response")
                )
            data = response.document(TOKEN_LIMIT, "the token server's response")
        return self._read(data)

    def _check_realm(self, realm: Url, origin: Url) -> None:
        self._transport.check_reference(origin, realm)
        if realm.scheme == "http" and (
            origin.scheme == "https"
            or not (
                realm.origin == origin.origin
                or self._transport.hosts.is_insecure(realm.host, realm.port)
            )
        ):
            raise NotAuthorized(
                f"the registry {self._endpoint.name} uses a token server without encryption, "
                f"{realm.authority}: refused"
            )
        if self._credentials and not self._transport.hosts.trusts_realm(self._endpoint, realm):
            raise NotAuthorized(
                f"the registry {self._endpoint.name} asks to send your credentials to "
                f"{realm.authority}: refused",
                hint="if that is its token server, start the engine with "
                f"--registry-realm {self._endpoint.name}={realm.host}",
            )

    def _read(self, data: bytes) -> tuple[str, float]:
        try:
            response = msgspec.json.decode(data, type=_TokenResponse)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise InvalidRequest(f"the token server's response is not valid: {error}") from None
        token = response.token or response.access_token or ""
        if not token:
            raise NotAuthorized("authorization server did not include a token in the response")
        _check_token(token)
        _check_token(response.refresh_token or "")
        self.identity_token = response.refresh_token or ""
        return token, max(response.expires_in or 0, _MIN_LIFETIME)


def _check_token(token: str) -> None:
    """Check that a token can be part of a header line.

    :raises InvalidRequest: if it contains an invalid character.
    """
    if any(not "!" <= c <= "~" for c in token):
        raise InvalidRequest("a token contains invalid characters")

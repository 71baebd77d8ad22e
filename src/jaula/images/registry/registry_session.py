"""Authenticated requests to one registry server during one operation.

Source: distribution-spec 1.1, "Determining Support". Docker's client requests ``/v2/`` first too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from urllib.parse import urlencode

from jaula.errors import InvalidRequest
from jaula.images.registry import registry_errors
from jaula.images.registry.auth import www_authenticate
from jaula.images.registry.auth.token import Authorizer, Credentials
from jaula.images.registry.cancellation import Cancellation
from jaula.images.registry.http.registry_transport import Body, HttpResponse, Transport
from jaula.images.registry.http.url import Url
from jaula.images.registry.registry_errors import Unreachable
from jaula.images.registry.registry_hosts import Endpoint
from jaula.images.registry.timeouts import ERROR_LIMIT


class Session:
    """A reachable registry server. Methods may be called from several threads."""

    def __init__(
        self,
        transport: Transport,
        endpoint: Endpoint,
        credentials: Credentials,
        cancel: Cancellation,
    ) -> None:
        """Request ``/v2/``.

        :raises Unreachable: if the server does not respond.
        """
        self.endpoint = endpoint
        self.transport = transport
        self._authorizer = Authorizer(transport, endpoint, credentials)
        self.base = self._reach(cancel)

    def _reach(self, cancel: Cancellation) -> Url:
        """Return the base URL with the scheme that works. Record the authentication challenge."""
        *preferred, fallback = self.endpoint.urls
        for url in preferred:
            try:
                return self._ping(url, cancel)
            except Unreachable as error:
                if not error.try_plain_http:
                    raise
        return self._ping(fallback, cancel)

    def _ping(self, url: Url, cancel: Cancellation) -> Url:
        with self.transport.request(
            "GET", self._target(url, "/"), {}, cancel=cancel, endpoint=self.endpoint
        ) as response:
            response.document(ERROR_LIMIT, "the registry's response")
            if response.status == 401 and not response.redirected:
                self._set_challenge(response)
        return url

    def url(self, path: str) -> Url:
        """Return the URL of a path below the root of the API."""
        return self._target(self.base, path)

    def _target(self, base: Url, path: str) -> Url:
        url = base.at(self.endpoint.root + path)
        name = self.endpoint.namespace
        return url.with_query(urlencode({"ns": name}, safe=":")) if name else url

    def _set_challenge(self, response: HttpResponse) -> None:
        challenges = www_authenticate.parse(response.headers("WWW-Authenticate"))
        self._authorizer.set_challenge(www_authenticate.choose(challenges), response.url)

    def request(
        self,
        method: str,
        target: str | Url,
        scopes: Iterable[str] = (),
        *,
        cancel: Cancellation,
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
        stream: bool = False,
    ) -> HttpResponse:
        """Send an authenticated request. Retry once with a new token after 401.

        ``target`` is a path below the root of the API, or a URL of this server.

        :raises NoCredentials: if the server requires credentials and there are none.
        :raises RegistryError: if the credentials are refused.
        """
        scopes = tuple(scopes)
        url = target if isinstance(target, Url) else self.url(target)
        if url.origin != self.base.origin:
            raise InvalidRequest(
                f"the registry {self.endpoint.name} refers to another server, {url.authority}"
            )
        for retry in (True, False):
            request_headers = dict(headers or {})
            try:
                authorization = self._authorizer.header(scopes, cancel)
            except registry_errors.NoCredentials as error:
                text = f'{method.capitalize()} "{url}": {error.message}'
                raise registry_errors.NoCredentials(text) from None
            if authorization is not None:
                request_headers["Authorization"] = authorization
            response = self.transport.request(
                method,
                url,
                request_headers,
                cancel=cancel,
                endpoint=self.endpoint,
                body=body,
                stream=stream,
            )
            if response.status != 401 or response.redirected or not retry:
                return response
            with response:
                data = response.document(ERROR_LIMIT, "the registry's response")
                before = self._authorizer.challenge
                self._set_challenge(response)
            after = self._authorizer.challenge
            if after is None or (after == before and after.scheme == "basic"):
                raise registry_errors.registry_error(401, data)
        raise AssertionError("the second response is returned")

    def login(self, cancel: Cancellation) -> str:
        """Verify the credentials and return the identity token issued for them, or ''.

        :raises RegistryError: if the registry refuses them.
        """
        headers = {}
        authorization = self._authorizer.header((), cancel, offline=True)
        if authorization is not None:
            headers["Authorization"] = authorization
        url = self.url("/")
        with self.transport.request(
            "GET", url, headers, cancel=cancel, endpoint=self.endpoint
        ) as response:
            response.document(ERROR_LIMIT, "the registry's response")
            if response.status != 200:
                line = registry_errors.status_line(response.status)
                raise registry_errors.RegistryError(
                    "", f"login attempt to {url} failed with status: {line}", response.status
                )
        return self._authorizer.identity_token


def check(response: HttpResponse, *good: int) -> HttpResponse:
    """Return ``response`` if its status is one of ``good``.

    :raises RegistryError: if it is not.
    """
    if response.status in good:
        return response
    with response:
        raise registry_errors.registry_error(
            response.status, response.document(ERROR_LIMIT, "the registry's response")
        )

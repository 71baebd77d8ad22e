"""One registry's server during one operation: requests below ``/v2/`` that prove who is there.

Source: distribution-spec 1.1, "Determining Support"; Docker's client asks ``/v2/`` first as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from jaula.errors import InvalidRequest
from jaula.images.registry import errors
from jaula.images.registry.auth import www_authenticate
from jaula.images.registry.auth.token import Authorizer, Credentials
from jaula.images.registry.cancellation import Cancellation
from jaula.images.registry.errors import Unreachable
from jaula.images.registry.hosts import Endpoint
from jaula.images.registry.http.transport import Body, HttpResponse, Transport
from jaula.images.registry.http.url import Url
from jaula.images.registry.timeouts import ERROR_LIMIT


class Session:
    """A server that answers. Methods may be called from several threads."""

    def __init__(
        self, transport: Transport, endpoint: Endpoint, held: Credentials, cancel: Cancellation
    ) -> None:
        """Ask ``/v2/``. Raises :class:`Unreachable`."""
        self.endpoint = endpoint
        self.transport = transport
        self._authorizer = Authorizer(transport, endpoint, held)
        self.base = self._reach(cancel)

    def _reach(self, cancel: Cancellation) -> Url:
        """The scheme that is spoken there; what the server wants to be shown is learned."""
        *others, last = self.endpoint.urls
        for url in others:
            try:
                return self._ping(url, cancel)
            except Unreachable as error:
                if not error.no_tls:
                    raise
        return self._ping(last, cancel)

    def _ping(self, url: Url, cancel: Cancellation) -> Url:
        with self.transport.request(
            "GET", url.at("/v2/"), {}, cancel=cancel, endpoint=self.endpoint
        ) as answer:
            answer.document(ERROR_LIMIT, "the registry's answer")
            if answer.status == 401 and not answer.redirected:
                self._learn(answer)
        return url

    def _learn(self, answer: HttpResponse) -> None:
        wanted = www_authenticate.choose(www_authenticate.parse(answer.headers("WWW-Authenticate")))
        self._authorizer.learn(wanted, answer.url)

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
        """A request with what it takes to be let in; 401 is answered once with a new token.

        ``target`` is a path, or a URL of this server. Raises what the authorizer raises.
        """
        scopes = tuple(scopes)
        url = target if isinstance(target, Url) else self.base.at(target)
        if url.origin != self.base.origin:
            raise InvalidRequest(
                f"the registry {self.endpoint.name} names {url.authority}, which is not itself"
            )
        for again in (True, False):
            sent = dict(headers or {})
            try:
                authorization = self._authorizer.header(scopes, cancel)
            except errors.NoCredentials as error:
                text = f'{method.capitalize()} "{url}": {error.message}'
                raise errors.NoCredentials(text) from None
            if authorization is not None:
                sent["Authorization"] = authorization
            answer = self.transport.request(
                method,
                url,
                sent,
                cancel=cancel,
                endpoint=self.endpoint,
                body=body,
                stream=stream,
            )
            if answer.status != 401 or answer.redirected or not again:
                return answer
            with answer:
                data = answer.document(ERROR_LIMIT, "the registry's answer")
                before = self._authorizer.challenged
                self._learn(answer)
            now = self._authorizer.challenged
            if now is None or (now == before and now.scheme == "basic"):
                raise errors.refused(401, data)
        raise AssertionError("the second answer is returned")

    def login(self, cancel: Cancellation) -> str:
        """See that the credentials are taken; the identity token that was given for them, or ''.

        Raises :class:`~jaula.images.registry.errors.RegistryError`.
        """
        sent = {}
        authorization = self._authorizer.header((), cancel, offline=True)
        if authorization is not None:
            sent["Authorization"] = authorization
        url = self.base.at("/v2/")
        with self.transport.request(
            "GET", url, sent, cancel=cancel, endpoint=self.endpoint
        ) as answer:
            answer.document(ERROR_LIMIT, "the registry's answer")
            if answer.status != 200:
                word = errors.status_line(answer.status)
                raise errors.RegistryError(
                    "", f"login attempt to {url} failed with status: {word}", answer.status
                )
        return self._authorizer.identity_token


def check(answer: HttpResponse, *good: int) -> HttpResponse:
    """``answer`` itself where its status is one of ``good``; else its error is raised."""
    if answer.status in good:
        return answer
    with answer:
        raise errors.refused(answer.status, answer.document(ERROR_LIMIT, "the registry's answer"))

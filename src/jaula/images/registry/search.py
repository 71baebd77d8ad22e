"""Searching a registry's catalogue (``GET /v1/search``), which Docker Hub and a few others have.

Source: Docker Registry HTTP API 1, "Search"; Docker Engine API 1.45, ``ImageSearch``.
"""

from __future__ import annotations

from urllib.parse import urlencode

import msgspec

from jaula.errors import InvalidRequest, JaulaError
from jaula.images.reference import DEFAULT_DOMAIN
from jaula.images.registry.auth.token import Credentials
from jaula.images.registry.cancellation import Cancellation
from jaula.images.registry.client import RegistryClient
from jaula.images.registry.errors import Unreachable, printable
from jaula.images.registry.hosts import HUB_INDEX, Endpoint
from jaula.images.registry.http.transport import HttpResponse
from jaula.images.registry.timeouts import ERROR_LIMIT
from jaula.spec.image import DOCUMENT_LIMIT

DEFAULT_COUNT, MOST = 25, 100


class Result(msgspec.Struct, frozen=True):
    """One repository; the names are the API's."""

    name: str = ""
    description: str | None = ""
    star_count: int = 0
    is_official: bool = False
    is_automated: bool = False


class _Results(msgspec.Struct, frozen=True):
    results: tuple[Result, ...] | None = None


def split(term: str) -> tuple[str, str]:
    """Registry and words of what a person searches: ``quay.io/etcd``, ``etcd``."""
    first, slash, rest = term.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return first, rest
    return DEFAULT_DOMAIN, term


def search(
    client: RegistryClient, term: str, count: int, held: Credentials, cancel: Cancellation
) -> list[Result]:
    """What the registry finds for ``term``, at most ``count``. Raises :class:`JaulaError`."""
    if not 0 <= count <= MOST:
        raise InvalidRequest(f"Limit {count} is outside the range of [1, {MOST}]")
    domain, words = split(term)
    if not words:
        raise InvalidRequest("there is nothing to search for")
    endpoint = client.hosts.endpoint(HUB_INDEX if domain == DEFAULT_DOMAIN else domain)
    query = urlencode({"q": words, "n": count or DEFAULT_COUNT})
    with _ask(client, endpoint, f"/v1/search?{query}", held, cancel) as answer:
        if answer.status != 200:
            answer.document(ERROR_LIMIT, "the registry's answer")
            raise JaulaError(f"Unexpected status code {answer.status}")
        data = answer.document(DOCUMENT_LIMIT, "the list of results")
    try:
        found = msgspec.json.decode(data, type=_Results).results or ()
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"the registry's results are not valid: {error}") from None
    return [
        msgspec.structs.replace(
            result, name=printable(result.name), description=printable(result.description or "")
        )
        for result in found[: count or DEFAULT_COUNT]
    ]


def _ask(
    client: RegistryClient,
    endpoint: Endpoint,
    target: str,
    held: Credentials,
    cancel: Cancellation,
) -> HttpResponse:
    headers = {"Accept": "application/json"}
    if held.user:
        headers["Authorization"] = held.basic
    *others, last = endpoint.urls
    for url in others:
        try:
            return client.transport.request(
                "GET", url.at(target), headers, cancel=cancel, endpoint=endpoint
            )
        except Unreachable as error:
            if not error.no_tls:
                raise
    return client.transport.request(
        "GET", last.at(target), headers, cancel=cancel, endpoint=endpoint
    )

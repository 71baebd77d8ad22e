"""Search a registry (``GET /v1/search``), which Docker Hub and a few others support.

Source: Docker Registry HTTP API 1, "Search"; Docker Engine API 1.45, ``ImageSearch``.
"""

from __future__ import annotations

from urllib.parse import urlencode

import msgspec

from jaula.errors import InvalidRequest, JaulaError
from jaula.images.reference import DEFAULT_DOMAIN
from jaula.images.registry.auth.token import Credentials
from jaula.images.registry.cancellation import Cancellation
from jaula.images.registry.http.registry_transport import HttpResponse
from jaula.images.registry.registry_client import RegistryClient
from jaula.images.registry.registry_errors import Unreachable, printable
from jaula.images.registry.registry_hosts import HUB_INDEX, Endpoint
from jaula.images.registry.timeouts import ERROR_LIMIT
from jaula.spec.image_documents import DOCUMENT_LIMIT

DEFAULT_COUNT, MAX_COUNT = 25, 100


class Result(msgspec.Struct, frozen=True):
    """One repository. The field names are the API's."""

    name: str = ""
    description: str | None = ""
    star_count: int = 0
    is_official: bool = False
    is_automated: bool = False


class _Results(msgspec.Struct, frozen=True):
    results: tuple[Result, ...] | None = None


def split(term: str) -> tuple[str, str]:
    """Return registry and term of a search: ``quay.io/etcd`` searches ``etcd`` at ``quay.io``."""
    first, slash, rest = term.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return first, rest
    return DEFAULT_DOMAIN, term


def search(
    client: RegistryClient, term: str, count: int, credentials: Credentials, cancel: Cancellation
) -> list[Result]:
    """Return at most ``count`` repositories that match ``term``.

    :raises JaulaError: if the search fails.
    """
    if not 0 <= count <= MAX_COUNT:
        raise InvalidRequest(f"Limit {count} is outside the range of [1, {MAX_COUNT}]")
    domain, query_term = split(term)
    if not query_term:
        raise InvalidRequest("the search term is empty")
    endpoint = client.hosts.endpoint(HUB_INDEX if domain == DEFAULT_DOMAIN else domain)
    query = urlencode({"q": query_term, "n": count or DEFAULT_COUNT})
    with _request(client, endpoint, f"/v1/search?{query}", credentials, cancel) as response:
        if response.status != 200:
            response.document(ERROR_LIMIT, "the registry's response")
            raise JaulaError(f"Unexpected status code {response.status}")
        data = response.document(DOCUMENT_LIMIT, "the list of results")
    try:
        results = msgspec.json.decode(data, type=_Results).results or ()
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"the registry's results are not valid: {error}") from None
    return [
        msgspec.structs.replace(
            result, name=printable(result.name), description=printable(result.description or "")
        )
        for result in results[: count or DEFAULT_COUNT]
    ]


def _request(
    client: RegistryClient,
    endpoint: Endpoint,
    target: str,
    credentials: Credentials,
    cancel: Cancellation,
) -> HttpResponse:
    headers = {"Accept": "application/json"}
    if credentials.user and not endpoint.mirror:
        headers["Authorization"] = credentials.basic
    *preferred, fallback = endpoint.urls
    for url in preferred:
        try:
            return client.transport.request(
                "GET", url.at(target), headers, cancel=cancel, endpoint=endpoint
            )
        except Unreachable as error:
            if not error.try_plain_http:
                raise
    return client.transport.request(
        "GET", fallback.at(target), headers, cancel=cancel, endpoint=endpoint
    )

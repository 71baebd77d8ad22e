"""The use cases of registries: pull, push, login, search, inspect.

The registry client blocks on networks, so every request runs in a thread of its own. It is
cancelled when its client leaves. The first request loads the registry client and its modules.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from jaula import metrics
from jaula.engine.model.label_filters import Filters
from jaula.engine.threads import in_own_thread, produce
from jaula.errors import InvalidRequest, JaulaError
from jaula.images import reference as references
from jaula.images.reference import DEFAULT_DOMAIN, Reference
from jaula.spec.api_documents import ManifestListAdd, RegistryAuth

if TYPE_CHECKING:
    from jaula.engine.model.services import Services
    from jaula.images.registry.auth.token import Credentials
    from jaula.images.registry.cancellation import Cancellation
    from jaula.images.registry.pull_sources import Sources
    from jaula.images.registry.registry_client import RegistryClient
    from jaula.images.registry.repository import Repository
    from jaula.images.store.image_quota import Quota
    from jaula.images.store.image_store import Image
    from jaula.spec.image_documents import Platform
    from jaula.spec.layer_compression import LayerCompression

Document = dict[str, Any]
Documents = list[Document]

_Result = TypeVar("_Result")


class RegistryService:
    """The registry operations of an engine."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._client: RegistryClient | None = None

    @property
    def client(self) -> RegistryClient:
        """The registry client, created at its first use."""
        if self._client is None:
            from jaula.images.registry.registry_client import RegistryClient

            services = self._services
            self._client = RegistryClient(
                services.images,
                services.config.registry,
                admission=services.image_policy,
                lazy=services.lazy_layers,
            )
        return self._client

    def renew(self) -> None:
        """Use the current configuration; running requests keep the former one."""
        self._client = None

    def close(self) -> None:
        """Close all connections."""
        if self._client is not None:
            self._client.close()

    async def pull(
        self,
        name: str,
        tag: str,
        platform: str | None,
        auth: RegistryAuth | None,
        quota: Quota,
        *,
        whole: bool = False,
        keep_names: bool = False,
    ) -> AsyncIterator[Document]:
        """Pull an image, or every tag of a repository; yield Docker's messages.

        With ``whole``, no layer is mounted before it is stored. With ``keep_names``, a name of
        another owner stays as it is, and the image gets a name with its digest only.

        :raises NotAuthorized: when the quota does not allow the image, or the name belongs to
            another owner.
        :raises NotFound: when the registry does not have it.
        :raises Unreachable: when the registry does not answer.
        """
        from jaula.images.image_platform import parse_platform
        from jaula.images.registry.cancellation import Cancellation
        from jaula.images.registry.image_pull import pull, pull_all

        reference, all_tags = _parse_reference(name, tag)
        requested = parse_platform(platform)
        credentials = credentials_for(auth, reference.domain)
        cancel, client = Cancellation(), self.client

        def work(emit: Callable[[Document], None]) -> None:
            with _HubHint(reference):
                fetch = partial(pull_all if all_tags else pull, whole=whole)
                if keep_names and not all_tags:
                    fetch = partial(pull, whole=whole, keep_names=True)
                fetch(client, reference, requested, credentials, emit, cancel, quota)

        started = time.perf_counter()
        async for message in produce(work, abandon=cancel.cancel):
            yield message
        metrics.PULLS.observe(time.perf_counter() - started)
        pulled = reference.repository if all_tags else str(reference)
        self._services.events.emit("image", "pull", pulled, {"name": reference.repository})

    async def push(
        self,
        name: str,
        tag: str,
        auth: RegistryAuth | None,
        quota: Quota,
        platform: Platform | None = None,
        *,
        unchanged: bool = False,
        compression: LayerCompression | None = None,
    ) -> AsyncIterator[Document]:
        """Push an image, or every tag of a repository; yield Docker's messages.

        Of an index it is the image for ``platform``, or the whole index if it is stored. With
        ``unchanged``, plain layers are not compressed. With ``compression`` they are pushed in that
        form, and the image of the engine stays as it is.

        :raises InvalidRequest: when the reference has a digest.
        """
        from jaula.images.registry.cancellation import Cancellation
        from jaula.images.registry.image_push import PushRequest, push

        reference, all_tags = _parse_reference(name, tag)
        if reference.digest is not None:
            raise InvalidRequest("cannot push a digest reference")
        if all_tags:
            reference = msgspec.structs.replace(reference, tag=None)
        credentials = credentials_for(auth, reference.domain)
        cancel, client = Cancellation(), self.client

        def work(emit: Callable[[Document], None]) -> None:
            with _HubHint(reference, push=True):
                request = PushRequest(
                    client, reference, credentials, emit, cancel, quota, unchanged, compression
                )
                push(request, platform)

        async for message in produce(work, abandon=cancel.cancel):
            yield message
        self._services.events.emit("image", "push", str(reference), {"name": reference.repository})

    async def push_image(
        self, name: str, image: Image, auth: RegistryAuth | None, quota: Quota
    ) -> AsyncIterator[Document]:
        """Push an image of the store under a name that it does not get; yield the messages."""
        from jaula.images.registry.cancellation import Cancellation
        from jaula.images.registry.image_push import PushRequest, push_image

        reference = references.parse(name)
        credentials = credentials_for(auth, reference.domain)
        cancel, client = Cancellation(), self.client

        def work(emit: Callable[[Document], None]) -> None:
            with _HubHint(reference, push=True):
                request = PushRequest(
                    client, reference, credentials, emit, cancel, quota, named=False
                )
                push_image(request, image)

        async for message in produce(work, abandon=cancel.cancel):
            yield message

    async def login(self, auth: RegistryAuth) -> Document:
        """Check credentials at a registry; return Docker's answer.

        :raises Refused: when the registry rejects them.
        """
        from jaula.images.registry.registry_hosts import domain_of
        from jaula.images.registry.registry_session import Session

        domain = domain_of(auth.server_address)
        # The address must be one that the name of an image can begin with.
        if references.parse(f"{domain}/x/x").domain != domain:
            raise InvalidRequest(f"{domain[:80]!r} is not a valid registry address")
        credentials = credentials_for(auth, domain)
        client = self.client

        def work(cancel: Cancellation) -> str:
            endpoint = client.hosts.endpoint(domain)
            if endpoint.mirror:
                raise InvalidRequest(
                    f"credentials for {domain} are not sent to {endpoint.name}, the server of all"
                    " registries",
                    hint=f"see {endpoint.source}",
                )
            return Session(client.transport, endpoint, credentials, cancel).login(cancel)

        token = await in_cancellable_thread(work)
        return {"IdentityToken": token, "Status": "Login Succeeded"}

    async def inspect(self, name: str, auth: RegistryAuth | None) -> Document:
        """Return the descriptor of a name, and its platforms."""
        from jaula.images.registry.registry_inspect import describe

        reference = references.parse(name)
        credentials, client = credentials_for(auth, reference.domain), self.client
        return await in_cancellable_thread(
            lambda cancel: _from_any(
                client.sources(reference, credentials, cancel),
                reference,
                lambda source: describe(source, reference, cancel),
            )
        )

    async def manifest(self, name: str, auth: RegistryAuth | None) -> Document:
        """Return the manifest of a name unchanged, with the manifests that it lists."""
        from jaula.images.registry.registry_inspect import details

        reference = references.parse(name)
        credentials, client = credentials_for(auth, reference.domain), self.client
        return await in_cancellable_thread(
            lambda cancel: _from_any(
                client.sources(reference, credentials, cancel),
                reference,
                lambda source: details(source, reference, cancel),
            )
        )

    async def push_list(
        self, name: str, body: ManifestListAdd, auth: RegistryAuth | None
    ) -> Document:
        """Push a list of manifests that exist at the registry; return its digest."""
        from jaula.images.registry.push_index import push_list

        reference = references.parse(name)
        members = [references.parse(member) for member in body.members]
        credentials, client = credentials_for(auth, reference.domain), self.client
        digest = await in_cancellable_thread(
            lambda cancel: push_list(
                client, reference, body.content, body.media_type, members, credentials, cancel
            )
        )
        return {"Digest": digest}

    async def search(
        self, term: str, limit: int, filters: Filters, auth: RegistryAuth | None
    ) -> Documents:
        """Search a registry; return the repositories in its order.

        :raises InvalidRequest: when a filter is invalid.
        """
        from jaula.images.registry.registry_search import search, split

        keep = _search_filter(filters)
        credentials, client = credentials_for(auth, split(term)[0]), self.client
        results = await in_cancellable_thread(
            lambda cancel: search(client, term, limit, credentials, cancel)
        )
        documents: Documents = [msgspec.to_builtins(result) for result in results]
        return [document for document in documents if keep(document)]


def _parse_reference(name: str, tag: str) -> tuple[Reference, bool]:
    """Parse the name and tag of a request; return whether every tag is meant, too.

    ``tag`` may be a digest, and ``name`` may contain the tag; the parameter wins.
    """
    if tag:
        reference = references.parse(name)
        name = msgspec.structs.replace(reference, tag=None, digest=None).canonical
        separator = "@" if ":" in tag else ":"
        return references.parse(f"{name}{separator}{tag}"), False
    last = name.rpartition("/")[2]
    return references.parse(name), ":" not in last and "@" not in last


def credentials_for(auth: RegistryAuth | None, domain: str) -> Credentials:
    """Return the credentials of a request; empty ones if they are for another registry."""
    from jaula.images.registry.auth.token import Credentials
    from jaula.images.registry.auth.token import credentials as parse_credentials
    from jaula.images.registry.registry_hosts import domain_of

    if auth is not None and auth.server_address and domain_of(auth.server_address) != domain:
        return Credentials()
    return parse_credentials(auth)


class _HubHint:
    """A context that adds a hint to the error of an unreachable Docker Hub."""

    def __init__(self, reference: Reference, *, push: bool = False) -> None:
        self._reference = reference
        self._push = push

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        from jaula.images.registry.registry_errors import Unreachable

        if isinstance(error, Unreachable) and self._reference.domain == DEFAULT_DOMAIN:
            base = self._reference.path.rpartition("/")[2]
            if self._push:
                error.hint = (
                    "a name without a registry is one of Docker Hub; for another one:"
                    f" 'jaula tag {self._reference} REGISTRY/{base}', and push that name"
                )
                return
            recipe = base if base in ("busybox", "debian", "ubuntu") else "busybox"
            error.hint = (
                "load an archive with 'jaula load -i FILE', or build an image from the package"
                f" mirror with 'jaula image bootstrap {recipe}'"
            )


def _from_any(
    sources: Sources, reference: Reference, work: Callable[[Repository], _Result]
) -> _Result:
    """Return the result of the first source that has one: mirrors, then the registry itself."""
    try:
        return sources.first(work, resolve=reference.digest is None)
    except JaulaError as error:
        raise sources.explain(error) from None


async def in_cancellable_thread(work: Callable[[Cancellation], _Result]) -> _Result:
    """Run short network ``work`` in a thread; cancel it if the caller is cancelled."""
    from jaula.images.registry.cancellation import Cancellation

    cancel = Cancellation()
    thread = in_own_thread(lambda: work(cancel))
    try:
        return await thread
    finally:
        cancel.cancel()


def _search_filter(filters: Filters) -> Callable[[Document], bool]:
    stars, flags = 0, {}
    for key, values in filters.items():
        match key:
            case "stars":
                if not all(v.isascii() and v.isdecimal() and len(v) < 10 for v in values):
                    raise InvalidRequest(f"invalid filter 'stars={values[0][:40]}'")
                stars = max([stars, *(int(v) for v in values)])
            case "is-official" | "is-automated":
                if not values or values[0] not in ("true", "false", "1", "0"):
                    raise InvalidRequest(f"invalid filter '{key}={values[:1]}'")
                flags[key.replace("-", "_")] = values[0] in ("true", "1")
            case _:
                raise InvalidRequest(f"invalid filter '{key}'")
    return lambda document: (
        document["star_count"] >= stars
        and all(document[name] == value for name, value in flags.items())
    )

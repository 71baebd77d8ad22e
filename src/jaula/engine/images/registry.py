"""The use cases of registries: pull, push, log in, search, look.

The client of registries waits for networks, so all of it runs in threads of its own; what a request
began ends when its client goes away. The client and its modules are loaded with the first request.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from jaula.engine.model.filters import Filters
from jaula.engine.threads import in_own_thread, produce
from jaula.errors import InvalidRequest
from jaula.images import reference as references
from jaula.images.reference import DEFAULT_DOMAIN, Reference
from jaula.spec.api import ManifestListAdd, RegistryAuth

if TYPE_CHECKING:
    from jaula.engine.model.services import Services
    from jaula.images.registry.auth.token import Credentials
    from jaula.images.registry.cancellation import Cancellation
    from jaula.images.registry.client import RegistryClient

Document = dict[str, Any]
Documents = list[Document]

_Result = TypeVar("_Result")


class RegistryService:
    """Registries as an engine uses them."""

    def __init__(self, parts: Services) -> None:
        self._parts = parts
        self._made: RegistryClient | None = None

    @property
    def client(self) -> RegistryClient:
        """The client of registries, made when it is first needed."""
        if self._made is None:
            from jaula.images.registry.client import RegistryClient

            parts = self._parts
            self._made = RegistryClient(parts.images, parts.config.registry, admission=parts.gate)
        return self._made

    def renew(self) -> None:
        """Use the settings as they are now; what is under way goes on with the former ones."""
        self._made = None

    def close(self) -> None:
        """Let go of connections."""
        if self._made is not None:
            self._made.close()

    async def pull(
        self, name: str, tag: str, platform: str | None, auth: RegistryAuth | None
    ) -> AsyncIterator[Document]:
        """Fetch an image, or every tag of a repository; Docker's messages.

        :raises NotFound: the registry has nothing of that name.
        :raises Unreachable: no registry answers.
        """
        from jaula.images.registry import manifest as registry_manifest
        from jaula.images.registry.cancellation import Cancellation
        from jaula.images.registry.pull import pull, pull_all

        wanted, every = _wanted(name, tag)
        chosen = registry_manifest.parse_platform(platform)
        held = held_for(auth, wanted.domain)
        cancel, client = Cancellation(), self.client

        def work(emit: Callable[[Document], None]) -> None:
            with _HubHint(wanted):
                fetch = pull_all if every else pull
                fetch(client, wanted, chosen, held, emit, cancel)

        async for message in produce(work, own_thread=True, abandon=cancel.cancel):
            yield message
        shown = wanted.repository if every else str(wanted)
        self._parts.events.emit("image", "pull", shown, {"name": wanted.repository})

    async def push(self, name: str, tag: str, auth: RegistryAuth | None) -> AsyncIterator[Document]:
        """Send an image, or every tag of a repository; Docker's messages."""
        from jaula.images.registry.cancellation import Cancellation
        from jaula.images.registry.push import push

        wanted, every = _wanted(name, tag)
        if wanted.digest is not None:
            raise InvalidRequest("cannot push a digest reference")
        if every:
            wanted = msgspec.structs.replace(wanted, tag=None)
        held = held_for(auth, wanted.domain)
        cancel, client = Cancellation(), self.client

        def work(emit: Callable[[Document], None]) -> None:
            with _HubHint(wanted):
                push(client, wanted, held, emit, cancel)

        async for message in produce(work, own_thread=True, abandon=cancel.cancel):
            yield message
        self._parts.events.emit("image", "push", str(wanted), {"name": wanted.repository})

    async def login(self, auth: RegistryAuth) -> Document:
        """See whether a registry takes the credentials.

        :raises Refused: it does not.
        """
        from jaula.images.registry.hosts import domain_of
        from jaula.images.registry.session import Session

        domain = domain_of(auth.server_address)
        # A name that is a registry's address is one that an image's name could begin with.
        if references.parse(f"{domain}/x/x").domain != domain:
            raise InvalidRequest(f"{domain[:80]!r} is no registry's address")
        held = held_for(auth, domain)
        client = self.client

        def work(cancel: Cancellation) -> str:
            session = Session(client.transport, client.hosts.endpoint(domain), held, cancel)
            return session.login(cancel)

        token = await in_cancellable_thread(work)
        return {"IdentityToken": token, "Status": "Login Succeeded"}

    async def inspect(self, name: str, auth: RegistryAuth | None) -> Document:
        """The descriptor of a name and its platforms."""
        from jaula.images.registry.inspect import describe

        wanted = references.parse(name)
        held, client = held_for(auth, wanted.domain), self.client
        return await in_cancellable_thread(
            lambda cancel: describe(
                client.repository(wanted.domain, wanted.path, held, cancel), wanted, cancel
            )
        )

    async def manifest(self, name: str, auth: RegistryAuth | None) -> Document:
        """The document of a name, as it is, with the manifests that it lists."""
        from jaula.images.registry.inspect import details

        wanted = references.parse(name)
        held, client = held_for(auth, wanted.domain), self.client
        return await in_cancellable_thread(
            lambda cancel: details(
                client.repository(wanted.domain, wanted.path, held, cancel), wanted, cancel
            )
        )

    async def push_list(
        self, name: str, body: ManifestListAdd, auth: RegistryAuth | None
    ) -> Document:
        """Send a list of manifests that the registry has already; its digest."""
        from jaula.images.registry.push_index import push_list

        wanted = references.parse(name)
        members = [references.parse(member) for member in body.members]
        held, client = held_for(auth, wanted.domain), self.client
        digest = await in_cancellable_thread(
            lambda cancel: push_list(
                client, wanted, body.content, body.media_type, members, held, cancel
            )
        )
        return {"Digest": digest}

    async def search(
        self, term: str, limit: int, filters: Filters, auth: RegistryAuth | None
    ) -> Documents:
        """Repositories that a registry finds, in its order."""
        from jaula.images.registry.search import search, split

        keep = _search_filter(filters)
        held, client = held_for(auth, split(term)[0]), self.client
        found = await in_cancellable_thread(
            lambda cancel: search(client, term, limit, held, cancel)
        )
        documents: Documents = [msgspec.to_builtins(result) for result in found]
        return [document for document in documents if keep(document)]


def _wanted(name: str, tag: str) -> tuple[Reference, bool]:
    """The API's pair as a reference; whether every tag is meant.

    ``tag`` may be a digest, and ``name`` may hold the tag already.
    """
    if tag:
        separator = "@" if ":" in tag else ":"
        return references.parse(f"{name}{separator}{tag}"), False
    last = name.rpartition("/")[2]
    return references.parse(name), ":" not in last and "@" not in last


def held_for(auth: RegistryAuth | None, domain: str) -> Credentials:
    """The credentials of a request, none where they name another registry than ``domain``."""
    from jaula.images.registry.auth.token import Credentials, credentials
    from jaula.images.registry.hosts import domain_of

    if auth is not None and auth.server_address and domain_of(auth.server_address) != domain:
        return Credentials()
    return credentials(auth)


class _HubHint:
    """A context: where Docker Hub cannot be reached, say what can be done without it."""

    def __init__(self, wanted: Reference) -> None:
        self._wanted = wanted

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        from jaula.images.registry.errors import Unreachable

        if isinstance(error, Unreachable) and self._wanted.domain == DEFAULT_DOMAIN:
            base = self._wanted.path.rpartition("/")[2]
            recipe = base if base in ("busybox", "debian", "ubuntu") else "busybox"
            error.hint = (
                "load an archive with 'jaula load -i FILE', or build an image from the package"
                f" mirror with 'jaula image bootstrap {recipe}'"
            )


async def in_cancellable_thread(work: Callable[[Cancellation], _Result]) -> _Result:
    """Do short ``work`` that waits for a network; cancel it when the caller is cancelled."""
    from jaula.images.registry.cancellation import Cancellation

    cancel = Cancellation()
    running = in_own_thread(lambda: work(cancel))
    try:
        return await running
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
        and all(document[name] == wanted for name, wanted in flags.items())
    )

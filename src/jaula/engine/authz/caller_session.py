"""One caller with its rule, and the actions that it performs.

:class:`Session` answers what the caller may read and do. :class:`AuditedAction` is one request that
changes something: leaving it appends one entry to the audit log, with its outcome.
"""

from __future__ import annotations

import asyncio
import pwd
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import msgspec

from jaula import metrics, spans
from jaula.engine import relaxations
from jaula.engine.authz import authorization_policy, request_ceilings
from jaula.engine.authz.authorization_policy import AccessLevel, ContainerAccess
from jaula.engine.authz.machine import read_machine
from jaula.engine.authz.policy_file import DEFAULT_PATH
from jaula.engine.authz.request_ceilings import Bound, Share
from jaula.engine.containers import log_config
from jaula.engine.containers.bounds import Bounds, no_reservation
from jaula.engine.networks import endpoints
from jaula.engine.relaxations import Relaxation
from jaula.engine.volumes.mount_sources import VolumeMounter, option_names
from jaula.errors import ClientGone, InvalidRequest, JaulaError, NotAuthorized, NotFound
from jaula.images.store.image_names import NameRights, owner_name
from jaula.images.store.image_quota import Quota
from jaula.spec.api_params import ContainerPeer, Peer, Remote
from jaula.spec.migration_target import canonical_target
from jaula.state.audit_log import AuditEntry
from jaula.state.container_records import is_external, log_of, stored

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping
    from types import TracebackType

    from jaula.engine.authz.authorization_policy import Caller, Policy
    from jaula.engine.authz.request_ceilings import Ceilings, Demand
    from jaula.engine.engine import Engine
    from jaula.engine.model.container import Container
    from jaula.engine.model.label_filters import Filters
    from jaula.engine.model.services import Services
    from jaula.engine.relaxations import Privilege
    from jaula.images.store.image_quota import Usage
    from jaula.spec.api_documents import ContainerCreate, HostConfig, LogConfig
    from jaula.spec.api_params import Origin
    from jaula.spec.network_record import NetworkRecord
    from jaula.spec.pod import PodMetadata
    from jaula.state.audit_trail import AuditTrail
    from jaula.state.container_records import ContainerRecord, MountRecord, ResolvedRequest
    from jaula.storage.volume_directories import Volume

DONE, FAILED, TIMED_OUT = 200, 500, 504  # statuses
CLIENT_CLOSED = ClientGone.status
_VISIBLE_EVENTS = (
    *("create", "start", "pause", "unpause", "restart", "stop", "kill", "oom", "die"),
    *("rename", "update", "destroy"),
)
"""Events of a container that say no more than the list of containers does."""
_COPIES = 4  # of a member that changes: the body, the resolved request, the intent, the history
SHORT_ID = 12  # digits of the ids that clients print
_OPERATOR = "ask the operator, whose policy decides it"


class Session:
    """A caller, its rule, and the audit log of its actions."""

    def __init__(
        self,
        engine: Engine,
        caller: Caller,
        policy: Policy,
        audit_trail: AuditTrail,
        peer: Origin | None,
        reserved: Counter[tuple[Share, str]],
    ) -> None:
        self._engine = engine
        self.reserved = reserved
        self.caller = caller
        self.follow(policy)
        self.audit_trail = audit_trail
        self.peer = peer

    def follow(self, policy: Policy) -> None:
        """Apply a policy from now on."""
        self.policy = policy
        self.rule = policy.rule_of(self.caller)

    @property
    def services(self) -> Services:
        """The services of the engine."""
        return self._engine.services

    @property
    def owner(self) -> tuple[str, int]:
        """The owner of containers that the caller creates, and its group."""
        return self.caller.key, self.caller.gid

    @property
    def is_admin(self) -> bool:
        """Whether the caller has root's power over the host anyway."""
        return self.rule.access is AccessLevel.ALL

    @property
    def share_key(self) -> str:
        """The key of the caller's share of the audit log, empty if it has no limit."""
        return "" if self.is_admin else self.caller.key

    def denial(self, action: str, advice: str = _OPERATOR, line: str = "") -> NotAuthorized:
        """Return the error for an action that the rule does not allow; ``line`` would allow it."""
        file = self._policy_file() if line else ""
        return authorization_policy.denial(
            self._named_caller(), self.rule, action, advice, line, file
        )

    @property
    def caller_name(self) -> str:
        """The caller's name for people; empty if the host has none."""
        caller = self._named_caller()
        return caller.name or caller.certificate

    def _named_caller(self) -> Caller:
        if self.caller.container:
            container = self.services.container_store.get(self.caller.container)
            name = "" if container is None else container.name
            return msgspec.structs.replace(self.caller, name=name)
        if self.caller.uid is None:
            return self.caller
        try:
            name = pwd.getpwuid(self.caller.uid).pw_name
        except KeyError:
            return self.caller
        return msgspec.structs.replace(self.caller, name=name)

    # -- reading ---------------------------------------------------------------------------------

    def require_read(self) -> None:
        """Check that the caller may list and inspect.

        :raises NotAuthorized: when it may not.
        """
        if self.rule.access < AccessLevel.READ:
            raise self.denial("use this engine", line='access = "read"')

    def can_access(self, container: Container, level: ContainerAccess) -> bool:
        """Return whether the caller owns a container, or its rule grants this access to it."""
        return self.can_access_owner(container.record.owner, level)

    def can_access_owner(self, owner: str, level: ContainerAccess) -> bool:
        """Return whether the caller may access the objects of an owner."""
        return owner == self.caller.key or self.is_admin or self.rule.container_access >= level

    def require_container_read(self, ref: str) -> None:
        """Check that the caller may read the content of a container.

        :raises NotAuthorized: when it may not.
        """
        self.require_read()
        container = self._engine.containers.find(ref)
        self._require_access(container, ContainerAccess.READ, "read")

    def require_control(self, ref: str) -> Container:
        """Return a container that the caller may control.

        :raises NotAuthorized: when it may not.
        """
        self.require_run()
        container = self._engine.containers.find(ref)
        self._require_access(container, ContainerAccess.CONTROL, "control")
        return container

    def require_remove(self, ref: str) -> Container:
        """Return a container that the caller may remove: by a label, or since it controls it.

        :raises NotAuthorized: when it may not.
        """
        self.require_read()
        container = self._engine.containers.find(ref)
        if not self.rule.may_remove(container.record.body.labels):
            return self.require_control(ref)
        return container

    def _require_access(self, container: Container, level: ContainerAccess, verb: str) -> None:
        if not self.can_access(container, level):
            raise self.denial(
                f"{verb} container {container.name} of {owner_name(container.record.owner)}",
                "that owner may",
                f'others = "{level.name.lower()}"',
            )

    def visible_volume(self, document: dict[str, Any]) -> dict[str, Any]:
        """Return the document of a volume, for callers that may not read it without passwords."""
        options = document["Options"]
        if not options or self.can_access_owner(document["Owner"], ContainerAccess.READ):
            return document
        return document | {"Options": option_names(options)}

    async def visible_events(self, events: AsyncIterator[dict[str, Any]]) -> AsyncIterator[Any]:
        """Yield the events; of containers that the caller may not read :data:`_VISIBLE_EVENTS`."""
        readable: set[str] = set()
        everything = self.is_admin or self.rule.container_access >= ContainerAccess.READ
        try:
            async for event in events:
                if everything or event.get("Type") != "container":
                    yield event
                    continue
                container_id = event.get("Actor", {}).get("ID", "")
                container = self.services.container_store.get(container_id)
                if container is not None and self.can_access(container, ContainerAccess.READ):
                    readable.add(container_id)
                if container_id in readable or event.get("Action", "") in _VISIBLE_EVENTS:
                    yield event
        finally:
            await events.aclose()  # type: ignore[attr-defined]

    # -- changing --------------------------------------------------------------------------------

    def require_run(self) -> None:
        """Check that the caller may change anything at all.

        :raises NotAuthorized: when it may not.
        """
        if self.rule.access < AccessLevel.RUN:
            action = "change anything" if self.rule.access else "use this engine"
            raise self.denial(action, line='access = "run"')

    def authorize(self, privileges: tuple[Privilege, ...]) -> None:
        """Check that every privilege is granted.

        :raises NotAuthorized: for the first privilege that is not.
        """
        self.require_run()
        for privilege in privileges:
            if privilege.kind is Relaxation.OTHER_CONTAINERS:
                try:
                    container = self._engine.containers.find(privilege.value)
                except NotFound:
                    continue  # the use case reports it with its own text
                self._require_access(container, ContainerAccess.CONTROL, "share with")
                self.require_engine_socket(container)
                continue
            if privilege.kind is Relaxation.ENGINE_SOCKET:
                self._require_engine_socket(privilege.value)
                continue
            if not self.rule.allows(privilege):
                raise authorization_policy.privilege_denial(
                    self._named_caller(), self.rule, privilege, self._policy_file()
                )
            if privilege.kind is Relaxation.HOST_MOUNT and not self._is_host_user():
                advice = "mounts need a user of this host; use a volume"
                raise self.denial(f"ask for {privilege}", advice)

    def check_ceilings(self, demands: tuple[Demand, ...]) -> None:
        """Check that no demand is above the ceiling of the caller's rule.

        :raises NotAuthorized: for the first one that is.
        """
        if self.is_admin:
            return
        ceilings = self.ceilings
        for demand in demands:
            if not ceilings.allow(demand):
                raise authorization_policy.demand_denial(
                    self._named_caller(), self.rule, demand, ceilings, self._policy_file()
                )

    @property
    def ceilings(self) -> Ceilings:
        """The ceilings of the caller, with a share of the machine for what has no line."""
        services = self.services
        machine = read_machine(services.config.paths.root, services.host.pids_limit)
        return self.rule.ceilings.with_defaults(request_ceilings.machine_ceilings(machine))

    def check_request(self, body: ContainerCreate, resolved: ResolvedRequest) -> None:
        """Check the ceilings for everything that a container requests.

        :raises NotAuthorized: when it requests more.
        """
        if self.is_admin:
            return
        pids = self.services.host.pids_limit
        self.check_ceilings(request_ceilings.of_request(body.host_config, resolved, pids))
        files = log_config.requested_files(self.services.config, log_of(body, resolved))
        if files is not None:
            self.check_ceilings(request_ceilings.of_log(files.max_size, files.max_file))

    def check_pod_request(self, host: HostConfig, resolved: ResolvedRequest) -> None:
        """Check the ceilings for everything that a container of a pod requests.

        The kubelet limits the processes in the cgroup of the pod, so a container without a limit is
        above a ceiling of the policy only, not above the share of the machine.

        :raises NotAuthorized: when it requests more.
        """
        demands = request_ceilings.of_request(host, resolved, self.services.host.pids_limit)
        if "pids" not in self.rule.ceilings.stated:
            demands = tuple(demand for demand in demands if demand.bound is not Bound.PIDS)
        self.check_ceilings(demands)

    def require_engine_socket(self, container: Container) -> None:
        """Check that the caller may act as a container, whose engine socket it could use then.

        A socket whose entry was removed from the policy has no right.

        :raises NotAuthorized: when it may not.
        """
        if container.record.engine_socket in self.policy.containers:
            self._require_engine_socket(container.record.engine_socket)

    def _require_engine_socket(self, key: str) -> None:
        """Check that the caller may create and start a container with an entry of the policy.

        :raises NotAuthorized: when it may not. The text names the lines that would allow it.
        """
        if self.policy.may_use(self.caller, self.rule, key):
            return
        caller, title = self._named_caller(), authorization_policy.entry_title(key or "NAME")
        if key not in self.policy.containers:
            name = "" if key else "give it a name, with --name NAME; "
            raise NotAuthorized(
                f"{caller} may not mount the engine's socket: the policy has no entry for this"
                " container",
                hint=f'{name}the lines {title} and access = "read" in {self._policy_file()} and'
                " SIGHUP to the engine allow it to list and inspect; --userns=host is not needed",
            )
        remedy = "ask the operator to create it"
        if self.caller.uid is not None:
            user = f'users = ["{caller.name or caller.uid}"]'
            remedy = f"the line {user} below {title} in {self._policy_file()} allows it"
        raise NotAuthorized(
            f"{caller} may not ask for engine-socket={key}: rule {self.rule.name} grants less than"
            f" {title}",
            hint=f"{remedy}; --userns=host is not needed",
        )

    def _policy_file(self) -> str:
        config = self.services.config
        return config.policy or (
            "the file of jaula daemon --policy FILE"
            if self.services.host.rootless
            else DEFAULT_PATH
        )

    def _is_host_user(self) -> bool:
        """Return whether the caller has rights on the host's files."""
        return self.caller.uid is not None or self.is_admin

    def controls(self, item: NetworkRecord | Volume) -> bool:
        """Return whether the caller may remove a network or volume.

        One without an owner is of an engine that recorded none: it is for administrators.
        """
        return self.can_access_owner(item.owner, ContainerAccess.CONTROL)

    def check_new_name(self, kind: str, name: str, ids: Iterable[tuple[str, str]]) -> None:
        """Check that a new name is not the short id of an object of another owner.

        A reference is looked up among names before the beginnings of ids, so such a name would take
        the place of that object. ``ids`` are pairs of the id and the owner of each.

        :raises NotAuthorized: when it is.
        """
        if len(name) < SHORT_ID:
            return
        for id, owner in ids:
            if id.startswith(name) and not self.can_access_owner(owner, ContainerAccess.CONTROL):
                raise self.denial(
                    f"take the short id {name} of a {kind} of {owner_name(owner)} as a name",
                    "choose another name",
                )

    def require_network_use(self, ref: str) -> None:
        """Check that the caller may connect containers to a network. Skip one that is unknown.

        :raises NotAuthorized: when it may not.
        """
        if (network := self._network(ref)) is not None:
            self._require_use("network", network)

    def require_network_removal(self, ref: str) -> None:
        """Check that the caller may remove a network. Skip one that is unknown.

        :raises NotAuthorized: when it may not.
        """
        if (network := self._network(ref)) is not None:
            self._require_removal("network", network)

    def require_volume_removal(self, name: str) -> None:
        """Check that the caller may remove a volume. Skip one that is unknown.

        :raises NotAuthorized: when it may not.
        """
        if self.services.volumes.exists(name):
            self._require_removal("volume", self.services.volumes.get(name))

    def authorize_networks(self, body: ContainerCreate, resolved: ResolvedRequest) -> None:
        """Check that the caller may use the networks that a new container is connected to.

        :raises NotAuthorized: for the first one that it may not use.
        """
        for ref in (resolved.namespaces.network, *body.networking_config.endpoints_config):
            self.require_network_use(ref)

    def authorize_record(self, record: ContainerRecord) -> None:
        """Check that the caller may use the networks and volumes of an existing container.

        The caller has access to the container, so it has access to what belongs to its owner.

        :raises NotAuthorized: for the first one that it may not use.
        """
        self.authorize_mounts(record.mounts, record.owner)
        for name in endpoints.settings_of(record):
            network = self._network(name)
            if network is not None and network.owner != record.owner:
                self._require_use("network", network)

    def authorize_mounts(self, mounts: Iterable[MountRecord], owner: str) -> None:
        """Check that the caller may use the volumes among the mounts of a container of ``owner``.

        :raises NotAuthorized: for the first one that it may not use.
        """
        volumes = self.services.volumes
        for mount in mounts:
            if mount.type == "volume" and mount.name and volumes.exists(mount.name):
                volume = volumes.get(mount.name)
                if volume.owner != owner:
                    self._require_use("volume", volume)

    def _network(self, ref: str) -> NetworkRecord | None:
        """Return a user's network by name or id; None for a predefined or unknown one."""
        store = self.services.network_store
        try:
            return store.get(store.find(ref))
        except (NotFound, InvalidRequest):
            return None  # the use case reports it with its own text

    def _require_use(self, kind: str, item: NetworkRecord | Volume) -> None:
        shared = authorization_policy.SHARED_LABEL in item.labels or not item.owner
        if not shared and not self.controls(item):
            raise self.denial(
                f"use {kind} {item.name} of {owner_name(item.owner)}",
                f'that owner may, or the operator grants others = "control"; a {kind} created with'
                f" --label {authorization_policy.SHARED_LABEL} may be used by every user",
            )

    def _require_removal(self, kind: str, item: NetworkRecord | Volume) -> None:
        if not self.controls(item):
            raise self.denial(
                f"remove {kind} {item.name} of {owner_name(item.owner)}",
                'that owner may, or the operator grants others = "control"',
            )

    def require_migrate(self) -> None:
        """Check that the caller may move containers to other engines.

        :raises NotAuthorized: when it may not.
        """
        self.require_run()
        if not self.is_admin and not self.rule.migrate:
            raise self.denial("move containers to another engine", line="migrate = true")

    def require_migration_target(self, target: str) -> None:
        """Check that the caller may move containers to the engine at an address.

        An engine learns what runs here by the offer of a container, also in a dry run. So an
        address of the caller's own, whose certificate is of the same authority, is not enough.

        :raises InvalidRequest: when it is not an address.
        :raises NotAuthorized: when the policy does not list it.
        """
        self.require_migrate()
        address, listed = canonical_target(target), self.rule.migrate_to
        if not self.is_admin and not listed & {address, "*"}:
            line = authorization_policy.list_line("migrate-to", (*sorted(listed), address))
            raise self.denial(f"move containers to {address}", line=line)

    def require_migration_peer(self) -> str:
        """Return the name of the caller, an engine that moves containers here.

        An image of a process is code with root's rights. So the policy must name its certificate:
        the rules of ``*`` and ``[default]`` do not count, nor does a local user.

        :raises NotAuthorized: when it may not.
        """
        caller = self.caller
        if not caller.fingerprint:
            raise self.denial(
                "move containers to this engine",
                "another engine does that, with its certificate: jaula container migrate --to",
            )
        names = {caller.fingerprint, caller.certificate} & set(self.policy.certificates)
        if not names or not (self.is_admin or self.rule.migrate):
            raise self.denial("move containers to this engine", line="migrate = true")
        self.require_run()
        return caller.certificate

    def require_images(self) -> None:
        """Check that the caller may change images, and make the engine contact a registry.

        :raises NotAuthorized: when it may not.
        """
        self.require_run()
        if not self.is_admin and not self.rule.images:
            raise self.denial("change images or use registries", line="images = true")

    def require_import(self, what: str) -> None:
        """Check that the caller may give the engine files with any owner, mode and device.

        :raises NotAuthorized: when it has not root's power anyway.
        """
        self.require_run()
        if not self.is_admin:
            raise self.denial(f"import {what} with owners of the host")

    def require_volumes(self) -> None:
        """Check that the caller may create, change and remove volumes.

        :raises NotAuthorized: when it may not.
        """
        self.require_run()
        if not self.is_admin and not self.rule.volumes:
            raise self.denial("change volumes", line="volumes = true")

    def authorize_volumes(self, resolved: ResolvedRequest) -> int:
        """Check that the caller may use the volumes of a new container, and create absent ones.

        Return how many are absent, 0 for a caller without limits.

        :raises NotAuthorized: when it may not.
        """
        if self.is_admin:
            return 0
        self.authorize_mounts((request.mount for request in resolved.mounts), self.caller.key)
        for source in resolved.volumes_from:
            try:
                record = self._engine.containers.find(source.container).record
            except NotFound:
                continue  # the use case reports it with its own text
            self.authorize_mounts(record.mounts, record.owner)
        missing = VolumeMounter(self.services).missing(resolved)
        for request in missing if not self.rule.volumes else ():
            name = request.mount.name or f"for {request.mount.destination}"
            raise self.denial(
                f"create volume {name}",
                "name a volume that exists, or mount a tmpfs at"
                f" {request.mount.destination}; the operator grants volumes = true",
            )
        return len(missing)

    def check_share(self, share: Share, more: int, owner: str) -> None:
        """Check that the caller may let ``owner`` have ``more`` of these objects than it has.

        :raises NotAuthorized: when it may not.
        """
        self._check_amount(
            share, self._owned(share, owner) + self.reserved[share, owner] + more, owner
        )

    def _check_amount(self, share: Share, amount: int, owner: str) -> None:
        """Check that the caller may let ``owner`` have an amount.

        :raises NotAuthorized: when it may not.
        """
        if amount > (most := self._most(share)):
            own = owner == self.caller.key
            verb = "have" if own else f"let {owner_name(owner)} have"
            raise self.denial(
                f"{verb} more than {share.describe(most)}",
                f"remove some of {'yours' if own else 'theirs'}, or ask the operator to raise"
                f" max-{share}",
            )

    def _most(self, share: Share) -> int:
        match share:
            case Share.RECORD_SIZE:
                return self.ceilings.record_size
            case Share.IMAGE_DOCUMENTS:
                return self.ceilings.image_documents
        return self.rule.shares[share]

    def image_quota(self) -> Quota:
        """Return the quota of images that the caller brings."""
        return Quota(self.caller.key, self._check_images, self.name_rights(), self._check_names)

    def name_rights(self) -> NameRights:
        """Return what the caller may do with names of images. Safe in any thread."""
        return NameRights(
            self.caller.key,
            lambda owner: self.can_access_owner(owner, ContainerAccess.CONTROL),
            self.is_admin,
            lambda action, advice: self.denial(
                action, f'{advice}, or the operator grants others = "control"'
            ),
        )

    def cache_rights(self) -> NameRights | None:
        """Return whose records of the build cache the caller sees, None if it sees all.

        The description of a record is a command of its owner, with the values of its arguments.
        """
        if self.is_admin or self.rule.container_access >= ContainerAccess.READ:
            return None
        return self.name_rights()

    def _check_images(self, usage: Callable[[], Usage]) -> None:
        """Check that the caller may have images that take ``usage``. Safe in any thread.

        :raises NotAuthorized: when it may not.
        """
        if not self.is_admin:
            amounts, key = usage(), self.caller.key
            self._check_amount(Share.IMAGES, amounts.images, key)
            self._check_amount(Share.IMAGE_SIZE, amounts.size, key)
            self._check_amount(Share.IMAGE_DOCUMENTS, amounts.documents, key)

    def _check_names(self, number: int) -> None:
        """Check that the caller may have a number of names of images. Safe in any thread.

        :raises NotAuthorized: when it may not.
        """
        if not self.is_admin:
            self._check_amount(Share.IMAGE_NAMES, number, self.caller.key)

    def _owned(self, share: Share, key: str) -> int:
        """Return how much the owner ``key`` has of a share."""
        services = self.services
        match share:
            case Share.CONTAINERS:
                return sum(
                    container.record.owner == key and not container.record.build
                    for container in services.container_store
                )
            case Share.NETWORKS:
                return sum(network.owner == key for network in services.network_store)
            case Share.VOLUMES:
                return services.volumes.owned(key)
            case Share.SECRETS:
                return services.hooks.owned(services, share, key)
            case Share.RECORD_SIZE:
                stores = (services.container_store, services.network_store, self._engine.execs)
                records = sum(store.sizes.size(key) for store in stores)
                records += services.hooks.owned(services, share, key)
                return records + services.volumes.document_bytes(key)
            case Share.IMAGES:
                return services.images.usage(key).images
            case Share.IMAGE_SIZE:
                return services.images.usage(key).size
            case Share.IMAGE_DOCUMENTS:
                return services.images.usage(key).documents
            case Share.IMAGE_NAMES:
                return services.images.name_count(key)

    def inherited_mounts(
        self, host: HostConfig, resolved: ResolvedRequest
    ) -> tuple[Privilege, ...]:
        """Return the mounts of the host that ``--volumes-from`` adds."""
        privileges: list[Privilege] = []
        for source in resolved.volumes_from:
            try:
                record = self._engine.containers.find(source.container).record
            except NotFound:
                continue  # the use case reports it with its own text
            foreign, read_only = is_external(host.runtime), source.mode == "ro"
            privileges += relaxations.of_mounts(record.mounts, foreign=foreign, read_only=read_only)
        return tuple(privileges)

    def _mount_prefixes(self, privileges: tuple[Privilege, ...]) -> tuple[str, ...]:
        """Return the directories below which mounts follow no links; empty without host mounts."""
        if any(privilege.kind is Relaxation.HOST_MOUNT for privilege in privileges):
            return self.rule.mount_prefixes
        return ()

    def bounds(
        self,
        log: LogConfig,
        privileges: tuple[Privilege, ...],
        engine_socket: str,
        reserve: Callable[[ContainerRecord], None] = no_reservation,
    ) -> Bounds:
        """Return the bounds of a container with this log and these granted privileges.

        ``engine_socket`` is its entry of the policy, which is among the privileges. ``reserve``
        counts the record of a new container.
        """
        log_name = relaxations.of_log_name(log)
        return Bounds(
            mount_prefixes=self._mount_prefixes(privileges),
            outside_log=log_name is not None and not self.rule.allows(log_name),
            engine_socket=engine_socket,
            storage_size=self._storage_size(),
            reserve=reserve,
        )

    def authorize_step(self, privileges: tuple[Privilege, ...]) -> int:
        """Check that a step of a build may have its privileges.

        Return the bytes that it may write, 0 for any.

        :raises NotAuthorized: for the first privilege that is not granted.
        """
        self.authorize(privileges)
        return self._storage_size()

    def _storage_size(self) -> int:
        """Return the bytes that a container without ``--storage-opt`` may write, 0 for any."""
        if self.is_admin:
            return 0
        size = self.ceilings.storage_size
        return 0 if size >= request_ceilings.UNLIMITED else size

    def begin(
        self,
        action: str,
        subject: str,
        *,
        argv: tuple[str, ...] = (),
        image: str = "",
        revokes: bool = False,
        repeated: bool = False,
    ) -> AuditedAction:
        """Begin an action on ``subject``. With ``revokes`` it only stops or removes things.

        Such an action is possible even if the audit log cannot be written. With ``repeated`` equal
        actions are counted, since clients repeat them for hours.
        """
        return AuditedAction(self, action, subject, argv, image, revokes, repeated)


class AuditedAction:
    """One request that changes something. A context; leaving it writes the audit log."""

    def __init__(
        self,
        session: Session,
        action: str,
        subject: str,
        argv: tuple[str, ...],
        image: str,
        revokes: bool,
        repeated: bool = False,
    ) -> None:
        self._session = session
        self._repeated = repeated
        self._action = action
        self.argv = argv
        self._image = image
        self._revokes = revokes
        self._privileges: tuple[Privilege, ...] = ()
        self._error = ""
        self._name = ""
        self._reserved: Counter[tuple[Share, str]] = Counter()
        self._started = 0.0  # time.perf_counter()
        self._span: spans.Span | spans.NoSpan | None = None
        self.object = subject
        self.seal = ""
        self.pod: PodMetadata | None = None

    def __enter__(self) -> AuditedAction:
        if not self._revokes:
            self._session.audit_trail.check(self._session.share_key)
        self._started = time.perf_counter()
        self._span = spans.span(self._action).__enter__()
        return self

    # -- checks of the caller's rule -------------------------------------------------------------

    def authorize(self, privileges: tuple[Privilege, ...]) -> tuple[Privilege, ...]:
        """Record the privileges, check that they are granted, and return them.

        :raises NotAuthorized: for the first privilege that is not granted.
        """
        self._privileges = privileges
        self._session.authorize(privileges)
        return privileges

    def authorize_more(self, privileges: tuple[Privilege, ...]) -> None:
        """Record and check privileges beyond those of the container.

        :raises NotAuthorized: for the first privilege that is not granted.
        """
        self._privileges += privileges
        self._session.authorize(privileges)

    def reserve(self, share: Share, amount: int = 1, owner: str | None = None) -> None:
        """Count objects that this action creates, until it ends. They are the caller's by default.

        :raises NotAuthorized: when their owner would have too many.
        """
        session = self._session
        if amount and not session.is_admin:
            key = session.caller.key if owner is None else owner
            session.check_share(share, amount, key)
            self._reserved[share, key] += amount
            session.reserved[share, key] += amount

    def reserve_container(self, record: ContainerRecord) -> None:
        """Count the bytes of the record of a new container, and those of its volumes.

        These get the labels and options of its mounts.

        :raises NotAuthorized: when its owner would have too many.
        """
        if not self._session.is_admin:
            size = len(msgspec.json.encode((stored(record), record.resolved.mounts)))
            self.reserve(Share.RECORD_SIZE, size, record.owner)

    def reserve_document(
        self, document: msgspec.Struct, *, least: int = 0, copies: int = 1, owner: str | None = None
    ) -> None:
        """Count the bytes that a request adds to a record, which has ``copies`` of its members.

        A record counts as ``least`` bytes at least. It is the caller's by default.

        :raises NotAuthorized: when its owner would have too many.
        """
        if not self._session.is_admin:
            size = max(least, len(msgspec.json.encode(document)))
            self.reserve(Share.RECORD_SIZE, size * copies, owner)

    def reserve_change(self, container: Container, document: msgspec.Struct) -> None:
        """Count the bytes that a change may add to the record of a container.

        :raises NotAuthorized: when its owner would have too many.
        """
        self.reserve_document(document, copies=_COPIES, owner=container.record.owner)

    def reserve_image(self, *names: str) -> Quota:
        """Count an image that this action brings, until it ends, and return the quota for it.

        An image takes at least one byte. ``names`` are those that it gets, as far as they are
        known; the caller's own ones do not count again.

        :raises NotAuthorized: when the caller has as much as it may have.
        """
        self.reserve(Share.IMAGES)
        self.reserve(Share.IMAGE_SIZE)
        key, images = self._session.caller.key, self._session.services.images
        self.reserve(Share.IMAGE_NAMES, len(images.more_names(key, names)))
        return self._session.image_quota()

    def authorize_start(self, ref: str) -> None:
        """Check that the caller may start a container with its stored request.

        :raises NotAuthorized: when it may not.
        """
        record = self.require_control(ref).record
        self.authorize(relaxations.of_record(record))
        self._session.authorize_record(record)
        if record.in_pod:
            self._session.check_pod_request(record.host_config, record.resolved)
        else:
            self._session.check_request(record.body, record.resolved)

    def require_control(self, ref: str) -> Container:
        """Return the container of this action, which the caller may control.

        :raises NotAuthorized: when it may not.
        """
        container = self._session.require_control(ref)
        self.describe(container)
        return container

    def describe(self, container: Container) -> None:
        """Record the container as the object of this action, with its name and pod."""
        self.object, self._name = container.id, container.name
        self.pod = self._session.services.container_store.pod_of(container.record)

    def require_enter(self, ref: str) -> Container:
        """Return the container of this action, in which the caller may run and feed programs.

        :raises NotAuthorized: when it may not.
        """
        container = self.require_control(ref)
        self._session.require_engine_socket(container)
        return container

    def require_remove(self, ref: str) -> Container:
        """Return the container of this action, which the caller may remove.

        :raises NotAuthorized: when it may not.
        """
        container = self._session.require_remove(ref)
        self.describe(container)
        return container

    def may_remove(self, labels: Callable[[], Mapping[str, str] | None]) -> bool:
        """Return whether the rule allows to remove the object of this action by its labels.

        It does for an unknown object: the use case reports that with its own text.
        """
        if not self._session.rule.remove:
            return False
        self._session.require_read()
        try:
            return self._session.rule.may_remove(labels() or {})
        except NotFound:
            return True

    def may_prune(self, filters: Filters) -> bool:
        """Return whether the rule allows a prune, since its filters select by label."""
        return self._session.rule.may_prune(filters.get("label", ()))

    def require_run(self) -> None:
        """Check that the caller may run containers.

        :raises NotAuthorized: when it may not.
        """
        self._session.require_run()

    def require_all_containers(self, action: str) -> None:
        """Check that the caller may control the containers of every owner.

        :raises NotAuthorized: when it may not.
        """
        self._session.require_run()
        rule = self._session.rule
        if not self._session.is_admin and rule.container_access is not ContainerAccess.CONTROL:
            raise self._session.denial(action, "name your own containers one by one")

    def require_images(self) -> None:
        """Check that the caller may change images.

        :raises NotAuthorized: when it may not.
        """
        self._session.require_images()

    def require_volumes(self) -> None:
        """Check that the caller may change volumes.

        :raises NotAuthorized: when it may not.
        """
        self._session.require_volumes()

    # -- the outcome -----------------------------------------------------------------------------

    def check_progress(self, document: dict[str, Any]) -> dict[str, Any]:
        """Return a progress message. If it holds an error, the action has failed with it."""
        if "error" in document:
            self._error = str(document["error"])
        return document

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._session.reserved.subtract(self._reserved)
        status, text = DONE, ""
        if error is not None:
            status, text = _outcome(error)
        elif self._error:
            status, text = FAILED, self._error
        metrics.observe_action(self._action, time.perf_counter() - self._started, status)
        self._end_span(kind, error, trace, status)
        session, peer = self._session, self._session.peer
        session.audit_trail.append(
            AuditEntry(
                uid=session.caller.uid,
                pid=session.caller.pid,
                login_uid=peer.login_uid if isinstance(peer, Peer) else None,
                command=peer.command if isinstance(peer, Peer | ContainerPeer) else "",
                container=session.caller.container,
                certificate=session.caller.certificate,
                fingerprint=session.caller.fingerprint,
                address=peer.address if isinstance(peer, Remote | Peer) else "",
                via=peer.via if isinstance(peer, Remote | Peer) else "",
                action=self._action,
                object=self.object,
                name=self._name,
                image=self._image,
                pod=f"{self.pod.namespace}/{self.pod.name}" if self.pod else "",
                pod_uid=self.pod.uid if self.pod else "",
                asks=tuple(str(privilege) for privilege in self._privileges),
                argv=self.argv,
                status=status,
                error=text,
                seal=self.seal,
            ),
            session.share_key,
            repeated=self._repeated,
        )

    def _end_span(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        status: int,
    ) -> None:
        span = self._span
        if span is None:
            return
        if self.object:
            span.set("engine.object", self.object)
        if self._name:
            span.set("container.name", self._name)
        if self._image:
            span.set("container.image.name", self._image)
        span.set("engine.status", status)
        span.__exit__(kind, error, trace)


def _outcome(error: BaseException) -> tuple[int, str]:
    if isinstance(error, JaulaError):
        return error.status, error.message
    if isinstance(error, TimeoutError):
        return TIMED_OUT, str(error)
    if isinstance(error, asyncio.CancelledError | GeneratorExit):
        return CLIENT_CLOSED, "the client went away"
    return FAILED, type(error).__name__

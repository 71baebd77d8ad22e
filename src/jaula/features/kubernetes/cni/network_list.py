"""Operations of a network: its plugins in order, with the result of one passed to the next.

Source: CNI specification 1.1, section 3; libcni/api.go. ADD and CHECK execute the plugins in the
order of the configuration, DEL in reverse. Operations on different containers run in parallel,
those on one container one after the other, and GC runs alone.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from jaula.errors import (
    Conflict,
    CorruptState,
    InvalidRequest,
    JaulaError,
    NotFound,
    RuntimeFailure,
    Unavailable,
    Unsupported,
)
from jaula.features.kubernetes.cni import cni_result, cni_version, netns
from jaula.features.kubernetes.cni.cni_cache import Record, ResultCache
from jaula.features.kubernetes.cni.cni_config import NetworkConfig, PluginConfig
from jaula.features.kubernetes.cni.cni_result import Result
from jaula.features.kubernetes.cni.plugin import (
    INCOMPATIBLE_VERSION,
    Invocation,
    PluginError,
    PluginExec,
)
from jaula.features.kubernetes.cni.runtime_config import CapabilityArgs, runtime_config

_log = logging.getLogger(__name__)

TIMEOUT = 120.0  # seconds of one operation, all of its plugins together
_CONTAINER_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,95}")
_IFNAME = re.compile(r"[^\s/:\0]{1,15}")  # IFNAMSIZ
_RESERVED = frozenset({"capabilities", "runtimeConfig", "prevResult"})
_NO_VALUES = CapabilityArgs()


class Attachment(msgspec.Struct, frozen=True, kw_only=True):
    """A pod's connection to a network: the parameters of ADD.

    ``netns`` is the path of the network namespace in the host's mount namespace. ``args`` are
    CNI_ARGS, such as K8S_POD_NAME.
    """

    container_id: str
    netns: str
    ifname: str = "eth0"
    args: tuple[tuple[str, str], ...] = ()
    capability_args: CapabilityArgs = _NO_VALUES


def plugin_request(
    network: NetworkConfig,
    plugin: PluginConfig,
    values: CapabilityArgs = _NO_VALUES,
    previous: Result | None = None,
    additions: Mapping[str, Any] | None = None,
) -> bytes:
    """Return what a plugin reads from standard input: its configuration, completed. Pure.

    Members that the runtime derives are removed from the configuration: ``capabilities``,
    ``runtimeConfig``, ``prevResult`` and those that begin with ``cni.dev/``.
    """
    document: dict[str, Any] = {
        name: member
        for name, member in plugin.members.items()
        if name not in _RESERVED and not name.startswith("cni.dev/")
    }
    document |= {"cniVersion": network.version, "name": network.name}
    if derived := runtime_config(plugin, values):
        document["runtimeConfig"] = derived
    if previous is not None:
        document["prevResult"] = msgspec.Raw(previous.encode(network.version))
    return msgspec.json.encode(document | dict(additions or {}))


class NetworkList:
    """Executes networks, and records their attachments in ``cache``.

    ``timeout`` is the time of one operation in seconds.
    """

    def __init__(
        self, plugins: PluginExec, cache: ResultCache, *, timeout: float = TIMEOUT
    ) -> None:
        self._plugins = plugins
        self._cache = cache
        self._timeout = timeout
        self._lock = _OperationLock()

    async def add(self, network: NetworkConfig, attachment: Attachment) -> Result:
        """Attach a pod to a network, set ``lo`` up in its namespace, and return the result.

        A failed ADD is followed by DEL. The record of the attachment remains if that fails too, or
        if the engine is killed, so :meth:`delete` can complete it.

        :raises InvalidRequest: when a parameter is invalid, or the namespace is the host's.
        :raises Conflict: when the attachment exists, or an interrupted one was not deleted.
        :raises RuntimeFailure: when ``lo`` cannot be set up.
        :raises PluginError: when a plugin fails.
        :raises Unavailable: when the record cannot be written.
        """
        _check(attachment)
        async with self._lock.container(attachment.container_id):
            identity = netns.identity(attachment.netns)
            if identity is None:
                raise InvalidRequest(
                    f"network namespace {attachment.netns!r} of {attachment.container_id} is absent"
                )
            former = await self._find(attachment.container_id, attachment.ifname)
            if former is not None:
                state = "interrupted" if former.result is None else "attached"
                raise Conflict(
                    f"{attachment.ifname} of {attachment.container_id} is {state} in network "
                    f"{former.config.name}",
                    hint="delete the attachment first",
                )
            record = Record(
                config=network,
                container_id=attachment.container_id,
                ifname=attachment.ifname,
                netns=attachment.netns,
                netns_identity=identity,
                args=attachment.args,
                capability_args=attachment.capability_args,
            )
            started: list[PluginConfig] = []
            try:
                await self._write(record)
                _set_loopback_up(attachment.netns)
                added = await self._add(record, started)
                record = msgspec.structs.replace(record, result=added)
                await self._write(record)
            except BaseException:
                await self._undo(record, started)
                raise
            return added

    async def _add(self, record: Record, started: list[PluginConfig]) -> Result:
        network = record.config
        deadline = self._deadline()
        previous: Result | None = None
        for plugin in network.plugins:
            started.append(plugin)
            request = plugin_request(network, plugin, record.capability_args, previous)
            output = await self._plugins.execute(
                plugin.type, _invocation("ADD", record, record.netns), request, deadline.rest()
            )
            try:
                previous = cni_result.decode(output, network.version)
            except InvalidRequest as error:
                raise PluginError(plugin.type, "ADD", error.message) from None
        assert previous is not None  # a network has a plugin
        return previous

    async def _undo(self, record: Record, started: list[PluginConfig]) -> None:
        """Execute DEL of the plugins that ADD has reached, each once, and forget the attachment."""
        failed = False
        deadline = self._deadline()
        for plugin in reversed(started):
            try:
                await self._delete_one(record, plugin, record.netns, deadline)
            except PluginError as error:
                failed = True
                _log.warning("%s: after a failed ADD of %s", error, record.container_id)
        if failed:
            return
        try:
            await asyncio.to_thread(self._cache.remove, record)
        except Unavailable as error:
            _log.warning("%s", error)

    async def _write(self, record: Record) -> None:
        """Store a record, also if the task is cancelled: no thread writes it later."""
        stored = asyncio.ensure_future(asyncio.to_thread(self._cache.write, record))
        try:
            await asyncio.shield(stored)
        except asyncio.CancelledError:
            await asyncio.wait({stored})
            raise

    async def delete(
        self,
        container_id: str,
        ifname: str = "eth0",
        *,
        namespace: str = "",
        fallback: NetworkConfig | None = None,
    ) -> None:
        """Detach a pod with the configuration and parameters of its ADD.

        ``namespace`` is the path of the network namespace, '' if it is gone. A path that leads to
        another namespace than that of ADD counts as gone. Nothing happens without a record, unless
        ``fallback`` is given: the configuration to use if the record is absent or damaged.

        :raises InvalidRequest: when a parameter is invalid.
        :raises PluginError: when a plugin fails; the record remains.
        :raises CorruptState: when the record is damaged and ``fallback`` is None.
        """
        _check(Attachment(container_id=container_id, netns=namespace, ifname=ifname))
        async with self._lock.container(container_id):
            try:
                record = await self._find(container_id, ifname)
            except CorruptState as error:
                if fallback is None:
                    raise
                _log.warning("%s; network %s is used", error, fallback.name)
                record = None
            if record is None and fallback is not None:
                record = Record(
                    config=fallback,
                    container_id=container_id,
                    ifname=ifname,
                    netns=namespace,
                    netns_identity="",
                )
            if record is not None:
                await self._delete(record, namespace)

    async def _delete(self, record: Record, namespace: str) -> None:
        identity = netns.identity(namespace)
        if identity is None or (record.netns_identity and identity != record.netns_identity):
            namespace = ""
        deadline = self._deadline()
        for plugin in reversed(record.config.plugins):
            await self._delete_one(record, plugin, namespace, deadline)
        await asyncio.to_thread(self._cache.remove, record)

    async def _delete_one(
        self, record: Record, plugin: PluginConfig, namespace: str, deadline: _Deadline
    ) -> None:
        network = record.config
        previous = record.result if cni_version.at_least(network.version, "0.4.0") else None
        request = plugin_request(network, plugin, record.capability_args, previous)
        await self._plugins.execute(
            plugin.type, _invocation("DEL", record, namespace), request, deadline.rest()
        )

    async def check(self, container_id: str, ifname: str = "eth0") -> None:
        """Ask the plugins whether an attachment is as ADD left it.

        :raises NotFound: when the attachment does not exist.
        :raises Unsupported: when the version of the network has no CHECK (before 0.4.0).
        :raises Conflict: when the namespace of ADD is gone.
        :raises CorruptState: when the record is damaged.
        :raises PluginError: when a plugin reports a difference.
        """
        async with self._lock.container(container_id):
            record = await self._find(container_id, ifname)
            if record is None or record.result is None:
                raise NotFound(f"no such attachment: {ifname} of {container_id}")
            network = record.config
            if not cni_version.at_least(network.version, "0.4.0"):
                raise Unsupported(
                    f"network {network.name} has cniVersion {network.version}: no CHECK"
                )
            if network.disable_check:
                return
            if netns.identity(record.netns) != record.netns_identity:
                raise Conflict(f"network namespace {record.netns} of {container_id} is gone")
            deadline = self._deadline()
            for plugin in network.plugins:
                request = plugin_request(network, plugin, record.capability_args, record.result)
                await self._plugins.execute(
                    plugin.type,
                    _invocation("CHECK", record, record.netns),
                    request,
                    deadline.rest(),
                )

    async def gc(
        self, network: NetworkConfig, attached: Callable[[], Collection[tuple[str, str]]]
    ) -> None:
        """Delete the attachments of a network that are stale.

        ``attached`` returns the others, as pairs of container id and interface. It is called when
        no ADD or DEL runs.

        From 1.1.0 the plugins remove what they hold for other attachments. All of them are
        executed, also if one fails. Plugins get no namespace, since the path of a record may lead
        to the namespace of another process.

        :raises JaulaError: when a plugin fails; the message has all failures.
        """
        if network.disable_gc:
            return
        errors: list[str] = []
        async with self._lock.exclusive():
            valid = frozenset(attached())
            records, damaged = await asyncio.to_thread(self._cache.records)
            errors += [str(error) for error in damaged]
            for record in records:
                if record.config.name != network.name:
                    continue
                if (record.container_id, record.ifname) not in valid:
                    try:
                        await self._delete(record, "")
                    except JaulaError as error:
                        errors.append(str(error))
            if cni_version.at_least(network.version, "1.1.0"):
                errors += await self._gc_plugins(network, valid)
        if errors:
            raise JaulaError(f"garbage collection of network {network.name}: {'; '.join(errors)}")

    async def _gc_plugins(
        self, network: NetworkConfig, valid: Collection[tuple[str, str]]
    ) -> list[str]:
        rows = [
            {"containerID": container_id, "ifname": name} for container_id, name in sorted(valid)
        ]
        additions = {"cni.dev/valid-attachments": rows, "cni.dev/attachments": rows}
        deadline = self._deadline()
        errors = []
        for plugin in network.plugins:
            request = plugin_request(network, plugin, additions=additions)
            try:
                await self._plugins.execute(plugin.type, Invocation("GC"), request, deadline.rest())
            except PluginError as error:
                errors.append(str(error))
        return errors

    async def status(self, network: NetworkConfig) -> None:
        """Ask the plugins whether they can attach pods; nothing is asked before 1.1.0.

        :raises PluginError: when a plugin is not ready.
        """
        if not cni_version.at_least(network.version, "1.1.0"):
            return
        deadline = self._deadline()
        for plugin in network.plugins:
            await self._plugins.execute(
                plugin.type, Invocation("STATUS"), plugin_request(network, plugin), deadline.rest()
            )

    async def negotiate(self, network: NetworkConfig) -> NetworkConfig:
        """Return the network with the highest version that all of its plugins support.

        A configuration with one version is not negotiated: its plugins are only looked up.

        :raises PluginError: when a plugin is absent, or no version is common.
        """
        deadline = self._deadline()
        names = list(dict.fromkeys(plugin.type for plugin in network.plugins))
        if len(network.versions) == 1:
            for name in names:
                await self._plugins.find(name)
            return network
        common = network.versions
        for name in names:
            own = await self._plugins.versions(name, deadline.rest())
            rest = tuple(one for one in common if one in own)
            if not rest:
                raise PluginError(
                    name,
                    "VERSION",
                    f"it supports {', '.join(cni_version.supported(own)) or 'no known version'}, "
                    f"but network {network.name} needs one of {', '.join(common)}",
                    code=INCOMPATIBLE_VERSION,
                )
            common = rest
        return network.with_version(common[-1])

    def _deadline(self) -> _Deadline:
        return _Deadline(asyncio.get_running_loop().time() + self._timeout)

    async def _find(self, container_id: str, ifname: str) -> Record | None:
        return await asyncio.to_thread(self._cache.find, container_id, ifname)


class _Deadline:
    """The end of an operation, on the clock of the event loop."""

    def __init__(self, end: float) -> None:
        self._end = end

    def rest(self) -> float:
        """Return the seconds until the end."""
        return max(self._end - asyncio.get_running_loop().time(), 0)


class _OperationLock:
    """Permits one operation for each container at a time, or one operation that is exclusive."""

    def __init__(self) -> None:
        self._entry = asyncio.Lock()
        self._idle = asyncio.Event()
        self._idle.set()
        self._users: dict[str, int] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    @asynccontextmanager
    async def container(self, container_id: str) -> AsyncIterator[None]:
        """Wait for other operations on the container, and for an exclusive one."""
        async with self._entry:
            self._idle.clear()
            self._users[container_id] = self._users.get(container_id, 0) + 1
            lock = self._locks.setdefault(container_id, asyncio.Lock())
        try:
            async with lock:
                yield
        finally:
            self._users[container_id] -= 1
            if not self._users[container_id]:
                del self._users[container_id], self._locks[container_id]
            if not self._users:
                self._idle.set()

    @asynccontextmanager
    async def exclusive(self) -> AsyncIterator[None]:
        """Wait for all operations; others wait until the end of the block."""
        async with self._entry:
            await self._idle.wait()
            yield


def _invocation(command: str, record: Record, namespace: str) -> Invocation:
    return Invocation(command, record.container_id, namespace, record.ifname, record.args)


def _set_loopback_up(namespace: str) -> None:
    try:
        netns.set_loopback_up(namespace)
    except OSError as error:
        raise RuntimeFailure(f"cannot set up lo in {namespace}: {error.strerror}") from error


def _check(attachment: Attachment) -> None:
    if not _CONTAINER_ID.fullmatch(attachment.container_id):
        raise InvalidRequest(
            f"container id {attachment.container_id[:200]!r} must be up to 96 letters, digits and "
            "'_.-', and begin with a letter or digit"
        )
    ifname = attachment.ifname
    if not _IFNAME.fullmatch(ifname) or ifname in (".", "..") or len(ifname.encode()) > 15:
        raise InvalidRequest(
            f"interface name {ifname[:200]!r} must have 1 to 15 bytes without '/', ':' and space"
        )
    if attachment.netns and (not attachment.netns.startswith("/") or "\0" in attachment.netns):
        raise InvalidRequest(f"network namespace {attachment.netns[:200]!r} must be a path")
    for name, value in attachment.args:
        if not name or any(c in ";=\0" for c in name + value):
            raise InvalidRequest(
                f"CNI argument {name[:200]!r}={value[:200]!r} must not contain ';', '=' or NUL"
            )

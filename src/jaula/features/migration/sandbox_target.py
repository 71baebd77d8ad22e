"""Receive the sandbox of a pod: make it anew. It sends no packet before the commit.

The containers of the pod are restored in its namespaces by the other migrations of the group.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from jaula.engine.containers import shm
from jaula.engine.threads import in_thread, shielded
from jaula.errors import Conflict, InvalidRequest, JaulaError, Unavailable
from jaula.features.checkpoint.checkpoint_store import SHM_TAR, checkpoint_store
from jaula.features.migration import host_compatibility, migration_checks
from jaula.features.migration.target_engine import (
    CHECKPOINT,
    Access,
    IncomingMigration,
    check_commit,
    wait_for_commit,
)
from jaula.spec.api_documents import AddressMode
from jaula.spec.migration import (
    VERSION,
    CheckRow,
    Commit,
    Prepare,
    Prepared,
    ProtocolError,
    Ready,
    Restore,
    Running,
    SandboxOffer,
    Transfer,
    TransferKind,
    Verdict,
)
from jaula.state.container_records import MigrationPhase, MigrationRecord
from jaula.storage.checkpoint_files import extract_shm
from jaula.storage.trees import open_directory

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaula.engine.model.container import Container
    from jaula.engine.model.services import Services
    from jaula.features.kubernetes.pods.pods import Pods
    from jaula.features.migration.migration_channel import Channel
    from jaula.spec.migration import Message

log = logging.getLogger("jaula.migration")


class IncomingSandbox(IncomingMigration):
    """One migration of a sandbox to this engine."""

    def __init__(
        self,
        services: Services,
        pods: Pods,
        channel: Channel,
        access: Access,
        offer: SandboxOffer,
        accept: Callable[[Commit, IncomingMigration], None],
    ) -> None:
        super().__init__(services, channel, access, offer, accept)
        self._pods = pods
        self._offer = offer

    async def _handle(self, message: Message) -> bool:
        if isinstance(message, Prepare):
            if message.sandbox is not None:
                self._offer = msgspec.structs.replace(self._offer, request=message.sandbox)
            await self._create()
        elif isinstance(message, Transfer) and message.kind is TransferKind.SHM:
            await self._receive_shm()
        elif isinstance(message, Restore) and self._container is not None:
            await self._hold(self._container)
            return True
        else:
            raise ProtocolError(f"{type(message).__name__} is out of order")
        return False

    async def _undo(self) -> None:
        if self._container is not None:
            await self._pods.undo(self._container)

    # -- checks ----------------------------------------------------------------------------------

    async def _check(self) -> Verdict:
        offer = self._offer
        description = await asyncio.to_thread(host_compatibility.describe, self._services.host)
        rows = [migration_checks.check_protocol(offer.version, VERSION)]
        rows += migration_checks.check_hosts(offer.host, description)
        rows += [self._check_name(), self._check_pods(), await in_thread(self._check_logs)]
        asked = ", ".join(offer.addresses) or "none"
        is_new = offer.address is AddressMode.NEW
        detail = (
            "new ones; established TCP connections are closed" if is_new else f"asks for {asked}"
        )
        return Verdict((*rows, CheckRow("addresses", True, detail)))

    def _check_name(self) -> CheckRow:
        name = self._offer.name
        try:
            self._services.container_store.check_free(name)
        except Conflict:
            hint = "remove that pod at the target (crictl rmp)"
            return CheckRow("name", False, f"the pod {name} exists at the target", hint)
        return CheckRow("name", True, name)

    def _check_pods(self) -> CheckRow:
        request = self._offer.request
        if self._pods.network is None:
            return CheckRow("CRI", False, "the target has no pods", "start it there with --cri")
        try:
            self._pods.network.check()
        except JaulaError as error:
            return CheckRow("CRI", False, error.message, error.hint or "")
        handlers = self._pods.handler_names()
        if request.runtime_handler not in handlers:
            detail = f"the target has no runtime handler {request.runtime_handler}"
            return CheckRow("CRI", False, detail, "start it there with that --runtime")
        return CheckRow("CRI", True, "the target has a network for pods")

    def _check_logs(self) -> CheckRow:
        """Return the row about the log directory: it is made with its parents if it is absent."""
        path = self._offer.request.log_directory
        if not path:
            return CheckRow("logs", True, "none")
        parent = Path(path)
        while not os.path.lexists(parent):
            parent = parent.parent
        if not parent.is_dir() or parent.is_symlink():
            detail = f"{parent} is in the way of the log directory {path}"
            return CheckRow("logs", False, detail, f"remove {parent} at the target")
        return CheckRow("logs", True, path)

    # -- the pod ---------------------------------------------------------------------------------

    async def _create(self) -> None:
        if self._container is not None:
            raise ProtocolError("Prepare is out of order")
        offer = self._offer
        detail, requested = "", offer.addresses
        if offer.address is AddressMode.NEW:
            requested = ()
        try:
            container = await self._run(requested)
        except JaulaError as error:
            if not requested or offer.address is AddressMode.KEEP:
                raise
            detail = f"the address {', '.join(requested)} cannot be kept: {error.message}"
            container = await self._run(())
        self._container = container
        self._access.created(container)
        container.change(
            migration=MigrationRecord(offer.id, MigrationPhase.INCOMING, self._access.peer)
        )
        self._services.container_store.save(container)
        assert container.record.sandbox is not None
        addresses = container.record.sandbox.addresses
        keep = offer.address is not AddressMode.NEW and set(addresses) == set(offer.addresses)
        if not keep and offer.address is AddressMode.KEEP:
            raise Unavailable(
                f"the network plugins gave the pod {', '.join(addresses)}, and not"
                f" {', '.join(requested)}",
                hint="use --new-address, or an IPAM plugin that knows args.cni.ips (host-local)",
            )
        if not keep and not detail:
            detail = f"the network plugins gave it {', '.join(addresses)}"
        await self._channel.send(
            Prepared(
                container.id,
                container.record.warnings,
                addresses=addresses,
                keep_address=keep,
                detail="" if keep else f"{detail}; established TCP connections are closed",
            )
        )

    async def _run(self, addresses: tuple[str, ...]) -> Container:
        offer = self._offer
        return await self._pods.receive(
            offer.request,
            addresses,
            owner=self._access.owner(offer.owner, offer.owner_gid),
            authorize=self._access.authorize_pod(offer.request),
        )

    async def _receive_shm(self) -> None:
        if self._container is None:
            raise ProtocolError("files are out of order")
        id = self._container.id
        images = await in_thread(self._services.service(checkpoint_store).begin, id, CHECKPOINT)
        path = images / SHM_TAR
        try:
            left = host_compatibility.total_memory() // 2  # the default size of a tmpfs
            with path.open("wb") as file:
                async for chunk in self._channel.data():
                    left -= len(chunk)
                    if left < 0:
                        raise InvalidRequest(
                            "the files of /dev/shm are larger than half of this host's memory"
                        )
                    await in_thread(file.write, chunk)
            await in_thread(self._extract_shm, self._container, path)
        except OSError as error:
            raise Unavailable(f"the files of /dev/shm cannot be written: {error}") from error
        finally:
            await in_thread(self._services.service(checkpoint_store).discard, images)

    def _extract_shm(self, container: Container, path: Path) -> None:
        with (
            open_directory(shm.of(self._services, container)) as directory,
            path.open("rb") as file,
        ):
            extract_shm(file, directory)

    # -- commit ----------------------------------------------------------------------------------

    async def _hold(self, container: Container) -> None:
        """Wait for the commit, and let packets pass."""
        if not container.live:
            raise Unavailable("the sandbox has exited")
        commit = asyncio.ensure_future(self._channel.receive())
        accepted = asyncio.ensure_future(self._accepted.wait())
        exited = asyncio.ensure_future(container.exited.wait())
        try:
            self.ready = True
            await self._channel.send(Ready())
            await wait_for_commit((commit, accepted, exited), self._members)
            if not self.given:
                if exited.done():
                    raise Unavailable("the sandbox has exited")
                self._accept(check_commit(await commit), self)
            await shielded(self._commit(container))
        finally:
            self.ready = False
            tasks = (commit, accepted, exited)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def record_commit(self) -> None:
        """Record the commit: CRI lists the pod from now on."""
        container = self._container
        assert container is not None
        assert container.record.sandbox is not None
        sandbox = msgspec.structs.replace(container.record.sandbox, starting=False)
        container.change(sandbox=sandbox)
        super().record_commit()

    async def _commit(self, container: Container) -> None:
        await self._services.group_commit.wait()
        with contextlib.suppress(Conflict):  # it has exited meanwhile
            await self._pods.connect_network(container)
        await self._channel.send(Running(container.id))

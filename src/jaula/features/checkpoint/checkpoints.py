"""Checkpoints of containers: create, list, inspect, remove, and start from one.

Follows the Docker Engine API 1.45, ``/containers/{id}/checkpoints`` (experimental in Docker), with
Docker's statuses and words. The order of a creation, under the container's lock:

1. The store makes an image directory below a hidden name.
2. The shim lets CRIU stop the container and write the images
   (:mod:`jaula.features.checkpoint.runtime`).
3. With everything written and all processes stopped, the shim asks the engine. The engine writes
   the container's files if the request has them (:mod:`jaula.features.checkpoint.container_files`),
   records the checkpoint (digests, MAC, name) and answers. If the container is left running, it
   answers before it computes the digests: they take as long as the rest.
4. CRIU kills the processes, or continues them if the container is left running.

If the engine ends before its answer, the container runs on.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import shutil
import socket
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from jaula.engine.containers.container_liveness import has_exited, while_running
from jaula.engine.threads import in_own_thread, in_request_thread, in_thread, shielded
from jaula.errors import InvalidRequest, JaulaError, RuntimeFailure, Unavailable
from jaula.features.checkpoint import checkpoint_binds, container_files
from jaula.features.checkpoint.checkpoint_store import (
    ROOT_TAR,
    SHM_TAR,
    SPEC,
    CheckpointAddress,
    CheckpointFile,
    Manifest,
    Part,
    check_name,
    checkpoint_store,
)
from jaula.runtime.shim_protocol import (
    COMMIT,
    HELD,
    MAX_ROUNDS,
    ROUND,
    CheckpointRequest,
    PreDumpRound,
)
from jaula.spec.api_documents import CheckpointCreate
from jaula.state.container_records import Status

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from jaula.engine.model.container import Container
    from jaula.engine.model.services import Services
    from jaula.features.checkpoint.checkpoint_store import CheckpointFiles
    from jaula.runtime.runtime_client import Shim

_EXIT_TIMEOUT = 30.0  # seconds from the end of a dump to the exit of the container
_LOST_TIMEOUT = 5.0  # seconds for it if the shim has not answered
_GIVE_UP = b"the checkpoint could not be recorded"
_NO_CHANGES: Mapping[str, Any] = {}


def _failure(text: str, error: JaulaError | None = None) -> RuntimeFailure:
    """Return the error of a request about checkpoints: Docker answers 500 for all of them."""
    return RuntimeFailure(text, hint=error.hint if error is not None else None)


def check_record(services: Services, container: Container) -> None:
    """Check that checkpoints of a container are possible at all.

    :raises RuntimeFailure: with the way out.
    """
    record = container.record
    modes = record.resolved.namespaces
    problem = hint = ""
    if record.build:
        problem, hint = "steps of a build have no checkpoints", "build again"
    elif record.external_runtime:
        problem = f"it is run by the OCI runtime {record.host_config.runtime}"
        hint = "create it without --runtime"
    elif services.host.rootless:
        problem = (
            "this engine runs without root, and the kernel lets only root read the filters of"
            " system calls, which CRIU has to save"
        )
        hint = "use an engine of root"
    elif record.sandbox is not None:
        problem = "it is the sandbox of a pod"
        hint = "checkpoint the containers of the pod"
    elif modes.shareable_ipc:
        problem = "its /dev/shm is shared"
        hint = "create it with --ipc=private"
    if problem:
        raise _failure(f"cannot checkpoint container {record.name}: {problem} ({hint})")


class Checkpoints:
    """The checkpoints of all containers. The caller of :meth:`create` holds no lock."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._store = services.service(checkpoint_store)

    async def create(self, container: Container, body: CheckpointCreate) -> None:
        """Write a checkpoint, and wait for the container's exit unless it is left running.

        :raises RuntimeFailure: when it exists, or CRIU refuses; the container runs on.
        :raises Conflict: when the container does not run.
        """
        name = body.checkpoint_id
        with _dockers_words(container, f"cannot checkpoint container {container.name}"):
            check_name(name)
            self._store.at(body.checkpoint_dir)
        async with container.lock, while_running(container):
            check_record(self._services, container)
            with _dockers_words(container, f"cannot checkpoint container {container.name}"):
                if body.exit and container.record.body.host_config.auto_remove:
                    raise InvalidRequest(
                        "it would be removed with its checkpoints (--rm)",
                        hint="leave it running, or create it without --rm",
                    )
                await self._create(container, body)
        if body.exit:
            await asyncio.wait_for(container.exited.wait(), _EXIT_TIMEOUT)

    async def save_and_end(
        self, container: Container, name: str, changes: Mapping[str, Any]
    ) -> None:
        """Write a checkpoint with its connections, and wait for the container's exit.

        The caller holds the lock. The name is random: it is the word of the transaction, too.
        ``changes`` of the record are saved when the checkpoint is complete, before the first
        process is killed. Exec'd processes are not in it.

        :raises RuntimeFailure: when CRIU refuses; the container runs on.
        :raises Conflict: when the container has exited before.
        """
        body = CheckpointCreate(checkpoint_id=name, exit=True, tcp_established=True)
        async with while_running(container):
            check_record(self._services, container)
            await self._create(container, body, name, keep_execs=True, changes=changes)
        await asyncio.wait_for(container.exited.wait(), _EXIT_TIMEOUT)

    @contextlib.asynccontextmanager
    async def take(self, container: Container) -> AsyncIterator[tuple[Path, Manifest]]:
        """Write a checkpoint with the container's files; yield its directory and its manifest.

        It has no name, and is removed at the end. The container runs on, with its exec'd processes,
        which are not in the checkpoint, and with its connections, which are.

        :raises RuntimeFailure: when CRIU refuses.
        :raises Conflict: when the container does not run.
        """
        body = CheckpointCreate(
            checkpoint_id=f"taken-{os.urandom(8).hex()}",
            exit=False,
            tcp_established=True,
            files=True,
        )
        async with container.lock, while_running(container):
            check_record(self._services, container)
            images, manifest = await self._create(container, body, hidden=True, keep_execs=True)
        try:
            yield images.parent, manifest
        finally:
            await shielded(asyncio.to_thread(self._store.discard, images))

    async def _create(
        self,
        container: Container,
        body: CheckpointCreate,
        transaction: str = "",
        *,
        hidden: bool = False,
        keep_execs: bool = False,
        changes: Mapping[str, Any] = _NO_CHANGES,
    ) -> tuple[Path, Manifest]:
        """Return the image directory, which a checkpoint with a name has left, and the manifest.

        ``changes`` are made in the record when the checkpoint of a container that ends is complete.
        ``transaction`` is the word by which it can be undone; '' for a new one.
        """
        record, shim = container.record, container.shim
        if record.status is Status.PAUSED:
            raise InvalidRequest("it is paused", hint="unpause it first")
        if body.tcp_established and body.tcp_close:
            raise InvalidRequest("connections are either saved or closed", hint="choose one")
        if shim is None:
            raise Unavailable("its shim is not connected yet")
        check_rounds(body.pre_copy)
        host_mounts = self._services.runtime.host_mounts
        await in_own_thread(
            lambda: checkpoint_binds.check_unchanged(record.mounts, record.pid, host_mounts)
        )
        criu = await asyncio.to_thread(criu_version)
        has_rounds = body.pre_copy > 0 and await asyncio.to_thread(tracks_memory)
        store = self._store.at(body.checkpoint_dir)
        images = await asyncio.to_thread(store.begin, record.id, body.checkpoint_id)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        transaction = transaction or os.urandom(16).hex()
        manifest = self._manifest(container, body, criu, transaction)
        known: dict[str, CheckpointFile] = {}
        rounds: list[int] = []
        failure = ""  # of a round
        copied: container_files.Copies = {}
        recorded = committed = False
        records = body.exit  # whether the thread that `commit` stands for records the checkpoint
        commit: asyncio.Future[Manifest] | None = None

        async def record_it() -> None:
            """Answer the shim when it holds the container."""
            nonlocal manifest, recorded, commit, committed, failure
            ours.setblocking(False)
            loop = asyncio.get_running_loop()
            while (data := await loop.sock_recv(ours, 4096)).startswith(ROUND):
                done = decode_round(data)
                if failure := done.failure:
                    continue
                rounds.append(done.bytes)
                try:
                    await asyncio.to_thread(self._digest_round, images, done.number, known)
                except JaulaError as error:
                    await loop.sock_sendall(ours, str(error).encode())
                    raise
            if not data.startswith(HELD):
                return
            complete = msgspec.structs.replace(
                manifest,
                rounds=tuple(rounds),
                rounds_failure=failure,
                stopped=int(data.removeprefix(HELD)),
            )
            work = functools.partial(self._write_files, container, images, complete, body, copied)
            if body.exit:
                work = functools.partial(self._record, container, images, complete, body, known)
            commit = asyncio.ensure_future(asyncio.to_thread(work))
            try:
                manifest = await asyncio.shield(commit)
                if body.exit:
                    recorded = True
                    container.change(manually_stopped=True, **changes)  # no restart policy applies
                    self._services.container_store.save(container)
            except JaulaError as error:
                await loop.sock_sendall(ours, str(error).encode())
                raise
            if not body.exit:
                commit = None
            committed = body.exit
            await loop.sock_sendall(ours, COMMIT)

        try:
            if body.files and not body.exit:
                copied = await in_thread(
                    container_files.begin_copies, self._services, record, images
                )
        except BaseException:
            for each in (ours, theirs):
                each.close()
            await asyncio.to_thread(self._store.discard, images)
            raise
        recording = asyncio.ensure_future(record_it())
        try:
            request = CheckpointRequest(
                0,
                str(images),
                leave_running=not body.exit,
                tcp_established=body.tcp_established,
                tcp_close=body.tcp_close,
                end_execs=body.end_execs,
                keep_execs=keep_execs,
                pre_copy=body.pre_copy if has_rounds else 0,
            )
            await shim.checkpoint(request, theirs.detach())
            await recording
            if not body.exit:  # the digests are computed while the container runs
                work = asyncio.to_thread(
                    self._commit, images, manifest, known, copied, hidden=hidden
                )
                records = True
                commit = asyncio.ensure_future(work)
                manifest = await asyncio.shield(commit)
        except BaseException as error:
            recording.cancel()
            with contextlib.suppress(asyncio.CancelledError, JaulaError, OSError):
                await recording
            if commit is not None:  # a thread cannot be cancelled
                with contextlib.suppress(JaulaError, OSError):
                    await commit
                    recorded = records
            if not recorded or hidden:
                await asyncio.to_thread(self._store.discard, images)
                raise
            if committed and await shielded(_has_ended(container, shim, error)):
                if isinstance(error, (JaulaError, OSError)):
                    return images, manifest
                raise
            await asyncio.to_thread(store.undo, record.id, body.checkpoint_id, transaction)
            container.change(
                manually_stopped=record.manually_stopped,
                **{name: getattr(record, name) for name in changes},
            )
            raise
        finally:
            ours.close()
        self._services.events.emit(
            "container",
            "checkpoint",
            container.id,
            record.event_attributes | {"checkpoint": body.checkpoint_id},
        )
        return images, manifest

    def _digest_round(self, images: Path, number: int, known: dict[str, CheckpointFile]) -> None:
        """Add the digests of the files of a round of the pre-copy, while the container runs."""
        for path in images.glob(f"before-{number}.*"):
            known[path.name] = self._store.digest(path)

    def _record(
        self,
        container: Container,
        images: Path,
        manifest: Manifest,
        body: CheckpointCreate,
        known: Mapping[str, CheckpointFile],
    ) -> Manifest:
        """Write the files of a stopped container, if the request has them, and the manifest."""
        manifest = self._write_files(container, images, manifest, body, {})
        return self._commit(images, manifest, known, {})

    def _write_files(
        self,
        container: Container,
        images: Path,
        manifest: Manifest,
        body: CheckpointCreate,
        copied: container_files.Copies,
    ) -> Manifest:
        """Write the files of a stopped container, if the request has them.

        The time that this takes is added to that for which the processes are stopped.
        """
        begun = time.monotonic_ns()
        bundle = container.bundle or str(self._services.config.paths.container(container.id))
        shutil.copyfile(f"{bundle}/config.json", images.parent / SPEC)
        if not body.files:
            return manifest
        held = container_files.write(self._services, container.record, images, copied)
        stopped = manifest.stopped + time.monotonic_ns() - begun
        return msgspec.structs.replace(manifest, held=held, stopped=stopped)

    def _commit(
        self,
        images: Path,
        manifest: Manifest,
        known: Mapping[str, CheckpointFile],
        copied: container_files.Copies,
        *,
        hidden: bool = False,
    ) -> Manifest:
        """Complete the container's files, compute the digests and write the manifest."""
        if manifest.held is not None:
            held = container_files.complete(manifest.held, images, copied)
            manifest = msgspec.structs.replace(manifest, held=held)
        return self._store.commit(images, manifest, known, hidden=hidden)

    def _manifest(
        self, container: Container, body: CheckpointCreate, criu: str, transaction: str
    ) -> Manifest:
        record, host = container.record, os.uname()
        return Manifest(
            container=record.id,
            name=body.checkpoint_id,
            created=time.time_ns(),
            criu=criu,
            kernel=host.release,
            architecture=host.machine,
            image=record.image,
            stdio=stdio_inodes(record.pid),
            terminal=record.body.tty,
            left_running=not body.exit,
            tcp_established=body.tcp_established,
            tcp_close=body.tcp_close,
            transaction=transaction,
            description=container_files.describe(record),
            addresses=tuple(
                CheckpointAddress(
                    each.network,
                    each.ipv4,
                    each.ipv6,
                    each.mac,
                    self._services.network_manager.egress_addresses(record.id, each.network),
                )
                for each in record.endpoints
            ),
        )

    def list(self, container: Container, directory: str) -> list[dict[str, Any]]:
        """Return Docker's documents: the names."""
        with _dockers_words(container, f"cannot list the checkpoints of {container.name}"):
            store = self._store.at(directory)
        return [{"Name": name} for name in store.names(container.id)]

    async def inspect(self, container: Container, name: str, directory: str) -> dict[str, Any]:
        """Return the manifest of a checkpoint, and whether its files are unchanged.

        :raises RuntimeFailure: when there is none of that name.
        """
        with _dockers_words(container, f"cannot inspect checkpoint {name}"):
            store = self._store.at(directory)
        if name not in store.names(container.id):
            raise _failure(f"checkpoint {name} does not exist for container {container.name}")
        try:
            manifest = store.read(container.id, name)
            await self._verify(manifest, Part.ALL)
            self.check_host(manifest)
        except JaulaError as error:
            return {"Name": name, "Usable": False, "Problem": str(error)}
        return {
            "Name": name,
            "Usable": True,
            "Problem": "",
            "Created": manifest.created,
            "Size": manifest.size,
            "Files": len(manifest.files),
            "CRIU": manifest.criu,
            "Kernel": manifest.kernel,
            "Terminal": manifest.terminal,
            "LeftRunning": manifest.left_running,
            "TCPEstablished": manifest.tcp_established,
            "TCPClose": manifest.tcp_close,
            "Addresses": [
                {"Network": each.network, "IPv4": each.ipv4, "IPv6": each.ipv6, "MAC": each.mac}
                for each in manifest.addresses
            ],
            "PreCopy": list(manifest.rounds),
            "PreCopyFailure": manifest.rounds_failure,
            "Stopped": manifest.stopped,
            "ContainerFiles": _held_document(manifest.held),
        }

    async def remove(self, container: Container, name: str, directory: str) -> None:
        """Remove a checkpoint.

        :raises RuntimeFailure: when there is none of that name.
        """
        with _dockers_words(container, f"cannot remove checkpoint {name}"):
            store = self._store.at(directory)
        async with container.lock:
            if name not in store.names(container.id):
                raise _failure(f"checkpoint {name} does not exist for container {container.name}")
            with _dockers_words(container, f"cannot remove checkpoint {name}"):
                await asyncio.to_thread(store.remove, container.id, name)

    async def open(
        self,
        container: Container,
        name: str,
        directory: str = "",
        part: Part | None = Part.ALL,
        action: str = "start",
    ) -> Manifest:
        """Return the manifest of a checkpoint from which the container can be started.

        ``part`` is what the caller uses: only these files are verified. With None :meth:`verify`
        follows. ``action`` is a verb for errors.

        :raises RuntimeFailure: when it does not exist, was changed, or does not fit this host.
        """
        with _dockers_words(container, f"cannot {action} container {container.name}"):
            store = self._store.at(directory)
            if name not in store.names(container.id):
                raise InvalidRequest(f"checkpoint {name} does not exist")
            check_record(self._services, container)
            manifest = store.read(container.id, name)
            if part is not None:
                await self._verify(manifest, part)
            self.check_host(manifest)
            return manifest

    async def verify(
        self, container: Container, manifest: Manifest, part: Part, action: str
    ) -> None:
        """Verify files of a checkpoint of :meth:`open`.

        :raises RuntimeFailure: when they were changed.
        """
        with _dockers_words(container, f"cannot {action} container {container.name}"):
            await self._verify(manifest, part)

    async def _verify(self, manifest: Manifest, part: Part) -> None:
        """Verify files in a thread, which ends with the request, or when its client is gone."""
        await in_request_thread(functools.partial(self._store.verify, manifest, part))

    async def check_bind_sources(
        self, container: Container, manifest: Manifest, action: str
    ) -> None:
        """Check that files of bind mounts are as a verified checkpoint expects them.

        :raises RuntimeFailure: when one is not.
        """
        with _dockers_words(container, f"cannot {action} container {container.name}"):
            images = self._store.images(manifest)
            mounts, host_mounts = container.record.mounts, self._services.runtime.host_mounts
            await in_own_thread(lambda: checkpoint_binds.check_sizes(mounts, images, host_mounts))

    def check_host(self, manifest: Manifest) -> None:
        """Check that a checkpoint is of a host like this one.

        :raises InvalidRequest: when it is not.
        """
        if manifest.architecture != os.uname().machine:
            raise InvalidRequest(f"checkpoint {manifest.name} is of a {manifest.architecture} host")


async def _has_ended(container: Container, shim: Shim, error: BaseException) -> bool:
    """Return whether a container has ended with its complete checkpoint, in spite of an error.

    A shim that was lost may have killed it before, and so does one whose answer is not awaited.
    """
    if isinstance(error, (RuntimeFailure, InvalidRequest)):
        return await has_exited(container, shim)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(container.exited.wait(), _LOST_TIMEOUT)
    return not container.live


def _held_document(held: CheckpointFiles | None) -> dict[str, Any] | None:
    if held is None:
        return None
    sizes = {file.name: file.size for file in held.files}
    return {
        "Size": held.size,
        "RootChanged": held.changed,
        "RootSize": sizes.get(ROOT_TAR, 0),
        "Volumes": [
            {
                "Name": volume.name,
                "Destinations": volume.destinations,
                "Size": sizes.get(volume.file, 0),
            }
            for volume in held.volumes
        ],
        "SharedMemorySize": sizes.get(SHM_TAR, 0),
        "Excluded": held.excluded,
    }


def stdio_inodes(pid: int) -> tuple[int, int, int]:
    """Return the inodes of the pipes at the descriptors 0 to 2 of init; 0 for none."""
    inodes = []
    for number in range(3):
        try:
            target = os.readlink(f"/proc/{pid}/fd/{number}")
        except FileNotFoundError:
            target = ""
        is_pipe = target.startswith("pipe:[")
        inodes.append(int(target[6:-1]) if is_pipe else 0)
    return inodes[0], inodes[1], inodes[2]


def check_rounds(count: int) -> None:
    """Check the number of rounds of a pre-copy.

    :raises InvalidRequest: when it is out of range.
    """
    if not 0 <= count <= MAX_ROUNDS:
        raise InvalidRequest(f"a pre-copy has 0 to {MAX_ROUNDS} rounds, not {count}")


def decode_round(message: bytes) -> PreDumpRound:
    """Return the round of a message of a shim that begins with :data:`ROUND`."""
    return _decode_round(message.removeprefix(ROUND))


_decode_round = msgspec.json.Decoder(PreDumpRound).decode


def criu_version() -> str:
    """Return the version of CRIU that is installed.

    :raises Unsupported: when it is not installed.
    """
    from jaula.features.checkpoint.runtime.criu import Criu

    with Criu() as service:
        return str(service.version())


def tracks_memory() -> bool:
    """Return whether the kernel tracks written pages, as CRIU sees it.

    :raises Unsupported: when CRIU is not installed.
    """
    from jaula.features.checkpoint.runtime.criu import Criu

    with Criu() as service:
        return service.tracks_memory()


@contextlib.contextmanager
def _dockers_words(container: Container, prefix: str) -> Any:
    """Put Docker's beginning before an error, and answer with its status 500.

    A status that says more than that (501, 503) stays.
    """
    try:
        yield
    except (InvalidRequest, RuntimeFailure) as error:
        text = error.message
        if text.endswith(("already exists", "does not exist")):
            text += f" for container {container.name}"
        raise _failure(f"{prefix}: {text}", error) from error

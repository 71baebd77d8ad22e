"""Debug sessions: a toolbox image and a process that see a running container's files.

A session is an exec whose root has the tools of an image at ``/.debug``. :func:`prepare` resolves
the request when the session is created: image, environment and target process. :class:`Toolbox`
holds what it decided, and mounts the image when the process starts. The image stays in use until
the session ends.

The process has the namespaces, user, capabilities, filter, labels and cgroup that an exec has.
"""

from __future__ import annotations

import errno
import os
import shutil
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

from jaula.engine.containers import launchers
from jaula.engine.containers.container_cgroup import open_cgroup
from jaula.engine.containers.container_liveness import not_running
from jaula.engine.oci_spec import security_opt
from jaula.engine.threads import in_thread
from jaula.engine.userns import join
from jaula.engine.volumes import image_mount
from jaula.engine.volumes.staged_mounts import mount_layers
from jaula.errors import Conflict, InvalidRequest, JaulaError, RuntimeFailure
from jaula.kernel import mounts, process_calls
from jaula.kernel.mounts import MOUNT_ATTR
from jaula.kernel.openat2 import RESOLVE
from jaula.spec.api_documents import DEBUG_IMAGE, ExecCreate
from jaula.spec.runtime_spec import decode

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from jaula.engine.engine import Engine
    from jaula.engine.model.container import Container
    from jaula.engine.model.services import Services
    from jaula.images.store.image_catalog import Image
    from jaula.images.store.image_store import Lease
    from jaula.spec.api_documents import DebugCreate

DIRECTORY = launchers.TOOLBOX
_IN_IMAGE = RESOLVE.IN_ROOT | RESOLVE.NO_MAGICLINKS
SHELLS = ("bash", "ash", "sh")

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""The PATH of an image or container that has none."""

_making = threading.Lock()  # of launchers
_COMM = 15  # bytes of a process name that the kernel keeps


class Target(NamedTuple):
    """A process of the container: pid and start time on the host."""

    pid: int
    started: int  # clock ticks since boot


class Toolbox:
    """The image of one session, which is kept until :meth:`close`."""

    def __init__(
        self,
        services: Services,
        image: Image,
        lease: Lease,
        target: Target | None,
    ) -> None:
        self.image = image.id
        self._services = services
        self._layers = services.images.mountable(image)
        self._lease = lease
        self._target = target

    def close(self) -> None:
        """Release the image."""
        self._lease.close()

    async def open(self, container: Container) -> tuple[int, ...]:
        """Return the toolbox as a detached mount, then pidfd and root of a target process.

        The caller closes the descriptors.

        :raises RuntimeFailure: when the image cannot be mounted.
        :raises Conflict: when the target process has exited.
        """
        return await in_thread(self._open, container)

    def _open(self, container: Container) -> tuple[int, ...]:
        target = () if self._target is None else _open_target(self._target)
        try:
            return (self._mount(container), *target)
        except OSError as error:
            for fd in target:
                os.close(fd)
            raise RuntimeFailure(f"image {self.image} cannot be mounted: {error}") from error

    def _mount(self, container: Container) -> int:
        services, record = self._services, container.record
        own_userns = not record.resolved.namespaces.user.host and not services.host.rootless
        user = join.open_namespaces(container, ("user",))["user"] if own_userns else None
        try:
            label = None
            if services.host.selinux:
                labels = security_opt.selinux_labels(record.resolved, services.host, record.level)
                label = labels.mount or None
            view = services.snapshots.view(self._layers)
            view = image_mount.with_launchers(services, view, self.image)
            tree = mount_layers(view, user, (0, 0), label)
        finally:
            if user is not None:
                os.close(user)
        try:
            attributes = MOUNT_ATTR.RDONLY | MOUNT_ATTR.NOSUID | MOUNT_ATTR.NODEV
            mounts.mount_setattr(tree, set=attributes)
        except BaseException:
            os.close(tree)
            raise
        return tree


async def create(engine: Engine, ref: str, body: DebugCreate, *, owner: str = "") -> str:
    """Record a process of a debug session and return its exec's id.

    ``owner`` is the client whose share it takes, '' for none.

    :raises Conflict: when the container does not run, or another runtime runs it.
    :raises NotFound: when there is no such image.
    :raises InvalidRequest: when the request is not valid.
    """
    container = engine.services.container_store.find(ref)
    engine.execs.check_container(container)
    exec_body, toolbox = await prepare(engine.services, container, body)
    try:
        return await engine.execs.create(container.id, exec_body, owner=owner, toolbox=toolbox)
    except BaseException:
        toolbox.close()
        raise


def sessions(engine: Engine, ref: str) -> list[dict[str, Any]]:
    """Return the debug sessions of a container, those that ended some minutes ago included."""
    container = engine.services.container_store.find(ref)
    return [
        engine.execs.inspect(execed.id) | {"Image": execed.toolbox.image}
        for execed in engine.execs.of_container(container)
        if execed.toolbox is not None and execed.started
    ]


async def prepare(
    services: Services, container: Container, body: DebugCreate
) -> tuple[ExecCreate, Toolbox]:
    """Return the exec and the toolbox of a session in a running container.

    The caller closes the toolbox.

    :raises NotFound: when there is no such image or process.
    :raises NotAuthorized: when the image policy does not allow the image.
    :raises InvalidRequest: when the session shall be privileged, or ``target`` is not usable.
    """
    if container.live:
        join.check(container)
    if body.privileged:
        raise InvalidRequest(
            "a debug session has the privileges of the container and no more",
            hint="jaula exec --privileged runs a program of the container with all capabilities",
        )
    reference = body.image or DEBUG_IMAGE
    lease = services.images.lease()
    try:
        image = services.images.pin_image(lease, services.images.resolve(reference))
        services.image_policy.check_run(image, reference)
        target = await in_thread(_find_target, services, container, body.target)
        config = services.config.paths.container(container.record.id) / "config.json"
        base = decode(config.read_bytes()).process
        assert base is not None
        prepared = await in_thread(prepare_image, services, image)
        check_command(body, prepared)
        search = search_path(
            prepared.path, variable((*base.env, *body.env), "PATH"), launched=prepared.launched
        )
        env = (f"PATH={search}", *body.env)
        fields = {name: getattr(body, name) for name in ExecCreate.__struct_fields__}
        exec_body = ExecCreate(**fields | {"cmd": body.cmd or (prepared.shell,), "env": env})
        return exec_body, Toolbox(services, image, lease, target)
    except BaseException:
        lease.close()
        raise


def search_path(toolbox: str, container: str, *, launched: bool) -> str:
    """Return the directories of the tools, then those of the container. Pure.

    ``launched`` says that the tools have launchers, which come first.
    """
    tools = [f"{DIRECTORY}/{launchers.DIRECTORY}"] if launched else []
    tools += [DIRECTORY + path for path in toolbox.split(":") if path.startswith("/")]
    return ":".join((*tools, container) if container else tools)


def check_command(body: DebugCreate, toolbox: PreparedImage) -> None:
    """Check that a session has a command or a shell.

    :raises InvalidRequest: when it has none.
    """
    if not (body.cmd or (toolbox.shell,))[0]:
        raise InvalidRequest(
            "the toolbox image has no shell", hint="name a command, or another image with --image"
        )


def variable(env: Iterable[str], name: str) -> str:
    """Return the last value of a variable, '' if it is not set. Pure."""
    values = [entry.partition("=")[2] for entry in env if entry.startswith(f"{name}=")]
    return values[-1] if values else ""


class PreparedImage(NamedTuple):
    """The parts of a toolbox image that a session needs. ``shell`` is '' if it has none."""

    path: str  # its PATH
    shell: str
    launched: bool  # whether its programs have launchers


def prepare_image(services: Services, image: Image) -> PreparedImage:
    """Find the shell of an image, and make its launchers if they are not made yet."""
    path = variable(image.config.env, "PATH") or DEFAULT_PATH
    search = [directory for directory in path.split(":") if directory.startswith("/")]
    view = services.snapshots.view(services.images.mountable(image))
    root = mount_layers(view, None, (0, 0), None)
    try:
        shells = (
            s for s in SHELLS for d in search if launchers.resolves(root, f"{d}/{s}", _IN_IMAGE)
        )
        shell = next(shells, "")
        directory = image_mount.launchers_directory(services, image.id)
        _make_launchers(services, directory, root, search)
    finally:
        os.close(root)
    launched = any(directory.iterdir())
    launched = launched and image_mount.with_launchers(services, view, image.id) is not view
    return PreparedImage(path, shell, launched)


def _make_launchers(services: Services, directory: Path, root: int, search: Sequence[str]) -> None:
    """Make the launchers of an image unless they exist, one session after the other.

    Else one would remove the unfinished directory of another one as unused.
    """
    with _making:
        if not directory.is_dir():
            directory.parent.mkdir(mode=0o700, exist_ok=True)
            _remove_unused(services, directory.parent)
            launchers.make(launchers.this_machine(), directory, root, search, DIRECTORY)


def _remove_unused(services: Services, cache: Path) -> None:
    """Remove the launchers of images that do not exist any more."""
    for directory in cache.iterdir():
        try:
            services.images.resolve(f"sha256:{directory.name}")
        except JaulaError:
            shutil.rmtree(directory, ignore_errors=True)


def _find_target(services: Services, container: Container, name: str) -> Target | None:
    """Return the process for a pid in the container or a name; None for the first process.

    :raises InvalidRequest: when none or several processes match, or it is in another user
        namespace, in which it has other privileges.
    """
    if not name:
        return None
    if not container.live:
        raise not_running(container)
    init = container.record.pid
    with open_cgroup(services, container.record) as cgroup:
        pids = sorted(set(cgroup.pids()) | {init})
    matches = []
    for pid in pids:
        try:
            process_name, inside = _identity(pid)
            if name in (inside, process_name) or name == process_name[:_COMM]:
                matches.append(pid)
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has exited
    if not matches:
        raise InvalidRequest(
            f"container {container.name} has no process {name}",
            hint="give a pid as the container sees it, or the name of a program",
        )
    if len(matches) > 1:
        raise InvalidRequest(f"container {container.name} has {len(matches)} processes {name}",
                             hint="give a pid as the container sees it")  # fmt: skip
    if matches[0] == init:
        return None
    try:
        if os.readlink(f"/proc/{matches[0]}/ns/user") != os.readlink(f"/proc/{init}/ns/user"):
            raise InvalidRequest(
                f"process {name} of container {container.name} is in another user namespace"
            )
        return Target(matches[0], _start_time(matches[0]))
    except (FileNotFoundError, ProcessLookupError):
        raise Conflict(f"process {name} of container {container.name} has exited") from None


def _identity(pid: int) -> tuple[str, str]:
    """Return the name of a process, and its pid in its own pid namespace."""
    with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
        fields = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
    return fields.get("Name", ""), fields.get("NSpid", str(pid)).split()[-1]


def _start_time(pid: int) -> int:
    with open(f"/proc/{pid}/stat", "rb") as file:
        text = file.read()
    return int(text[text.rindex(b")") + 1 :].split()[19])


def _open_target(target: Target) -> tuple[int, int]:
    """Return a pidfd and the root directory of a process.

    :raises Conflict: when it has exited.
    """
    pidfd = root = -1
    try:
        pidfd = process_calls.pidfd_open(target.pid)
        root = os.open(f"/proc/{target.pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        if _start_time(target.pid) != target.started:
            raise ProcessLookupError(errno.ESRCH, "another process has the pid")
        process_calls.pid_of(pidfd)
    except (FileNotFoundError, ProcessLookupError):
        for fd in (pidfd, root):
            if fd >= 0:
                os.close(fd)
        raise Conflict("the target process has exited") from None
    return pidfd, root

"""Restore a container from a checkpoint, as :mod:`jaula.runtime.create.create_init` starts one.

Runs in a helper of the shim. The engine has made the container's sandbox, spec and root as for any
start; CRIU makes the processes. The order:

1. The images are compared with the spec, and those that describe confinement are written anew: the
   map of ids, and the cgroup.
2. The root, /dev and the bind mounts are attached in a mount namespace of the helper's own, in
   which CRIU runs.
3. CRIU creates the namespaces (``setup-namespaces``): the interfaces move into the network
   namespace. With the mounts made (``post-setup-namespaces``) the first task enters its Landlock
   domain, and takes its SELinux label.
4. CRIU creates the processes. While they are stopped (``pre-resume``) every one is verified in the
   kernel, and only then packets reach the container. If a row fails, they are killed.

A migration starts an early restore while the images are being written: everything that needs none
of them is done before they are complete.

The images themselves are never changed: CRIU reads a directory of hard links, which is removed
afterwards.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import stat
from collections.abc import Callable, Collection, Iterable
from typing import NamedTuple, NoReturn

import msgspec

from jaula.errors import JaulaError, RuntimeFailure, system_error_text
from jaula.features.checkpoint.runtime import (
    affinity,
    check_images,
    connections,
    criu,
    criu_images,
    criu_landlock,
    criu_selinux,
    expected,
    inherited_namespaces,
    pages,
    restore_network,
    verify_restored,
)
from jaula.features.checkpoint.runtime.migration_hold import (
    receive_go,
    receive_images,
    send_early,
    send_held,
)
from jaula.features.checkpoint.runtime.proto import images_pb2, rpc_pb2
from jaula.kernel import keyctl, mounts, namespaces, selinuxfs, tty
from jaula.runtime.create import mount_plan, user_namespace_maps
from jaula.runtime.create.clone_process import (
    FdStack,
    ProcessHandle,
    clone_into,
    memory_limit,
    stdio_pipes,
)
from jaula.runtime.create.create_init import CreateOptions, check_thawed
from jaula.runtime.create.mount_rootfs import mount_root, prepare_mounts
from jaula.runtime.create.user_namespace_maps import host_id
from jaula.runtime.init import process_setup
from jaula.runtime.interfaces import Cgroup, Interfaces
from jaula.runtime.shim_protocol import RestoreSetup
from jaula.spec.runtime_spec import IDMapping, Linux, Resources, Spec

_STAGING = ("/mnt", "/tmp")  # directories of the host, one of which is covered
_SIZE_DIFFERS = "has bad size"  # CRIU about a file that was open
_NO_ADDRESS = "Cannot assign requested address"  # CRIU about a socket that was bound
_PIPE_DATA = "pipes-data.img"
CONTINUED = "continued"  # file beside the images of a migration that received the commit


def start(
    spec: Spec,
    options: CreateOptions,
    interfaces: Interfaces,
    setup: RestoreSetup,
    engine_fd: int = -1,
) -> ProcessHandle:
    """Restore a container and continue it.

    ``engine_fd`` is a socket on which the engine decides at the end, -1 if none is asked.

    :raises InvalidRequest: when the images do not fit the spec; CRIU has not run then.
    :raises RuntimeFailure: when a step fails; nothing of the container is left then.
    """
    linux, process_spec = spec.linux, spec.process
    if linux is None or process_spec is None:
        raise RuntimeFailure("the spec has no linux or no process section")
    fd_stack = FdStack()
    try:
        config = process_setup.prepare(
            process_spec,
            linux,
            options.state,
            interfaces,
            fd_stack,
            seccomp_cache=options.seccomp_cache,
            annotations=spec.annotations,
        )
        confinement = expected.expect(spec, config)
        keyctl.join_new_session()  # otherwise the container would have that of the engine
        restoring = _Restore(spec, linux, options, setup, config, confinement, fd_stack)
        restoring.engine_fd = engine_fd
        with contextlib.closing(restoring):
            if setup.early:
                restoring.start_early()
            directory = restoring.open_images()
            read = criu_images.read_all(directory)
            check_images.check(read, confinement)
            pages.check(directory)
            cgroup = interfaces.cgroups.create(options.cgroup)
            try:
                check_thawed(cgroup, options.cgroup)
                warnings: tuple[str, ...] = ()
                if linux.resources is not None:
                    # CRIU runs tar in the cgroup, so the limit of processes follows.
                    warnings = cgroup.apply(msgspec.structs.replace(linux.resources, pids=None))
                handle = restoring.run(read, cgroup)
                cgroup.release_pause_process()
            except BaseException:
                fd_stack.close()
                cgroup.kill()
                cgroup.destroy()
                raise
        return ProcessHandle(
            *handle, cgroup=options.cgroup, memory_limit=memory_limit(linux), warnings=warnings
        )
    except OSError as error:
        raise RuntimeFailure(
            system_error_text("the container cannot be restored", error)
        ) from error
    finally:
        fd_stack.close()


class _Pipes(NamedTuple):
    """The container's ends of stdin, stdout and stderr, and ours; -1: none."""

    child: tuple[int, int, int] = (-1, -1, -1)
    parent: tuple[int, int, int] = (-1, -1, -1)


class _Restore:
    """One restore; its members are what the notifications of CRIU need."""

    def __init__(
        self,
        spec: Spec,
        linux: Linux,
        options: CreateOptions,
        setup: RestoreSetup,
        config: process_setup.ProcessConfig,
        confinement: check_images.Expected,
        fd_stack: FdStack,
    ) -> None:
        self._spec = spec
        self._linux = linux
        self._options = options
        self._setup = setup
        self._config = config
        self._confinement = confinement
        self._fd_stack = fd_stack
        self._service: criu.Criu | None = None
        self._pipes: _Pipes | None = None
        self._mounts = -1  # mount namespace of CRIU, if it was started early
        self._is_done = False
        self._init = 0
        self._master = -1
        self._host_ends: tuple[int, ...] = ()
        self._cgroup_text = ""
        self._failure: BaseException | None = None
        self._verified = False
        self._created: dict[str, int] = {}  # own namespaces that CRIU does not create
        self._own = confinement.namespaces
        self._joined = {
            kind: fd for kind, fd in options.namespace_fds.items() if kind in confinement.joined
        }
        self.engine_fd = -1

    def start_early(self) -> None:
        """Start CRIU, and wait until the images are complete.

        :raises RuntimeFailure: when the engine cancels, or CRIU ends.
        """
        with _socket_of(self.engine_fd) as engine:
            if "user" not in self._joined:  # else the images say which namespaces CRIU enters
                host = self._fd_stack.add(namespaces.open_namespace(os.getpid(), "mnt"))
                self._enter_mount_namespace()
                _cover_run()
                self._mounts = self._fd_stack.add(namespaces.open_namespace(os.getpid(), "mnt"))
                self._pipes = self._make_pipes()
                self._service = self._start_criu(each for each in self._pipes.child if each >= 0)
                self._service.read_kernel_features()
                namespaces.setns(host, namespaces.CLONE.NEWNS)
            send_early(engine)
            if self._service is not None and not self._service.wait_for(engine):
                raise RuntimeFailure("criu was killed")
            received = receive_images(engine)
        self._setup = msgspec.structs.replace(self._setup, stdio=received.stdio)

    def close(self) -> None:
        """End CRIU, and close what the container does not need."""
        if self._service is not None:
            self._service.__exit__()
        if not self._is_done:
            for fd in (*(self._pipes or _Pipes()).parent, self._master):
                if fd >= 0:
                    os.close(fd)

    def open_images(self) -> int:
        """Return a descriptor of the image directory."""
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        return self._fd_stack.add(os.open(self._setup.images, flags))

    def run(self, read: criu_images.Images, cgroup: Cgroup) -> tuple[int, int, int, int, int]:
        """Return the pid of init, the terminal master, and our ends of its pipes."""
        self._cgroup = cgroup
        spec, options, fd_stack = self._spec, self._options, self._fd_stack
        assert spec.process is not None
        user_fd, owner = self._user_namespace()
        self._mount_ids = {mount.mountpoint: mount.mnt_id for mount in read.mounts}
        context = self._confinement.context or None
        root = fd_stack.add(mount_root(options.root, user_fd, owner, context=context))
        prepared = prepare_mounts(
            spec,
            user_fd=user_fd,
            owner=owner,
            fd_stack=fd_stack,
            bundle=options.state.bundle,
            host_mounts=options.host_mounts,
            selinux=context is not None,
        )
        if "user" in self._joined and "network" in self._own and options.sandbox is not None:
            self._created["network"] = options.sandbox[1]
            self._host_ends = restore_network.disconnect(options.sandbox[1])
        created = self._plan_namespaces(read)
        host_cgroups, cgroup_paths, self._cgroup_text = self._read_cgroups(created)
        self._pipes = pipes = self._pipes or self._make_pipes()
        self._links = links = _ImageLinks(self._setup.images)
        try:
            self._write_images(links.fd, read, host_cgroups, cgroup_paths)
            staging, external = self._attach(root, prepared)
            self._affinity = affinity.read(links.fd)
            work = fd_stack.add(os.open(f"{staging}/work", os.O_RDONLY | os.O_CLOEXEC))
            inherited = [
                rpc_pb2.InheritedFd(key=f"pipe:[{inode}]", fd=fd)
                for inode, fd in zip(self._setup.stdio, pipes.child, strict=True)
                if inode and fd >= 0
            ]
            terminal = spec.process.terminal
            request = rpc_pb2.Options(
                images_dir_fd=links.fd,
                work_dir_fd=work,
                root=f"{staging}/root",
                external=external,
                inherited_fds=inherited,
                empty_namespaces=int(namespaces.CLONE.NEWNET) if self._makes_network else 0,
                tcp_established=self._setup.tcp_established,
                # A socket whose connection had ended before the dump needs it, too.
                tcp_close=not self._setup.tcp_established,
                shell_job=terminal,
                orphan_pts_master=terminal,
                file_locks=True,
                manage_cgroups="user" not in self._joined,
                manage_cgroups_mode=rpc_pb2.IGNORE if "user" in self._joined else rpc_pb2.SOFT,
                network_lock=rpc_pb2.NFTABLES,
                notify_scripts=True,
                log_level=criu.LOG_LEVEL,
                log_file=criu.LOG,
            )
            if self._confinement.apparmor:
                request.lsm_profile = f"apparmor:{self._confinement.apparmor}"
            pass_fds = [each.fd for each in inherited]
            if "user" in self._joined:
                links.open_to_all()
                request.images_dir_fd = -1
                request.images_dir = f"/proc/self/fd/{links.fd}"
                request.ClearField("work_dir_fd")
                request.unprivileged = True
                pass_fds.append(links.fd)
            pid = self._restore(request, pass_fds)
        finally:
            links.remove()
        if terminal and any(options.console):
            tty.set_size(self._master, *options.console)
        self._is_done = True
        return (pid, self._master, *pipes.parent)

    def _restore(self, request: rpc_pb2.Options, pass_fds: list[int]) -> int:
        handlers: dict[str, criu.Handler] = {
            "setup-namespaces": self._guard(self._set_up_namespaces),
            "post-setup-namespaces": self._guard(self._confine_first),
            "orphan-pts-master": self._guard(self._keep_master),
        }
        service = self._service = self._service or self._start_criu(pass_fds)
        handlers["pre-resume"] = self._guard(self._verify, service.kill)
        try:
            pid = service.restore(request, handlers)
        except criu.ProcessesExited:
            return self._init  # verified before; the shim reports its exit
        except RuntimeFailure as error:
            if self._failure is not None:
                raise self._failure from None
            if _SIZE_DIFFERS in error.message:
                error.hint = (
                    "files of the container have changed since the checkpoint; jaula rollback puts"
                    " them back if the checkpoint holds them"
                )
            if _NO_ADDRESS in error.message:
                error.hint = (
                    "a program is bound to an address that the container does not have now; let it"
                    " listen on all addresses"
                )
            raise
        if self._failure is not None:
            raise self._failure
        if not self._verified:
            raise RuntimeFailure("criu has not let the engine verify the restored processes")
        return pid

    def _start_criu(self, pass_fds: Iterable[int]) -> criu.Criu:
        """Start CRIU in the mount namespace of this process."""
        return criu.Criu(
            f"/proc/self/fd/{self._program}",
            pass_fds=(self._program, *pass_fds),
            prepare=self._enter_namespaces,
        )

    def _enter_namespaces(self) -> None:
        """Enter the namespaces that the processes have from CRIU. Runs in CRIU's process."""
        if "user" in self._joined:
            inherited_namespaces.take_limits(
                self._confinement.rlimits, self._confinement.oom_score_adj
            )
        inherited_namespaces.enter(self._joined | self._created)

    def _guard(
        self, step: Callable[[int, list[int]], None], kill: Callable[[], None] | None = None
    ) -> criu.Handler:
        """Return a handler that keeps the error of a step and kills what exists.

        CRIU ignores the answer to ``pre-resume``, and would wait for init, which waits for the
        processes that CRIU traces. So ``kill`` ends CRIU.
        """

        def handle(pid: int, fds: list[int]) -> bool:
            try:
                step(pid, fds)
            except (JaulaError, OSError, ValueError) as error:
                self._failure = self._failure or _as_failure(error)
                self._cgroup.kill()
                if kill is not None:
                    kill()
                return False
            return True

        return handle

    # -- before CRIU ---------------------------------------------------------------------------

    def _user_namespace(self) -> tuple[int | None, tuple[int, int]]:
        """Return a user namespace with the container's map, for id-mapped mounts, and its owner.

        CRIU creates another one with the same map for the container itself.
        """
        linux = self._linux
        owner = host_id(linux.uid_mappings, 0), host_id(linux.gid_mappings, 0)
        if "user" in self._joined:
            return self._joined["user"], owner
        if "user" not in self._confinement.namespaces:
            return None, (0, 0)
        if self._options.sandbox is not None:
            return self._options.sandbox[0], owner
        return self._fd_stack.add(user_namespace_maps.make(linux)), owner

    def _plan_namespaces(self, read: criu_images.Images) -> inherited_namespaces.Created | None:
        """Return the namespaces that are to be created in a joined user namespace."""
        if "user" not in self._joined:
            return None
        kinds = self._own & {"cgroup", "time", "uts", "network"} - self._created.keys()
        clocks = None
        if "time" in kinds:
            root = next(entry.pid for entry in read.tree if entry.ppid == 0)
            number = read.ids[root].time_ns_id
            if number not in read.clocks:
                raise criu_images.invalid(f"timens-{number}.img is missing")
            clocks = read.clocks[number]
        return inherited_namespaces.Created(
            frozenset(kinds), self._spec.hostname or "", self._spec.domainname or "", clocks
        )

    def _enter_mount_namespace(self) -> None:
        """Enter a mount namespace in which the host is read-only, with a staging directory.

        That is a tmpfs that covers a directory of the host: the tasks have ids of the container
        when they open what is below, so every directory above must be open to all users.
        """
        self._program = self._fd_stack.add(os.open(criu.find(), os.O_RDONLY | os.O_CLOEXEC))
        namespaces.unshare(namespaces.CLONE.NEWNS)
        mounts.mount(None, "/", None, mounts.MS.REC | mounts.MS.PRIVATE)
        _protect_host()
        staging = _staging()
        tree = mounts.new_filesystem("tmpfs", (("mode", "0711"),))
        mounts.move_mount(tree, staging)
        os.close(tree)
        os.mkdir(f"{staging}/root", 0o711)
        # The tasks begin in this directory, and open it when they bind unix sockets by name.
        os.mkdir(f"{staging}/work", 0o755)

    def _attach(self, root: int, prepared: dict[int, int]) -> tuple[str, list[str]]:
        """Attach root and prepared mounts in a mount namespace of this process's own.

        Return the directory of ``root`` and ``work``, and CRIU's options for the other mounts.
        """
        spec = self._spec
        if self._mounts >= 0:
            namespaces.setns(self._mounts, namespaces.CLONE.NEWNS)
        else:
            self._enter_mount_namespace()
        staging = _staging()
        if spec.root is not None and spec.root.readonly:  # CRIU 4.1 does not restore that
            mounts.mount_setattr(root, set=mounts.MOUNT_ATTR.RDONLY)
        mounts.move_mount(root, f"{staging}/root")
        external = []
        for path, index in expected.external_mounts(spec).items():
            fd = prepared[index]
            target = f"{staging}/{index}"
            if os.path.isdir(f"/proc/self/fd/{fd}"):
                os.mkdir(target, 0o711)
            else:
                os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644))
            if mount_plan.is_device_directory(spec.mounts[index]):
                self._complete_dev(fd, prepared)
            mounts.move_mount(fd, target)
            external.append(f"mnt[{path}]:{target}")
        return staging, external

    def _complete_dev(self, dev: int, prepared: dict[int, int]) -> None:
        """Create the links of /dev, and the mount points below it."""
        owner = host_id(self._linux.uid_mappings, 0), host_id(self._linux.gid_mappings, 0)
        for link in mount_plan.LINKS:
            name = link.path.removeprefix("dev/")
            if not link.needs or os.path.exists(link.needs):
                with contextlib.suppress(FileExistsError):
                    os.symlink(link.target, name, dir_fd=dev)
                    os.chown(name, *owner, dir_fd=dev, follow_symlinks=False)
        for index, mount in enumerate(self._spec.mounts):
            path = expected.destination(mount)
            name = path.removeprefix("/dev/")
            if path.startswith("/dev/") and "/" not in name:
                is_file = index in prepared and not stat.S_ISDIR(os.fstat(prepared[index]).st_mode)
                with contextlib.suppress(FileExistsError):
                    if is_file:
                        os.mknod(name, stat.S_IFREG | 0o644, dir_fd=dev)
                    else:
                        os.mkdir(name, 0o755, dir_fd=dev)
                    os.chown(name, *owner, dir_fd=dev)
        if self._spec.process is not None and self._spec.process.terminal:
            flags = os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            os.close(os.open("console", flags, 0o600, dir_fd=dev))

    def _make_pipes(self) -> _Pipes:
        process_spec = self._spec.process
        assert process_spec is not None
        if process_spec.terminal:
            return _Pipes()
        return _Pipes(
            *stdio_pipes(
                host_id(self._linux.uid_mappings, process_spec.user.uid),
                host_id(self._linux.gid_mappings, process_spec.user.gid),
                self._options.stdin_open,
                self._fd_stack.fds,
            )
        )

    def _read_cgroups(
        self, created: inherited_namespaces.Created | None
    ) -> tuple[dict[str, str], dict[str, str], str]:
        """Return the cgroups of this process and of the container, by hierarchy.

        The last value is /proc/PID/cgroup of a process in the container's cgroup. A child enters
        that cgroup, creates namespaces in a joined user namespace, and is killed.
        """
        entry_fds: list[int] = []
        ready, done = os.pipe2(os.O_CLOEXEC)

        def failed(error: OSError) -> NoReturn:
            os.write(done, os.strerror(error.errno or 0).encode())
            os._exit(1)

        pid, pidfd = clone_into(self._cgroup, entry_fds, failed)
        if pid == 0:
            if created is not None:
                try:
                    inherited_namespaces.create_within(self._joined["user"], created)
                except OSError as error:
                    failed(error)
            os.write(done, b"+")
            signal.pause()
            os._exit(0)
        try:
            if (answer := os.read(ready, 256)) != b"+":
                raise RuntimeFailure(f"cgroup: {answer.decode(errors='replace')}")
            with open(f"/proc/{pid}/cgroup", encoding="utf-8") as file:
                text = file.read()
            if created is not None:
                fds = inherited_namespaces.open_created(pid, created)
                self._created |= {kind: self._fd_stack.add(fd) for kind, fd in fds.items()}
                if "network" in fds:  # CRIU tries a connection
                    restore_network.loopback_up(fds["network"])
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            for fd in (pidfd, ready, done, *entry_fds):
                os.close(fd)
        with open("/proc/self/cgroup", encoding="utf-8") as file:
            return _hierarchies(file.read()), _hierarchies(text), text

    def _write_images(
        self,
        directory: int,
        read: criu_images.Images,
        own_cgroups: dict[str, str],
        cgroup_paths: dict[str, str],
    ) -> None:
        """Write the images that the engine decides."""
        linux = self._linux
        if "user" in self._joined:
            self._write_inherited_ids(directory, read)
        self._write_labels(directory, read)
        for name in () if "user" in self._joined else read.user_namespaces:
            maps = images_pb2.UserNamespace(
                uid_map=_extents(linux.uid_mappings),
                gid_map=_extents(linux.gid_mappings or linux.uid_mappings),
            )
            _replace(directory, name, criu_images.encode(name, [maps]))
        for name in read.uts_namespaces if self._setup.hostname else ():
            names = images_pb2.UtsNamespace(
                nodename=self._setup.hostname, domainname=self._spec.domainname or "(none)"
            )
            _replace(directory, name, criu_images.encode(name, [names]))
        cgroups = _cgroup_image(read, own_cgroups, cgroup_paths)
        _replace(directory, criu_images.CGROUP, criu_images.encode(criu_images.CGROUP, [cgroups]))
        files = [_mend(file) for file in read.files]
        if self._config.landlock is not None:
            files = [_as_path(file, read.directories) for file in files]
        _replace(directory, criu_images.FILES, criu_images.encode(criu_images.FILES, files))
        _drop_output(directory, self._setup.stdio[1:])

    def _write_labels(self, directory: int, read: criu_images.Images) -> None:
        """Give each thread the container's AppArmor profile, and no other label.

        CRIU sets no profile for a thread whose image names none.
        """
        profile = self._confinement.apparmor
        for task, core in read.cores.items():
            creds = core.thread_core.creds
            if core.thread_core.HasField("creds") and creds.lsm_profile != profile:
                changed = images_pb2.Core()
                changed.CopyFrom(core)
                if profile:
                    changed.thread_core.creds.lsm_profile = profile
                else:
                    changed.thread_core.creds.ClearField("lsm_profile")
                name = f"core-{task}.img"
                _replace(directory, name, criu_images.encode(name, [changed]))

    def _write_inherited_ids(self, directory: int, read: criu_images.Images) -> None:
        """Say that the tasks are in the namespaces of CRIU that the engine has created."""
        for name in read.user_namespaces:
            os.unlink(name, dir_fd=directory)
        host = read.inventory.root_ids
        for pid, ids in read.ids.items():
            changed = images_pb2.Ids()
            changed.CopyFrom(ids)
            changed.user_ns_id = host.user_ns_id
            if "network" in self._created:
                changed.net_ns_id = host.net_ns_id
            if "uts" in self._created:
                changed.uts_ns_id = host.uts_ns_id
            name = f"ids-{pid}.img"
            _replace(directory, name, criu_images.encode(name, [changed]))

    # -- notifications -------------------------------------------------------------------------

    def _set_up_namespaces(self, pid: int, _fds: list[int]) -> None:
        self._init = pid
        if "user" in self._joined:
            for fd in self._cgroup.open_attach_fds():
                os.write(fd, str(pid).encode())
                os.close(fd)
        netns = self._fd_stack.add(namespaces.open_namespace(pid, "net"))
        self._netns = netns
        if self._setup.shares_network and "network" in self._own:
            restore_network.hold(netns)
        if self._makes_network and self._options.sandbox is not None:
            self._host_ends = restore_network.move(self._options.sandbox[1], netns)
        if "network" in self._own:
            linux = self._linux
            groups = linux.gid_mappings or linux.uid_mappings
            restore_network.loopback_up(netns)
            restore_network.write_sysctls(netns, linux.sysctl, lambda gid: host_id(groups, gid))

    @property
    def _makes_network(self) -> bool:
        """Whether CRIU creates the network namespace."""
        return "network" in self._own and "network" not in self._created

    def _confine_first(self, _pid: int, _fds: list[int]) -> None:
        """Let the first task enter what CRIU does not restore; all others inherit it."""
        rules = self._config.landlock
        if rules is not None:
            criu_landlock.enter(self._init, rules, self._netns, self._mount_ids)
        if self._confinement.selinux != selinuxfs.own_label():
            criu_selinux.enter(self._init, self._confinement.selinux)

    def _keep_master(self, _pid: int, fds: list[int]) -> None:
        if not fds or self._master >= 0:
            raise RuntimeFailure("criu has sent no terminal, or two")
        self._master = fds.pop(0)

    def _verify(self, _pid: int, _fds: list[int]) -> None:
        linux = self._linux
        maps = [
            " ".join(f"{row.container_id} {row.host_id} {row.size}" for row in rows)
            for rows in (linux.uid_mappings, linux.gid_mappings or linux.uid_mappings)
        ]
        pids = self._cgroup.pids()
        verify_restored.verify(
            self._init,
            pids,
            self._confinement,
            (maps[0], maps[1]),
            expected.masked_paths(self._spec),
            self._cgroup_text,
            self._joined,
        )
        affinity.apply(pids, self._affinity)
        if linux.resources is not None and linux.resources.pids is not None:
            self._cgroup.apply(Resources(pids=linux.resources.pids))
        self._verified = True
        if self.engine_fd >= 0:
            self._hold()
        assert self._service is not None
        self._service.restored = self._init
        if self._setup.published is not None and self._host_ends:
            connections.track(self._init, self._netns, self._setup.published)
        if "network" in self._own:
            restore_network.connect(self._netns, self._host_ends)
        if self.engine_fd >= 0:
            if "network" in self._own:
                restore_network.announce(self._netns, self._host_ends)
            self._cgroup.thaw()

    def _hold(self) -> None:
        """Wait for the commit of the engine. The cgroup is frozen: CRIU may be killed meanwhile.

        :raises RuntimeFailure: when the commit does not come.
        """
        self._cgroup.freeze(wait=False)
        with _socket_of(self.engine_fd) as engine:
            send_held(engine, self._init)
            assert self._service is not None
            if not self._service.wait_for(engine):
                raise RuntimeFailure("criu was killed")
            receive_go(engine)
        self._links.mark_continued()


def _protect_host() -> None:
    """Make the host's directories read-only in this mount namespace, and /tmp an empty one.

    CRIU creates files without a name by their path, before the container's root is its own. A link
    that another container has put into a volume leads to a directory of the host then.
    """
    mounts.mount_setattr(mounts.AT_FDCWD, "/", set=mounts.MOUNT_ATTR.RDONLY, recursive=True)
    for path in ("/proc", "/sys"):  # no file can be created there, and new ones must be like them
        mounts.mount_setattr(mounts.AT_FDCWD, path, clear=mounts.MOUNT_ATTR.RDONLY, recursive=True)
    tree = mounts.new_filesystem("tmpfs", (("mode", "1777"),))
    mounts.move_mount(tree, "/tmp")
    os.close(tree)


def _staging() -> str:
    return next(path for path in _STAGING if os.path.isdir(path))


def _cover_run() -> None:
    """Cover /run with a tmpfs, in which CRIU keeps what it finds out about the kernel."""
    if os.path.isdir("/run"):
        tree = mounts.new_filesystem("tmpfs", (("mode", "0755"),))
        mounts.move_mount(tree, "/run")
        os.close(tree)


def _as_failure(error: BaseException) -> JaulaError:
    if isinstance(error, JaulaError):
        return error
    asked = "the container cannot be restored"
    if isinstance(error, OSError):
        return RuntimeFailure(system_error_text(asked, error))
    return RuntimeFailure(f"{asked}: {error}")


def _extents(mappings: tuple[IDMapping, ...]) -> list[images_pb2.Extent]:
    return [
        images_pb2.Extent(first=row.container_id, lower_first=row.host_id, count=row.size)
        for row in mappings
    ]


def _hierarchies(text: str) -> dict[str, str]:
    """Return the path of each hierarchy, by its controllers, from /proc/PID/cgroup. Pure."""
    rows = (line.split(":", 2) for line in text.splitlines())
    return {name: path for _, name, path in rows}


def _cgroup_image(
    read: criu_images.Images, own: dict[str, str], container: dict[str, str]
) -> images_pb2.Cgroup:
    """Return the image that puts all tasks into the container's cgroup, without any property.

    The namespace of cgroups begins at the container's cgroup.
    """
    members = []
    for name, path in container.items():
        member = images_pb2.CgroupMember(name=name, path=path)
        if path != own.get(name) or path != "/":
            member.cgns_prefix = len(path.encode())
        members.append(member)
    controllers = [images_pb2.CgroupController(cnames=name.split(",")) for name in container]
    numbers = sorted({each.id for each in read.cgroups.sets} - {read.inventory.root_cg_set})
    return images_pb2.Cgroup(
        sets=[images_pb2.CgroupSet(id=number, ctls=members) for number in numbers],
        controllers=controllers,
    )


def _mend(file: images_pb2.File) -> images_pb2.File:
    """Return the file with a timer that goes on.

    CRIU saves a periodic timer that has expired and was not read with no time left, which would
    disarm it (timerfd_create(2)).
    """
    timer = file.tfd
    if file.HasField("tfd") and not (timer.vsec or timer.vnsec) and (timer.isec or timer.insec):
        mended = images_pb2.File()
        mended.CopyFrom(file)
        mended.tfd.vnsec = 1
        return mended
    return file


def _as_path(file: images_pb2.File, directories: Collection[int]) -> images_pb2.File:
    """Return the file, with O_PATH if it is a directory of a process (root, working directory).

    A Landlock domain need not permit to read it. CRIU opens it only to enter it.
    """
    if file.id not in directories or not file.HasField("reg"):
        return file
    changed = images_pb2.File()
    changed.CopyFrom(file)
    changed.reg.flags |= os.O_PATH
    return changed


def _socket_of(fd: int) -> socket.socket:
    return socket.socket(fileno=os.dup(fd))


class _ImageLinks:
    """A directory of hard links to the images, beside their directory; ``fd`` is open on it.

    It is made before this process changes its mount namespace: a hard link needs two paths of one
    mount.
    """

    def __init__(self, path: str) -> None:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        self._name = f"restore-{secrets.token_hex(8)}"
        self._parent = os.open(os.path.dirname(path.rstrip("/")), flags)
        os.mkdir(self._name, 0o711, dir_fd=self._parent)
        self.fd = os.open(self._name, flags, dir_fd=self._parent)
        stored = os.open(path, flags)
        try:
            names = criu_images.names(stored)
            count = criu_images.round_count(names)
            for number in range(1, count + 1):
                path = "/".join([criu_images.PARENT] * number)
                os.mkdir(path, dir_fd=self.fd)
                os.chmod(path, 0o755, dir_fd=self.fd)  # the tasks open it by name
            for name in names:
                link = criu_images.restore_path(name, count)
                os.link(name, link, src_dir_fd=stored, dst_dir_fd=self.fd, follow_symlinks=False)
        except BaseException:
            self.remove()
            raise
        finally:
            os.close(stored)

    def open_to_all(self) -> None:
        """Let CRIU with the ids of a container open the directory, and write its log."""
        os.fchmod(self.fd, 0o755)
        for name in (criu.LOG, criu.RESTORE_STATISTICS):
            _replace(self.fd, name, b"", mode=0o666)

    def mark_continued(self) -> None:
        """Record beside the images that their processes may run from now on."""
        flags = os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC
        os.close(os.open(CONTINUED, flags, 0o600, dir_fd=self._parent))

    def remove(self) -> None:
        """Remove the directory."""
        for _, directories, files, fd in os.fwalk(".", topdown=False, dir_fd=self.fd):
            for name in files:
                os.unlink(name, dir_fd=fd)
            for name in directories:
                os.rmdir(name, dir_fd=fd)
        os.close(self.fd)
        os.rmdir(self._name, dir_fd=self._parent)
        os.close(self._parent)


def _replace(directory: int, name: str, data: bytes, *, mode: int = 0o644) -> None:
    """Write a file in place of the link of that name."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=directory)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with open(os.open(name, flags, 0o644, dir_fd=directory), "wb") as file:
        os.fchmod(file.fileno(), mode)
        file.write(data)


def _drop_output(directory: int, inodes: tuple[int, ...]) -> None:
    """Drop the unread data of the container's output pipes: the former shim has logged it."""
    try:
        fd = criu_images.open_file(directory, _PIPE_DATA)
    except JaulaError:
        return  # no pipe held data
    with open(fd, "rb") as file:
        data = file.read(criu_images.MAX_IMAGE + 1)
    kept = criu_images.without_pipes(data, inodes)
    if kept != data:
        _replace(directory, _PIPE_DATA, kept)

"""Inputs of the spec: facts about the host, the user of the program, and one start."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from jaula.security.lsm.selinux_choice import Types
from jaula.spec.runtime_spec import IDMapping
from jaula.state.container_records import MountRecord, UserFacts

if TYPE_CHECKING:
    from jaula.security.cdi import ContainerEdits


class HostFacts(msgspec.Struct, frozen=True):
    """The host, as far as limits depend on it. Read once by the engine."""

    online_cpus: frozenset[int] = frozenset({0})
    memory_nodes: frozenset[int] = frozenset({0})
    total_memory: int = 0  # bytes
    swap_accounting: bool = True
    io_weights: bool = True
    cgroup_version: int = 2
    controllers: frozenset[str] = frozenset()  # of the host's cgroups, by their names on v2
    selinux: bool = False
    selinux_types: Types = Types()
    selinux_spc: bool = False  # the policy has a type for privileged containers
    apparmor: bool = False
    apparmor_profiles: dict[str, str] | None = None  # name: mode; None: not readable
    apparmor_default: str = ""  # the kernel's name of the engine's own profile
    landlock: int = 0  # ABI version, 0: none
    hostname: str = ""
    kernel: str = ""
    capabilities: int = (1 << 41) - 1  # the engine's bounding set
    mqueue: bool = True  # the host has /dev/mqueue
    nofile: tuple[int, int] = (1024, 524288)  # soft, hard; the most that the engine may grant
    pids_limit: int = 4096
    time_namespaces: bool = False  # the kernel has them (Linux 5.6)
    private_mounts: bool = False  # the engine does not see the host's mounts as they are now
    rootless: bool = False  # the engine runs as an ordinary user, in a user namespace
    warnings: tuple[str, ...] = ()  # for the operator


class SpecInputs(msgspec.Struct, frozen=True):
    """The inputs of one start of one container.

    ``mappings`` are empty if the container has no user namespace of its own to set up. ``joined``
    has the paths of existing namespaces, by OCI type. ``id_mapped``: bind mounts need the
    container's id map. ``external``: a runtime other than jaula's own runs the container.
    """

    container_id: str
    cgroup_path: str
    hostname: str
    host: HostFacts = HostFacts()
    user: UserFacts = UserFacts()
    mappings: tuple[IDMapping, ...] = ()
    gid_mappings: tuple[IDMapping, ...] = ()  # empty: the same as ``mappings``
    joined: dict[str, str] = {}
    private_volumes: frozenset[str] = frozenset()  # names of volumes with driver options
    id_mapped: bool = True
    external: bool = False
    files: dict[str, str] = {}  # destination in the container: path on the host
    mounts: tuple[MountRecord, ...] = ()
    owner: tuple[int, int] | None = None  # uid and gid to whose rights host mounts are limited
    beneath: tuple[str, ...] = ()  # host directories that bound the client's mounts
    level: str = ""  # SELinux level of the container
    shared_shm: str | None = None  # host path of a /dev/shm that containers share
    devices: tuple[str, ...] = ()  # host device nodes that a privileged container gets
    edits: tuple[ContainerEdits, ...] = ()  # of the requested CDI devices

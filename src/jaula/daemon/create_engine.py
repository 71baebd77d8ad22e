"""Create the engine and its services, and connect them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from jaula.errors import InvalidRequest, Unavailable
from jaula.rootless import holder_state, xdg_paths

if TYPE_CHECKING:
    from jaula.config import EngineConfig
    from jaula.engine.engine import Engine
    from jaula.engine.hooks import Hooks
    from jaula.engine.userns.id_ranges import SingleIdRange
    from jaula.images.lazy_layers import LazyLayers
    from jaula.images.policy import ImagePolicy
    from jaula.images.store.image_store import ImageStore
    from jaula.runtime.runtime_client import Runtime
    from jaula.state.claims import Claims
    from jaula.state.database import Database
    from jaula.storage.drivers.storage_driver import SnapshotDriver
    from jaula.storage.layers.layer_store import LayerStore

_STORAGE_DRIVER = "storage-driver"  # the key of a record in the table of settings


def new_engine(config: EngineConfig, runtime: Runtime, hooks: Hooks | None = None) -> Engine:
    """Return the engine with all of its services; nothing runs yet.

    ``hooks`` are those of all installed features if absent.
    """
    import time

    from jaula import cgroups, feature
    from jaula.daemon import process_limits
    from jaula.daemon.config import storage
    from jaula.engine.containers.engine_socket import EngineSockets
    from jaula.engine.containers.resolved_request import resolve
    from jaula.engine.engine import Engine
    from jaula.engine.group_commit import GroupCommit
    from jaula.engine.hooks import Hooks as EngineHooks
    from jaula.engine.model.container_store import ContainerStore
    from jaula.engine.model.event_log import EventBus
    from jaula.engine.model.services import Services
    from jaula.engine.networks.dns_server import DnsServers
    from jaula.engine.networks.network_store import NetworkStore
    from jaula.engine.networks.sandbox_pool import SandboxPool
    from jaula.engine.oci_runtimes import RuntimeTable
    from jaula.engine.oci_spec import host_facts
    from jaula.engine.system.system import engine_id
    from jaula.engine.userns.id_ranges import IdRanges
    from jaula.engine.volumes.volume_mount import VolumeMounts
    from jaula.engine.volumes.volume_references import VolumeReferences
    from jaula.images.store.image_store import ImageStore
    from jaula.network.manager import NetworkManager
    from jaula.network.owner import LinkOwner
    from jaula.state.database import Database
    from jaula.storage.layers.layer_store import LayerStore
    from jaula.storage.volume_directories import VolumeStore

    _check_durability(config)
    paths = config.paths
    rootless = xdg_paths.rootless_uid() is not None
    database = Database(paths.database)
    identity = engine_id(database)
    claims = _claim(config, identity, rootless=rootless)
    registry = ContainerStore(database)
    registry.load(resolve)
    networks = NetworkStore(database)
    networks.load()
    volumes = VolumeStore(paths, durable=config.durable)
    warnings: tuple[str, ...] = ()
    if rootless:
        reason = holder_state.cgroup_error(str(paths.run))
        driver, warnings = cgroups.delegated(reason), _lacking(str(paths.run), reason)
    else:
        driver = cgroups.detect(systemd=config.systemd_cgroups)
    warnings += (*_unproven(config), *process_limits.file_limit_warnings())
    layers = LayerStore(paths, format=storage.layer_format(config, rootless=rootless))
    snapshots = storage.check_driver(
        config, open_storage_driver(database, config, layers, rootless=rootless)
    )
    lazy_layers = _lazy_layers(config, layers, snapshots, rootless=rootless)
    images = ImageStore(paths, layers, durable=config.durable)
    if lazy_layers is not None:
        lazy_layers.attach(images.blobs, images.sync)
    images.hold(registry.layers)
    layers.users = registry.users_of
    layers.mounted_stacks = registry.mounted_stacks
    ranges = _own_ids() if rootless else IdRanges(config.subid_start, config.subid_count, claims)
    binder = holder_files = None
    if rootless:
        from jaula.rootless.holder_files import HolderFiles
        from jaula.rootless.port_driver import PortDriver

        binder = PortDriver(str(paths.run))
        holder_files = HolderFiles(str(paths.run), binder)
    owner = None if rootless else LinkOwner(identity, claims.is_active)
    network = NetworkManager(paths, config, binder=binder, owner=owner)
    engine = Engine(
        Services(
            hooks=hooks or EngineHooks(feature.features()),
            config=config,
            identity=identity,
            host=host_facts.read(
                config.nofile,
                config.pids_limit,
                driver.features(),
                cgroup_version=driver.version,
                controllers=driver.controllers(),
                container_type=config.selinux_type,
                file_type=config.selinux_file_type,
                rootless=rootless,
                warnings=warnings,
            ),
            database=database,
            group_commit=GroupCommit(database, durable=config.durable),
            container_store=registry,
            events=EventBus(),
            runtime=runtime,
            runtime_table=RuntimeTable(config),
            cgroups=driver,
            snapshots=snapshots,
            layers=layers,
            images=images,
            lazy_layers=lazy_layers,
            image_policy=_gate(config, images),
            volumes=volumes,
            volume_mounts=VolumeMounts(volumes, registry, runtime.host_mounts),
            volume_references=VolumeReferences(volumes, registry),
            network_manager=network,
            network_store=networks,
            dns_servers=DnsServers(network),
            id_ranges=ranges,
            sandbox_pool=SandboxPool(
                runtime,
                network,
                ranges,
                config.sandbox_pool,
                inits=config.spare_inits,
                mount_point=str(config.paths.spare_inits),
                ids_file=config.paths.spare_init_ids,
            ),
            engine_sockets=EngineSockets(),
            started_at=time.time_ns(),
            claims=claims,
        )
    )
    engine.host_objects.holder_files = holder_files
    return engine


def _claim(config: EngineConfig, identity: str, *, rootless: bool) -> Claims:
    """Claim what this engine uses of the host, before it changes anything there.

    :raises Conflict: when another engine uses a part of it.
    """
    import os

    from jaula import cgroups
    from jaula.cgroups.cgroup_path import parent_path
    from jaula.state.claims import DIRECTORY, Claim, Claims

    directory, parent = DIRECTORY, parent_path(config.cgroup_parent, systemd=config.systemd_cgroups)
    if rootless:
        directory = Path(f"{xdg_paths.run()}-engines")
        if not xdg_paths.is_trusted(str(directory)):
            raise Unavailable(
                f"the directory {directory} belongs to another user or is writable by other users",
                hint="remove it, or set XDG_RUNTIME_DIR",
            )
        delegated = cgroups.delegated_directory()
        parent = f"{delegated}{parent}" if delegated else ""
    claims = Claims(
        Claim(
            identity,
            os.path.realpath(config.paths.root),
            os.path.realpath(config.paths.run),
            os.stat("/proc/self/ns/net").st_ino,
            config.bridge,
            parent,
        ),
        directory,
    )
    claims.take()
    return claims


def _lazy_layers(
    config: EngineConfig, layers: LayerStore, snapshots: SnapshotDriver, *, rootless: bool
) -> LazyLayers | None:
    """Return the lazy layers, or None with the pull mode ``whole`` and no layers left of ``lazy``.

    :raises InvalidRequest: when the setting is not valid.
    """
    from jaula import feature

    if config.pull_mode not in ("whole", "lazy"):
        raise InvalidRequest(f"pull-mode {config.pull_mode[:40]!r} must be one of whole, lazy")
    left = config.paths.root / "lazy"
    if config.pull_mode == "whole" and not (left.is_dir() and any(left.iterdir())):
        return None
    if (open_layers := feature.provider("lazy_layers")) is not None:
        found: LazyLayers = open_layers(config, layers, snapshots, rootless=rootless)
        return found
    raise InvalidRequest(
        "pull-mode lazy, or layers that it left, need the feature lazy, which is not installed",
        hint="install all of jaula",
    )


def open_storage_driver(
    database: Database, config: EngineConfig, layers: LayerStore, *, rootless: bool
) -> SnapshotDriver:
    """Return the storage driver, and record it as one that works on this file system.

    A recorded driver is not probed, so an engine starts on a full file system.
    """
    from jaula.state.container_records import StorageDriverRecord
    from jaula.storage.drivers import driver_choice
    from jaula.storage.filesystem_type import filesystem_name

    filesystem = filesystem_name(config.paths.root)
    stored = database.get("settings", _STORAGE_DRIVER, StorageDriverRecord)
    probed = stored.name if stored is not None and stored.filesystem == filesystem else None
    driver = driver_choice.select_driver(
        config.paths,
        config.storage_driver,
        layers,
        rootless=rootless,
        probed=probed,
        durable=config.durable,
    )
    if driver.name != probed:
        database.put("settings", _STORAGE_DRIVER, StorageDriverRecord(driver.name, filesystem))
    return driver


def _check_durability(config: EngineConfig) -> None:
    """Check the setting.

    :raises InvalidRequest: when it is not valid.
    """
    if config.durability not in ("strict", "relaxed"):
        raise InvalidRequest(
            f"durability {config.durability[:40]!r} must be one of strict, relaxed"
        )


def _gate(config: EngineConfig, images: ImageStore) -> ImagePolicy:
    """Return the image policy, from the same file as the authorisation policy."""
    from jaula import feature
    from jaula.daemon import load_policy

    path = load_policy.policy_path(config)
    if (open_policy := feature.provider("image_policy")) is not None:
        found: ImagePolicy = open_policy(config, images, path)
        return found
    from jaula.images.policy import OpenPolicy

    return OpenPolicy(path, required=bool(config.policy))


def _unproven(config: EngineConfig) -> tuple[str, ...]:
    """Return the warnings of ``info`` about TCP sockets without TLS."""
    if config.tls is not None:
        return ()
    return tuple(
        f"API is accessible on tcp://{host}:{port} without TLS, to every process of this host"
        for host, port in config.tcp
    )


def _lacking(run: str, no_cgroup: str) -> tuple[str, ...]:
    """Return the warnings of ``info`` about what a rootless engine cannot do on this host."""
    found = []
    if no_cgroup:
        found.append(
            f"containers have no cgroup, so no limits (of processes neither): {no_cgroup};"
            " jaula doctor tells more"
        )
    joined = holder_state.read_network_helper(run)
    if not joined.name:
        found.append(f"containers do not reach outside: {joined.reason}; jaula doctor tells more")
    return tuple(found)


def _own_ids() -> SingleIdRange:
    """Return a range with all ids of the current user namespace."""
    from jaula.engine.userns.id_ranges import SingleIdRange as IdRangesSingleIdRange

    sizes: list[int] = []
    starts: list[int] = []
    for kind in ("uid_map", "gid_map"):
        with open(f"/proc/self/{kind}", encoding="ascii") as file:
            rows = [[int(number) for number in line.split()] for line in file]
        sizes.append(sum(row[2] for row in rows))
        starts += [row[0] for row in rows]
    return IdRangesSingleIdRange(min(sizes), starts)

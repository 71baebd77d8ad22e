"""A request is resolved once: the value is authorized, stored, and used by every later act."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from jaula.config import EngineConfig, Paths
from jaula.engine import relaxations
from jaula.engine.containers import (
    container_inspect,
    create_request,
    named_references,
    resolved_request,
)
from jaula.engine.containers import create as creating
from jaula.engine.containers.bounds import Bounds
from jaula.engine.containers.engine_socket import EngineSockets
from jaula.engine.containers.resolved_request import resolve
from jaula.engine.containers.start import Starter
from jaula.engine.hooks import Hooks
from jaula.engine.model.container import Container
from jaula.engine.model.container_store import ContainerStore
from jaula.engine.model.event_log import EventBus
from jaula.engine.networks import container_links, port_bindings
from jaula.engine.oci_runtimes import RuntimeTable
from jaula.engine.oci_spec import security_opt, spec_namespaces
from jaula.engine.oci_spec.inputs import HostFacts
from jaula.engine.relaxations import Privilege
from jaula.engine.userns.id_ranges import IdRanges
from jaula.engine.volumes import mount_spec
from jaula.errors import CorruptState, InvalidRequest, NotAuthorized, NotFound
from jaula.features.build.builder import run_step
from jaula.features.build.builder.image_state import ImageState
from jaula.runtime.shim_protocol import StartRequest
from jaula.spec.api_documents import ContainerCreate, HostConfig, LogConfig, Resources
from jaula.spec.decode import decode
from jaula.spec.image_documents import ImageConfig, Platform
from jaula.spec.runtime_spec import Spec
from jaula.spec.runtime_spec import decode as decode_spec
from jaula.state.container_records import (
    ContainerRecord,
    Link,
    NamespaceKind,
    NamespaceMode,
    PodResources,
    PortMapping,
    ResolvedRequest,
    StoredRequest,
    UserFacts,
    VolumesFrom,
    stored,
    stored_request,
)
from jaula.state.database import Database


def body(**host: Any) -> ContainerCreate:
    document = {"Image": "busybox", "Cmd": ["true"], "HostConfig": host}
    return decode(json.dumps(document).encode(), ContainerCreate)


EVERYTHING: dict[str, Any] = {
    "NetworkMode": "container:abc",
    "PidMode": "host",
    "Binds": ["/a:/b:ro"],
    "Mounts": [
        {
            "Type": "volume",
            "Target": "/v",
            "VolumeOptions": {"DriverConfig": {"Options": {"type": "nfs", "device": ":/x"}}},
        }
    ],
    "Tmpfs": {"/t": "size=1m"},
    "VolumesFrom": ["data:ro"],
    "Privileged": True,
    "CapAdd": ["SYS_ADMIN"],
    "CapDrop": ["ALL"],
    "SecurityOpt": ["no-new-privileges", "label=level:s0", "mask=/x", "landlock=off"],
    "MaskedPaths": ["/proc/kcore"],
    "ReadonlyPaths": [],
    "ReadonlyRootfs": True,
    "PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080-8090"}]},
    "Links": ["store:db"],
    "Memory": 64 << 20,
    "Devices": [{"PathOnHost": "/dev/null"}],
    "DeviceCgroupRules": ["c 1:3 r"],
    "CgroupParent": "/mine",
    "Annotations": {"a": "b"},
    "Sysctls": {"net.ipv4.ip_forward": "1"},
    "OomScoreAdj": -5,
    "ShmSize": 1 << 20,
    "LogConfig": {"Type": "syslog", "Config": {"syslog-address": "udp://127.0.0.1"}},
    "Secrets": [{"Source": "key", "ID": "1"}],
}


SAID: dict[str, Any] = {
    "Devices": [{"PathOnHost": "/dev/null", "PathInContainer": "/dev/taken"}],
    "DeviceCgroupRules": ["c 1:3 rwm"],
    "CgroupParent": "/taken",
    "Annotations": {"org.systemd.property.X": "1"},
    "Sysctls": {"net.ipv4.ip_forward": "1"},
    "OomScoreAdj": -1000,
    "Memory": 1 << 30,
    "ShmSize": 1 << 20,
}
"""Members that need no decision: the body has the only value of them."""


def record(request: ContainerCreate, **fields: Any) -> ContainerRecord:
    return ContainerRecord("c" * 64, "web", 1, request, "sha256:0", **fields)


def test_each_part_of_a_request_is_decided() -> None:
    found = resolve(body(**EVERYTHING), {"data": "d" * 64}.__getitem__)
    assert found.namespaces.net == NamespaceMode(NamespaceKind.CONTAINER, "abc")
    assert found.namespaces.pid.host
    assert [request.mount.destination for request in found.mounts] == ["/b", "/v", "/t"]
    assert found.volumes_from == (VolumesFrom("d" * 64, "ro"),)
    assert found.security.options.no_new_privileges
    assert found.ports == (PortMapping(80, "tcp", "127.0.0.1", 8080, 8090),)
    assert found.links == (Link("store", "db"),)


@pytest.mark.parametrize("host", [{}, EVERYTHING], ids=["default", "everything"])
def test_the_value_comes_back_from_the_database_as_it_was(
    tmp_path: Path, host: dict[str, Any], open_database: Callable[[Path], Database]
) -> None:
    request = body(**host)
    written = record(request, resolved_request=resolve(request))
    database = open_database(tmp_path / "db")
    database.put("containers", written.id, stored(written))
    read = database.get("containers", written.id, ContainerRecord)
    assert read is not None
    assert read.log == written.log
    assert msgspec.structs.replace(read.resolved, log=None) == written.resolved
    assert stored(read) == stored(written)
    assert relaxations.of_record(read) == relaxations.of_record(written)


def test_what_needs_no_decision_is_in_the_body_alone() -> None:
    said = {name: EVERYTHING[name] for name in SAID}
    assert resolve(body(**said)) == resolve(body())


def test_an_older_engine_finds_the_whole_request_in_a_record() -> None:
    """It takes limits and lists from the resolved request, and has no other source of them."""
    request = body(**EVERYTHING)
    document = msgspec.json.encode(stored(record(request, resolved_request=resolve(request))))
    text = msgspec.json.encode(json.loads(document)["resolved_request"])
    found = msgspec.json.decode(text, type=StoredRequest)
    host = request.host_config
    for name in (
        *("runtime", "secrets", "configs", "annotations", "sysctls", "oom_score_adj", "shm_size"),
        *("egress", "listen"),
    ):
        assert getattr(found, name) == getattr(host, name)
    for name in Resources.__struct_fields__:
        assert getattr(found.resources, name) == getattr(host, name)
    assert (found.log, found.network_disabled) == (host.log_config, request.network_disabled)
    assert found.security == resolve(request).security


def test_limits_and_the_log_of_a_pod_come_back() -> None:
    request = body()
    pod = PodResources(unified={"memory.high": "1"}, hugepage_limits={"2MB": 0})
    log = LogConfig(type="cri", config={"directory": "/logs", "path": "0.log"})
    resolved = msgspec.structs.replace(resolve(request), pod_resources=pod, log=log)
    written = record(request, resolved_request=resolved)
    read = msgspec.json.decode(msgspec.json.encode(stored(written)), type=ContainerRecord)
    assert (read.resolved.pod_resources, read.log) == (pod, log)


def test_only_values_that_differ_from_the_default_are_stored() -> None:
    request = body(Memory=1 << 30)
    written = stored(record(request, resolved_request=resolve(request)))
    found = json.loads(msgspec.json.encode(written))["resolved_request"]
    assert found == {
        "namespaces": {"network": "bridge"},
        "security": {},
        "resources": {"Memory": 1 << 30},
        "log": {"Type": "", "Config": {}},
    }


@pytest.mark.parametrize(
    "host",
    [
        {"PidMode": "nonsense"},
        {"SecurityOpt": ["nonsense"]},
        {"Binds": ["/a"]} | {"Tmpfs": {"/a": ""}},
        {"VolumesFrom": ["data:rx"]},
        {"PortBindings": {"80/xyz": []}},
        {"Links": ["a:b:c"]},
    ],
)
def test_a_request_that_cannot_be_parsed_is_refused(host: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        resolve(body(**host))


def test_every_ask_of_a_request_is_one_of_its_record() -> None:
    request = body(**EVERYTHING)
    found = resolve(request)
    made = record(request, resolved_request=found)
    assert set(relaxations.of_request(request, found)) <= set(relaxations.of_record(made))
    assert "privileged" in map(str, relaxations.of_record(made))


# -- records of engines that stored no resolved request -------------------------------------------


def old_database(path: Path, **host: Any) -> None:
    """The record as the engine wrote it before: nothing beside the body."""
    document = msgspec.to_builtins(record(body(**host)))
    assert "resolved_request" not in document
    Database(path).close()
    with sqlite3.connect(path) as raw:
        raw.execute(
            "INSERT INTO containers VALUES (?, ?)", ("c" * 64, msgspec.json.encode(document))
        )
    raw.close()


def test_an_old_record_is_resolved_when_it_is_loaded_and_written_at_once(
    tmp_path: Path, open_database: Callable[[Path], Database]
) -> None:
    old_database(tmp_path / "db", **EVERYTHING)
    registry = ContainerStore(open_database(tmp_path / "db"))
    registry.load(resolve)
    assert registry.find("web").record.resolved == resolve(body(**EVERYTHING))
    again = ContainerStore(open_database(tmp_path / "db"))
    again.load(never)
    assert again.find("web").record == registry.find("web").record


def test_an_old_step_of_a_build_is_resolved_too(
    tmp_path: Path, open_database: Callable[[Path], Database]
) -> None:
    request = body()
    open_database(tmp_path / "db").put("containers", "c", record(request, build="b"))
    registry = ContainerStore(open_database(tmp_path / "db"))
    registry.load(resolve)
    assert [step.record.resolved for step in registry.steps()] == [resolve(request)]


def test_an_old_record_that_cannot_be_resolved_is_reported_and_left(
    tmp_path: Path, open_database: Callable[[Path], Database]
) -> None:
    old_database(tmp_path / "db", PidMode="of an engine of the future")
    with pytest.raises(CorruptState, match="request of container web cannot be resolved"):
        ContainerStore(open_database(tmp_path / "db")).load(resolve)
    found = open_database(tmp_path / "db").get("containers", "c" * 64, ContainerRecord)
    assert found is not None
    assert found.resolved_request is None


def test_a_record_without_the_value_is_used_for_nothing() -> None:
    with pytest.raises(CorruptState, match="no resolved request"):
        relaxations.of_record(record(body()))


def never(request: ContainerCreate) -> ResolvedRequest:
    raise AssertionError("a body was parsed again")


# -- create and start -----------------------------------------------------------------------------


class NoServers(set[str]):
    """The DNS servers of an engine without a container."""

    async def close_one(self, *_: object) -> None:
        """Do nothing."""

    leave = close_one


class Machine:
    """An engine's services without a kernel: create and start run, nothing is executed."""

    def __init__(self, base: Path, open_database: Callable[[Path], Database]) -> None:
        self.base = base
        self._open_database = open_database
        self.started: list[StartRequest] = []
        self.config = EngineConfig(paths=Paths(root=base / "root", run=base / "run"))
        self.registry = ContainerStore(open_database(base / "db"))
        self.services: Any = SimpleNamespace(
            config=self.config,
            host=HostFacts(kernel="6.12.0", landlock=7),
            container_store=self.registry,
            events=EventBus(),
            images=SimpleNamespace(
                resolve=self._image,
                lease=lambda: SimpleNamespace(close=nothing),
                pin_image=lambda lease, image: image,
                mountable=lambda image: image.layers,
                layers=SimpleNamespace(failure=nothing),
            ),
            hooks=Hooks(),
            layers=SimpleNamespace(has=nothing),
            image_policy=SimpleNamespace(check_run=nothing, check_start=nothing),
            runtime_table=RuntimeTable(self.config),
            network_store=SimpleNamespace(find=str, get=nothing, id_of=str),
            snapshots=SimpleNamespace(
                name="overlay", instant=True, create=nothing, sync=nothing, root=nothing
            ),
            dns_servers=NoServers(),
            id_ranges=IdRanges(1_000_000_000, 1 << 24),
            volume_references=SimpleNamespace(begin=nothing, end=nothing),
            volume_mounts=SimpleNamespace(use=nothing_later, private=nothing),
            runtime=SimpleNamespace(start=self._start),
            sandbox_pool=SimpleNamespace(refill=nothing, take_back=nothing_later),
            engine_sockets=EngineSockets(),
        )
        users: Any = SimpleNamespace(of=lambda record: UserFacts())
        self._starter = Starter(
            self.services, users, nothing, self.registry.save, nothing_later, nothing
        )

    def _image(self, ref: str, platform: Platform | None = None) -> Any:
        if ref not in ("busybox", "sha256:0"):
            raise NotFound(f"No such image: {ref}")
        actual = Platform("", "linux")
        return SimpleNamespace(id="sha256:0", config=ImageConfig(), layers=(), platform=actual)

    async def _start(self, request: StartRequest, *_: object, **_descriptors: object) -> Any:
        self.started.append(request)
        return SimpleNamespace(pid=2, shim_pid=1)

    def create(self, request: ContainerCreate, **options: Any) -> Container:
        async def made() -> Container:
            created = await creating.create(self.services, request, "web", None, **options)
            return self.registry.find(created.id)

        return asyncio.run(made())

    def start(self, container: Container) -> Spec:
        asyncio.run(self._starter.start(container))
        return decode_spec(Path(self.started[-1].bundle, "config.json").read_bytes())

    def restarted(self) -> Machine:
        """The next engine, with what is in the database."""
        after = Machine(self.base, self._open_database)
        after.registry.load(never)
        return after


def nothing(*_: object, **__: object) -> None:
    """Do nothing."""


async def nothing_later(*_: object) -> None:
    """Do nothing."""


@pytest.fixture
def machine(tmp_path: Path, open_database: Callable[[Path], Database]) -> Machine:
    return Machine(tmp_path, open_database)


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each parser of a request was called."""
    counter: Counter[str] = Counter()

    def counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def count(*arguments: Any, **options: Any) -> Any:
            counter[name] += 1
            return function(*arguments, **options)

        return count

    for module, name in (
        (create_request, "resolve"),
        (spec_namespaces, "decide"),
        (security_opt, "parse"),
        (mount_spec, "mount_requests"),
        (port_bindings, "port_mappings"),
        (container_links, "parse"),
    ):
        key = f"{module.__name__.rpartition('.')[2]}.{name}"
        monkeypatch.setattr(module, name, counted(key, getattr(module, name)))
    monkeypatch.setattr(
        resolved_request, "resolve", counted("resolved_request.resolve", resolved_request.resolve)
    )
    return counter


def test_a_create_and_its_starts_resolve_once(machine: Machine, parsed: Counter[str]) -> None:
    def authorize(merged: ContainerCreate, resolved: ResolvedRequest) -> Bounds:
        relaxations.of_request(merged, resolved)
        return Bounds()

    host = {"NetworkMode": "shop", "Links": ["store:db"], "Tmpfs": {"/t": ""}}
    container = machine.create(body(**host), authorize=authorize)
    once = {
        "create_request.resolve": 1,
        "spec_namespaces.decide": 1,
        "security_opt.parse": 1,
        "mount_spec.mount_requests": 1,
        "port_bindings.port_mappings": 1,
        "container_links.parse": 1,
    }
    assert parsed == once
    container.change(networks={})  # the stand-in has no network to connect it to
    for _ in range(2):
        relaxations.of_record(container.record)
        machine.start(container)
        container_inspect.relaxations(container.record)
        container_inspect.host_config(machine.services, container.record)
        container.change(status="exited")
    assert parsed == once
    assert len(machine.started) == 2


TAMPERED: dict[str, Any] = {
    "NetworkMode": "host",
    "PidMode": "host",
    "IpcMode": "host",
    "UTSMode": "host",
    "UsernsMode": "host",
    "CgroupnsMode": "host",
    "Privileged": True,
    "CapAdd": ["ALL"],
    "SecurityOpt": ["seccomp=unconfined", "systempaths=unconfined", "landlock=off"],
    "Binds": ["/:/host"],
    "ReadonlyRootfs": False,
    "MaskedPaths": [],
    "ReadonlyPaths": [],
}


def change_body(database: Path, **host: Any) -> None:
    with sqlite3.connect(database) as raw:
        ((key, text),) = raw.execute("SELECT id, document FROM containers").fetchall()
        document = json.loads(text)
        document["body"]["HostConfig"] |= host
        raw.execute(
            "UPDATE containers SET document = ? WHERE id = ?", (json.dumps(document).encode(), key)
        )
    raw.close()


@pytest.mark.parametrize("cve", ["CVE-2024-41110"])
def test_a_start_uses_the_authorized_value_and_not_the_stored_body(
    machine: Machine, cve: str
) -> None:
    """The engine has no way back from a container to its body's privileges."""
    container = machine.create(body(NetworkMode="none", ReadonlyRootfs=True, Memory=64 << 20))
    usual = machine.start(container)
    documented = container_inspect.host_config(machine.services, container.record)
    container.change(status="exited", range_start=0, range_size=0)
    machine.registry.save(container)
    change_body(machine.base / "db", **TAMPERED)

    after = machine.restarted()
    again = after.registry.find("web")
    assert again.record.body.host_config.privileged
    assert relaxations.of_record(again.record) == ()
    assert container_inspect.relaxations(again.record) == []
    assert after.start(again) == usual
    shown = container_inspect.host_config(after.services, again.record)
    kept = {"SecurityOpt", "Binds"}  # the notation of the body, which nothing reads any more
    assert {name for name in shown if shown[name] != documented[name]} == kept


@pytest.mark.parametrize("cve", ["CVE-2024-41110"])
def test_a_member_without_a_decision_is_judged_shown_and_used_as_one_value(
    machine: Machine, cve: str
) -> None:
    machine.create(body(NetworkMode="none"))
    change_body(machine.base / "db", **SAID)
    after = machine.restarted()
    again = after.registry.find("web")
    assert [str(ask) for ask in relaxations.of_record(again.record)] == [
        "device=/dev/null",
        "device=c 1:3 rwm",
        "cgroup-parent=/taken",
        "oom-score-adj=-1000",
        "annotation=org.systemd.property.X",
    ]
    shown = container_inspect.host_config(after.services, again.record)
    assert {name: shown[name] for name in ("Memory", "ShmSize", "Sysctls")} == {
        name: SAID[name] for name in ("Memory", "ShmSize", "Sysctls")
    }
    started = after.start(again)
    assert started.process is not None
    assert started.process.oom_score_adj == -1000
    assert started.linux is not None
    assert "/dev/taken" in [device.path for device in started.linux.devices]
    assert started.linux.sysctl["net.ipv4.ip_forward"] == "1"


@pytest.mark.parametrize("cve", ["CVE-2024-41110"])
def test_a_start_is_authorized_by_the_value_that_it_uses(machine: Machine, cve: str) -> None:
    host = {"NetworkMode": "none", "Privileged": True, "CapAdd": ["SYS_ADMIN"]}
    machine.create(body(**host))
    change_body(machine.base / "db", Privileged=False, CapAdd=[])
    again = machine.restarted().registry.find("web")
    found = [str(ask) for ask in relaxations.of_record(again.record)]
    assert found == ["privileged", "capability=SYS_ADMIN"]


def test_an_update_changes_the_resources_of_a_start_and_nothing_else(machine: Machine) -> None:
    from jaula.engine.containers.update import merge_limits
    from jaula.spec.api_documents import ContainerUpdate

    container = machine.create(body(NetworkMode="none"))
    usual = machine.start(container)
    updated = merge_limits(
        container.record, ContainerUpdate(memory=64 << 20), machine.services.host
    )
    container.change(status="exited", body=updated.body, resolved_request=updated.resolved)
    limited = machine.start(container)
    assert usual.linux is not None
    assert limited.linux is not None
    assert usual.linux.resources is not None
    assert limited.linux.resources is not None
    assert limited.linux.resources.memory is not None
    assert limited.linux.resources.memory.limit == 64 << 20
    assert limited.process == usual.process
    assert limited.linux.namespaces == usual.linux.namespaces


def test_a_refused_request_leaves_nothing(machine: Machine) -> None:
    def refuse(merged: ContainerCreate, resolved: ResolvedRequest) -> tuple[str, ...]:
        assert resolved.security.privileged
        raise NotAuthorized("no")

    for image in ("busybox", "absent"):  # refused before the client is told to pull it
        request = msgspec.structs.replace(body(Privileged=True), image=image)
        with pytest.raises(NotAuthorized):
            machine.create(request, authorize=refuse)
    assert len(machine.registry) == 0
    assert machine.registry.names == {}


JUDGED: dict[str, Any] = {
    **{f"{kind}Mode": "host" for kind in ("Network", "Pid", "Ipc", "UTS", "Userns", "Cgroupns")},
    "Binds": ["/a:/b"],
    "Mounts": [{"Type": "bind", "Source": "/a", "Target": "/b"}],
    "VolumesFrom": ["data"],
    "Links": ["store"],
    "Annotations": {"a": "b"},
    "CapAdd": ["SYS_ADMIN"],
    "CgroupParent": "/mine",
    "Devices": [{"PathOnHost": "/dev/null"}],
    "DeviceCgroupRules": ["c 1:3 r"],
    "DeviceRequests": [{"Driver": "x"}],
    "OomScoreAdj": -5,
    "Privileged": True,
    "SecurityOpt": ["seccomp=unconfined"],
    "Runtime": "crun",
    "MaskedPaths": [],
    "ReadonlyPaths": [],
    "LogConfig": {"Type": "syslog"},
}


@pytest.mark.parametrize("field", JUDGED)
def test_every_field_that_policies_judge_is_a_part_of_the_value(field: str) -> None:
    """Of the decided value, or of the members of the body that need no decision."""
    asked, plain = body(**{field: JUDGED[field]}), body()
    assert stored_request(asked, resolve(asked)) != stored_request(plain, resolve(plain))


def test_a_build_step_is_authorized_by_the_value_that_it_starts_from(machine: Machine) -> None:
    judged: list[str] = []

    def judge(found: tuple[Privilege, ...]) -> None:
        judged.extend(map(str, found))
        raise NotAuthorized("the policy has changed since the build began")

    command = run_step.RunCommand(
        arguments=("true",),
        environment=(),
        host=HostConfig(privileged=True, network_mode="host"),
        build="b",
    )
    containers: Any = SimpleNamespace(services=machine.services)
    mounts: Any = None
    step = run_step.run(
        containers, ImageState(), command, mounts, judge, nothing_later, nothing, nothing
    )
    with pytest.raises(NotAuthorized):
        asyncio.run(step)
    assert judged == ["privileged", "host-namespace=network"]
    assert machine.registry.steps() == ()


def test_modes_of_a_build_name_containers_by_their_ids(machine: Machine) -> None:
    other = machine.create(body(NetworkMode="none"))
    host = body(NetworkMode="container:web", PidMode="container:gone").host_config
    found = named_references.with_container_ids(machine.services, host)
    assert found.network_mode == f"container:{other.id}"
    assert found.pid_mode == "container:gone"


@pytest.mark.parametrize("host", [{"PidMode": "container:gone"}, {"VolumesFrom": ["gone"]}])
def test_an_absent_container_is_reported_to_those_alone_who_may_have_one(
    machine: Machine, host: dict[str, Any]
) -> None:
    def refuse(merged: ContainerCreate, resolved: ResolvedRequest) -> tuple[str, ...]:
        raise NotAuthorized("no")

    with pytest.raises(NotAuthorized):
        machine.create(body(**host), authorize=refuse)
    with pytest.raises(InvalidRequest, match="No such container: gone"):
        machine.create(body(**host))


def test_other_containers_are_named_by_their_ids(machine: Machine) -> None:
    other = machine.create(body(NetworkMode="none"))
    seen: list[ResolvedRequest] = []

    def authorize(merged: ContainerCreate, resolved: ResolvedRequest) -> Bounds:
        seen.append(resolved)
        return Bounds()

    async def made() -> ContainerRecord:
        request = body(NetworkMode="none", PidMode="container:web", VolumesFrom=["web:ro"])
        created = await creating.create(
            machine.services, request, "other", None, authorize=authorize
        )
        return machine.registry.find(created.id).record

    created = asyncio.run(made())
    assert seen == [created.resolved]
    assert created.resolved.namespaces.pid.container == other.id
    assert created.resolved.volumes_from == (VolumesFrom(other.id, "ro"),)
    assert created.body.host_config.volumes_from == ("web:ro",)

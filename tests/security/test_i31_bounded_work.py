"""Work of a request that could grow faster than its bytes, at a size and at four times that (I31).

Each case is code that the engine runs on text of a client, a registry or an image. Linear work
takes four times as long for four times the bytes, quadratic work sixteen times. It is measured as
processor time, so a busy machine changes nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from jaula.api.http.http_request import Query, decode
from jaula.config import EngineConfig
from jaula.engine.authz import request_ceilings
from jaula.engine.containers import log_config, ps_filters, validate
from jaula.engine.containers.resolved_request import resolve
from jaula.engine.model.label_filters import check_expressions, has_labels, has_match, parse_time
from jaula.engine.networks import network_settings
from jaula.engine.networks.port_bindings import parse_port, parse_port_range, port_mappings
from jaula.engine.oci_spec import security_opt
from jaula.engine.oci_spec.inputs import HostFacts
from jaula.engine.volumes import mount_spec
from jaula.engine.volumes.volume_references import VolumeReferences
from jaula.errors import JaulaError
from jaula.features.build.buildkit import definition
from jaula.features.build.buildkit.proto.ops_pb2 import Definition
from jaula.features.build.files import wildcard
from jaula.features.build.files.dockerignore import Dockerignore
from jaula.features.edit import edit_request
from jaula.features.kubernetes.kube import kube_documents
from jaula.images import reference
from jaula.images.image_platform import parse_platform
from jaula.images.registry.auth import www_authenticate
from jaula.images.store.image_catalog import _by_manifest, built_from
from jaula.network.network_config import check_pools
from jaula.network.port_mapper import PortAllocator, PortMapper, PortRequest, PortTarget
from jaula.security import landlock_ruleset
from jaula.spec import cpuset, egress, json_syntax, listen, signals, toml, units
from jaula.spec.api_documents import (
    ContainerCreate,
    ContainerEdit,
    Empty,
    HostConfig,
    LogConfig,
    PortBinding,
    Resources,
    Ulimit,
)
from jaula.spec.endpoint_record import Endpoint, PublishedPort
from jaula.spec.network_record import Pool
from jaula.state.container_records import ContainerRecord, MountRecord, PortMapping

Work = Callable[[int], object]
N = 4000
_LEAST = 0.02  # seconds; below it a ratio says nothing


def _create(**members: Any) -> object:
    body = decode(msgspec.json.encode(members), ContainerCreate)
    return port_mappings(body)


def _edited_bindings(host_ports: list[str]) -> object:
    added = {"80/tcp": tuple(PortBinding(host_port=port) for port in host_ports)}
    return edit_request._with_bindings({}, added)


def _unpublished(n: int, bound: str) -> object:
    """Remove the ports of a container one by one, the last one first."""
    record: Any = SimpleNamespace(
        body=ContainerCreate(
            host_config=HostConfig(
                port_bindings={
                    "80/tcp": tuple(PortBinding(host_port=bound.format(1 + i)) for i in range(n))
                }
            )
        ),
        ports=tuple(PublishedPort(80, "tcp", "0.0.0.0", 1 + i) for i in range(n)),
    )
    removed = {"80/tcp": tuple(PortBinding(host_port=str(n - i)) for i in range(n))}
    return edit_request._without_ports(record, removed)


def _edited(edit: ContainerEdit, mounts: int = 0, **fields: Any) -> object:
    """Decide an edit of a container with these members of its request."""
    body = ContainerCreate(image="a", cmd=("a",), **fields)
    record = ContainerRecord(
        id="a" * 64,
        name="web",
        created=1,
        body=body,
        image="a",
        mounts=tuple(MountRecord("tmpfs", f"/a/{i}") for i in range(mounts)),
        resolved_request=resolve(body),
    )
    return edit_request.decide(record, edit, HostFacts())


def _updated(n: int) -> object:
    """Compare the limits of an update with as many as there are."""
    old = Resources(ulimits=tuple(Ulimit(name="core", soft=i, hard=i) for i in range(n)))
    new = Resources(ulimits=tuple(Ulimit(name="core", soft=n + i, hard=n + i) for i in range(n)))
    return request_ceilings.of_update(old, new, 0)


def _selected_labels(n: int) -> object:
    labels = {f"a{i}": "" for i in range(n * 4)}
    record: Any = SimpleNamespace(body=SimpleNamespace(labels=labels, env=()))
    return log_config.attributes({"labels": ",".join(f"b{i}" for i in range(n * 4))}, record)


_BRIDGE = SimpleNamespace(publishes=True, internal=False)


def _shown_ports(exposed: int, published: int) -> object:
    texts = {f"{1 + i % 65535}/{('tcp', 'udp', 'sctp')[i // 65535]}": {} for i in range(exposed)}
    record: Any = SimpleNamespace(
        pid=1,
        endpoints=(_BRIDGE,),
        body=SimpleNamespace(exposed_ports=texts),
        ports=tuple(PublishedPort(80, "tcp", "", 1 + i) for i in range(published)),
    )
    return network_settings.ports(record)


def _unlisted_ports(n: int) -> object:
    items = tuple(f"tcp:{30000 + i}" for i in range(min(n, listen.MAX_ITEMS)))
    resolved: Any = SimpleNamespace(ports=[PortMapping(1 + i % 65535, "tcp") for i in range(n * 4)])
    return list(validate._unlisted_ports(HostConfig(listen=items), resolved))


class _NoBinder:
    """Binds nothing, so that only the choice of ports is measured."""

    proxied = False
    persistent = False

    def bind(self, port: PublishedPort, target: str) -> None:
        return None


def _allocate(n: int, first: int, last: int | None, step: int = 0) -> object:
    binder: Any = _NoBinder()
    requests = [PortRequest(80, "tcp", "127.0.0.1", first + i * step, last) for i in range(n)]
    return PortAllocator(binder).allocate("a", requests, PortTarget("172.30.0.2"))


def _withdraw(n: int) -> object:
    """Release all ports of a running container, as an edit does."""
    binder: Any = _NoBinder()
    mapper = PortMapper(binder)
    requests = [PortRequest(80, "tcp", "127.0.0.1", 1 + i) for i in range(n)]
    bindings = tuple(mapper._ports.allocate("a", requests, PortTarget("172.30.0.2")))
    endpoint = Endpoint("net", "e", "a", "web", "172.30.0.2", 16, "", "", "", ports=bindings)
    net: Any = SimpleNamespace(endpoints={"a": endpoint}, publish=lambda *_, **__: None)
    mapper._withdraw((net,), "a", bindings)
    return net


def _allocate_each(n: int, first: int | None, refused: int = 0) -> object:
    """Allocate a port for each of many containers, then refuse ``refused`` requests for any."""
    binder: Any = _NoBinder()
    ports = PortAllocator(binder)
    for i in range(n):
        number = None if first is None else first + i
        try:
            ports.allocate(
                str(i), [PortRequest(80, "tcp", "127.0.0.1", number)], PortTarget("172.30.0.2")
            )
        except JaulaError:
            break  # the kernel's range leaves fewer
    for _ in range(refused):
        with pytest.raises(JaulaError):
            ports.allocate("more", [PortRequest(80, "tcp", "127.0.0.1")], PortTarget("172.30.0.2"))
    return ports


def _filtered(key: str, n: int, value: str) -> object:
    """Filter 1,000 containers by a query of the client."""
    words = ",".join(f'"{value.format(each)}"' for each in range(n))
    filters = Query(f'filters={{"{key}":[{words}]}}').filters()
    check_expressions(key, filters[key])
    record: Any = SimpleNamespace(
        id="f" * 64, name="web", status="running", mounts=(), body=SimpleNamespace(labels={})
    )
    return [ps_filters.matches(record, filters, str) for _ in range(1000)]


def _ancestors(n: int) -> object:
    """Find the containers of images that were built from as many others."""
    images: Any = [
        SimpleNamespace(id=str(i), layers=("base", str(i)), document=SimpleNamespace(history=["a"]))
        for i in range(n * 2)
    ]
    return built_from(images, images)


def _remove_volumes(n: int) -> object:
    """Remove volumes that no container has, beside a container with many."""
    volumes: Any = SimpleNamespace(remove=lambda name, **_: None)
    mounts = tuple(SimpleNamespace(type="volume", name=f"v{i}") for i in range(n * 4))
    containers: Any = (SimpleNamespace(id="a", record=SimpleNamespace(mounts=mounts)),)
    references = VolumeReferences(volumes, containers)

    async def remove() -> None:
        for i in range(n // 4):
            await references.remove(f"w{i}")

    return asyncio.run(remove())


CASES: dict[str, Work] = {
    "filter: alternatives in a loop": lambda n: has_match("(a|a)*b", "a" * n),
    "filter: loops in a loop": lambda n: has_match("(a+)+$", "a" * n + "b"),
    "filter: many loops": lambda n: has_match("a*" * 20 + "b", "a" * n),
    "filter: a long expression": lambda n: has_match("a?" * n + "b", "a" * 200),
    "filter: repeated groups": lambda n: has_match("((a{1,9}){1,9}){1,9}" * 4 + "$", "a" * n),
    "filter: labels": lambda n: has_labels({"a": "b"}, ["a=b"] * n * 10),
    "filter: values of names": lambda n: _filtered("name", n // 4, "a{}"),
    "filter: values beyond the bound": lambda n: _filtered("name", n * 2, "a{}"),
    "filter: expressions": lambda n: _filtered("name", n // 64, "a{}."),
    "filter: expressions beyond the bound": lambda n: _filtered("name", n // 4, "a{}."),
    "filter: values of ids": lambda n: _filtered("id", n // 4, "a{}"),
    "filter: values of volumes": lambda n: _filtered("volume", n // 4, "a{}"),
    "filter: a time": lambda n: parse_time("1" * n * 10 + "h"),
    "ports: a number": lambda n: parse_port("1" * n * 100),
    "ports: zeros": lambda n: parse_port("0" * n * 100 + "1/tcp"),
    "ports: a range": lambda n: parse_port_range("publish", "1-" + "6" * n * 100),
    "ports: of a request": lambda n: _create(
        Image="a", ExposedPorts={f"{1 + i % 65535}/tcp": {} for i in range(n)}
    ),
    "ports: all that are exposed": lambda n: _create(
        Image="a",
        ExposedPorts={f"{1 + i % 65535}/tcp": {} for i in range(n * 4)},
        HostConfig={"PublishAllPorts": True},
    ),
    "ports: bindings": lambda n: _create(
        Image="a",
        HostConfig={"PortBindings": {f"{1 + i}/tcp": [{"HostPort": "1"}] for i in range(n * 16)}},
    ),
    "ports: bindings of one port": lambda n: _create(
        Image="a", HostConfig={"PortBindings": {"80/tcp": [{"HostPort": "1-65535"}] * n * 4}}
    ),
    "ports: objects beyond the bound": lambda n: _create(
        Image="a", HostConfig={"PortBindings": {"80/tcp": [{}] * n * 16}}
    ),
    "ports: of an edit": lambda n: _edited_bindings([f"{1 + i}" for i in range(n * 4)]),
    "ports: of an edit, any number": lambda n: _edited_bindings([""] * n * 4),
    "ports: removed by an edit": lambda n: _unpublished(n * 4, "{}"),
    "ports: choices removed by an edit": lambda n: _unpublished(n * 4, ""),
    "labels: removed by an edit": lambda n: _edited(
        ContainerEdit(remove_labels=tuple(f"a{i}" for i in range(n * 4))),
        labels={f"a{i}": "" for i in range(n * 4)},
    ),
    "mounts: removed by an edit": lambda n: _edited(
        ContainerEdit(unmount=tuple(f"/a/{i}" for i in range(n))), mounts=n * 2
    ),
    "limits: of an update": lambda n: _updated(n * 4),
    "ports: withdrawn by an edit": lambda n: _withdraw(n * 4),
    "ports: a listen list": _unlisted_ports,
    "ports: of inspect": lambda n: _shown_ports(n * 48, 0),
    "ports: of inspect at one": lambda n: _shown_ports(0, n * 4),
    "ports: a choice of many": lambda n: _allocate(n * 4, 1, 65535),
    "ports: choices that overlap": lambda n: _allocate(n * 4, 1, 65535, 1),
    "ports: numbers": lambda n: _allocate(n * 4, 1, None, 1),
    "ports: of many containers": lambda n: _allocate_each(n * 4, 1),
    "ports: any of many containers": lambda n: _allocate_each(n, None),
    "ports: any when none is left": lambda n: _allocate_each(16383, 49153, n // 40),
    "create: environment": lambda n: _create(Image="a", Env=[f"A{i}=b" for i in range(n * 4)]),
    "create: labels": lambda n: _create(Image="a", Labels={f"a{i}": "b" for i in range(n * 4)}),
    "create: JSON depth": lambda n: _create_text(b'{"a":' * n + b"1" + b"}" * n),
    "create: lists of JSON": lambda n: _create_text(b"[" * n * 4 + b"]" * n * 4),
    "JSON: the place of an error": lambda n: json_syntax.syntax_error(b"[" * n * 10),
    "JSON: an escape": lambda n: json_syntax.syntax_error(b'"' + b"\\u0041" * n * 4),
    "cpus: ranges": lambda n: cpuset.parse(",".join(["0-8191"] * n * 2)),
    "cpus: numbers": lambda n: cpuset.parse(",".join(str(i % 8192) for i in range(n * 3))),
    "cpus: beyond the bound": lambda n: cpuset.parse("1," * n * 500),
    "log: braces of a tag": lambda n: log_config.expand("{{" * n * 10, {}),
    "log: fields of a tag": lambda n: log_config.expand("{{.ID}}" * n * 10, {".ID": "a"}),
    "log: the length of a tag": lambda n: log_config.requested_options(
        EngineConfig(), LogConfig(type="syslog", config={"tag": "{{" * n * 10})
    ),
    "log: names of labels": _selected_labels,
    "reference: components": lambda n: reference.parse("a/" * n * 4 + "a"),
    "reference: separators": lambda n: reference.parse("a" + "-" * n * 10),
    "reference: underscores": lambda n: reference.parse("a_" * n * 4 + "_"),
    "reference: a domain": lambda n: reference.parse("a-" * n * 4 + ".b/c"),
    "reference: labels of a domain": lambda n: reference.parse("a." * n * 4 + "_/c"),
    "reference: a tag": lambda n: reference.parse("a:" + "b" * n * 10),
    "platform": lambda n: parse_platform("linux/" * n * 4),
    "challenge: spaces": lambda n: www_authenticate.parse(["Bearer a=b" + " " * n + "="] * 8),
    "challenge: spaces and commas": lambda n: www_authenticate.parse(["Bearer a=b" + " ," * n] * 4),
    "challenge: a string without an end": lambda n: www_authenticate.parse(
        ['Bearer a="' + "\\" * n] * 8
    ),
    "challenge: parameters": lambda n: www_authenticate.parse(["Bearer " + "a=b," * (n // 2)] * 4),
    "ignore: stars": lambda n: Dockerignore(["*a" * 100 + "b"]).excludes_path("a" * n),
    "ignore: any depth": lambda n: Dockerignore(["**/a" * 100 + "b"]).excludes_path("a/" * n),
    "ignore: patterns": lambda n: Dockerignore([f"a{i}*b" for i in range(n)]).excludes_path("c/d"),
    "ignore: classes": lambda n: Dockerignore(["[a-z]" * 400]).excludes_path("a" * n),
    "wildcard: stars": lambda n: wildcard.paths(("*a" * 50 + "b",)).fullmatch("a" * n),
    "wildcard: any depth": lambda n: wildcard.paths(("**", "a", "**", "b"), deep=True).fullmatch(
        "a/" * n + "c"
    ),
    "kube: aliases": lambda n: kube_documents.load(
        b"a: &a [" + b"1," * 40 + b"]\nb: [" + b"*a," * n + b"]\n"
    ),
    "kube: aliases of aliases": lambda n: kube_documents.load(
        b"a0: &a0 [1,1]\n"
        + b"".join(b"a%d: &a%d [*a%d,*a%d]\n" % (i, i, i - 1, i - 1) for i in range(1, n // 100))
    ),
    "kube: depth": lambda n: kube_documents.load(b"a: " + b"[" * n * 10),
    "kube: anchors": lambda n: kube_documents.load(
        b"".join(b"a%d: &a%d 1\n" % (i, i) for i in range(n))
    ),
    "kube: a merge key": lambda n: kube_documents.load(b"<<: {a: 1}\n" * n),
    "toml: a dotted key": lambda n: toml.loads(b"a." * n * 4 + b"a = 1\n"),
    "toml: tables": lambda n: toml.loads(b"".join(b"[a%d]\n" % i for i in range(n))),
    "toml: arrays": lambda n: toml.loads(b"a = " + b"[" * n * 4),
    "toml: a number": lambda n: toml.loads(b"a = " + b"1" * n * 10 + b"\n"),
    "toml: quotes": lambda n: toml.loads(b'a = """' + b'\\"' * n * 4),
    "egress": lambda n: egress.parse(["10.0.0.0/8:1-65535"] * n),
    "listen": lambda n: listen.parse([f"tcp:{1 + i}" for i in range(n)]),
    "landlock": lambda n: landlock_ruleset.parse(["tcp-bind=1," * n + "on"]),
    "landlock: ports": lambda n: landlock_ruleset.parse(
        [f"tcp-bind={i % 65536}" for i in range(n * 4)]
    ),
    "landlock: paths beyond the bound": lambda n: landlock_ruleset.parse(
        [f"read=/a{i}" for i in range(n * 4)]
    ),
    "security options: labels": lambda n: security_opt.parse(["label=disable"] * n * 4),
    "security options: masks": lambda n: security_opt.parse([f"mask=/a{i}" for i in range(n * 4)]),
    "security options: unmasked paths": lambda n: security_opt.parse(
        [f"unmask=/a{i}" for i in range(n * 4)]
    ),
    "security options: system calls": lambda n: security_opt.parse(
        [f"seccomp-allow=a{i}" for i in range(n * 4)]
    ),
    "masked paths": lambda n: security_opt.resolve(
        HostConfig(masked_paths=tuple(f"/a{i}" for i in range(n * 4)))
    ),
    "mounts": lambda n: mount_spec.mount_requests(
        ContainerCreate(volumes={f"/a{i}": Empty() for i in range(n * 4)})
    ),
    "network: subnets": lambda n: check_pools(
        [Pool(subnet=f"10.{i // 256 % 256}.{i % 256}.0/24") for i in range(n)], (), ipv6=False
    ),
    "filters: ancestors": _ancestors,
    "images: names of one": lambda n: _by_manifest({f"a:{i}": "sha256:1" for i in range(n * 4)}),
    "volumes: removals": _remove_volumes,
    "landlock: paths": lambda n: landlock_ruleset.parse([f"read=/a{i}" for i in range(n)]),
    "signal": lambda n: signals.parse("1" * n * 100),
    "a size": lambda n: units.size("1" * n * 100 + "g"),
    "a duration": lambda n: units.nanoseconds("1h" * n * 4),
    "an LLB definition": lambda n: definition.remote_of(Definition(ops=[b"\x0a\x00"] * n)),
}


def _create_text(data: bytes) -> object:
    return decode(data, ContainerCreate)


def _cost(work: Work, size: int) -> float:
    began = time.process_time()
    try:
        work(size)
    except (JaulaError, ValueError, RecursionError, kube_documents.InvalidDocument):
        pass
    return time.process_time() - began


@pytest.mark.parametrize("name", CASES)
def test_work_grows_no_faster_than_its_bytes(name: str) -> None:
    work = CASES[name]
    _cost(work, 10)  # imports
    small = min(_cost(work, N // 4) for _ in range(2))
    large = min(_cost(work, N) for _ in range(2))
    assert large < max(small, _LEAST) * 10, (small, large)
    assert large < 1.0

"""Landlock's way from ``--security-opt`` into the spec."""

from __future__ import annotations

import pytest

from jaula.engine.containers.resolved_request import resolve
from jaula.engine.oci_spec import security_opt, start_spec
from jaula.engine.oci_spec.inputs import HostFacts, SpecInputs
from jaula.engine.userns.id_ranges import IdRange, mappings
from jaula.errors import InvalidRequest
from jaula.kernel.landlock import supported_rights
from jaula.spec.annotations import LANDLOCK_ANNOTATION, Ruleset, decode_ruleset
from jaula.spec.api_documents import ContainerCreate, HostConfig
from jaula.spec.runtime_spec import Spec
from jaula.state.container_records import ResolvedRequest


def spec(*options: str, abi: int = 7, **host: object) -> Spec:
    host |= {"security_opt": tuple(f"landlock={option}" for option in options)}
    body = ContainerCreate(
        image="busybox",
        cmd=("true",),
        host_config=HostConfig(**host),  # type: ignore[arg-type]
    )
    facts = HostFacts(kernel="6.12.0", landlock=abi)
    resolved = resolve(body)
    user = resolved.namespaces.user
    found = SpecInputs(
        container_id="c" * 64,
        cgroup_path="/jaula/c",
        hostname="c",
        host=facts,
        mappings=() if user.host else mappings(IdRange(1_000_000_000)),
        id_mapped=not user.host,
    )
    return start_spec.build(body, resolved, found, security_opt.decide(resolved, facts))


def rules(*options: str, abi: int = 7, **host: object) -> Ruleset | None:
    text = spec(*options, abi=abi, **host).annotations.get(LANDLOCK_ANNOTATION)
    return None if text is None else decode_ruleset(text)


@pytest.mark.parametrize("abi", range(2, 8))
def test_every_container_has_rules_by_default(abi: int) -> None:
    found = rules(abi=abi)
    assert found is not None
    assert found.handled_access_fs == supported_rights(abi).access_fs
    assert not found.joined


def test_annotations_of_the_user_stay() -> None:
    made = spec(annotations={"mine": "1"})
    assert made.annotations.keys() == {"mine", LANDLOCK_ANNOTATION}


@pytest.mark.parametrize(
    "host",
    [
        {"privileged": True},
        {"cap_add": ("sys_admin",)},
        {"cap_add": ("ALL",)},
        {"pid_mode": "host"},
        {"userns_mode": "host", "privileged": True},
    ],
)
def test_containers_that_landlock_would_break_have_no_rules(host: dict[str, object]) -> None:
    assert rules(**host) is None
    assert rules("on", **host) is not None


def test_a_read_only_root_has_its_writable_places() -> None:
    found = rules(readonly_rootfs=True, tmpfs={"/run": ""})
    assert found is not None
    paths = [rule.path for rule in found.paths]
    assert paths[0] == "/"
    assert {"/proc", "/dev", "/dev/pts", "/dev/shm"} <= set(paths)
    assert "/sys" not in paths


def test_ports_come_from_several_options() -> None:
    found = rules("tcp-bind=80", "tcp-connect=443,tcp-connect=5432")
    assert found is not None
    assert [(rule.port, rule.access) for rule in found.ports] == [(80, 1), (443, 2), (5432, 2)]
    assert found.joined


def request(**host: object) -> ResolvedRequest:
    return resolve(ContainerCreate(host_config=HostConfig(**host)))  # type: ignore[arg-type]


def check(abi: int = 7, **host: object) -> tuple[str, ...]:
    facts = HostFacts(kernel="6.12.0", landlock=abi)
    return security_opt.check(HostConfig(**host), request(**host), facts)  # type: ignore[arg-type]


def test_options_without_effect_are_refused_at_create() -> None:
    for abi, option in ((0, "on"), (3, "tcp-bind=80"), (5, "scope-signal")):
        with pytest.raises(InvalidRequest):
            check(abi, security_opt=(f"landlock={option}",))
        assert check(7, security_opt=(f"landlock={option}",)) == ()


def test_another_runtime_is_not_trusted_to_obey() -> None:
    facts = HostFacts(kernel="6.12.0", landlock=7)
    assert security_opt.decide(request(), facts, external=True).landlock.options == ("off",)
    host = HostConfig(runtime="crun", security_opt=("landlock=tcp-bind=80",))
    with pytest.raises(InvalidRequest, match="runtime"):
        security_opt.check(host, resolve(ContainerCreate(host_config=host)), facts)


def test_an_annotation_of_the_client_with_the_engines_prefix_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="reserved for the engine"):
        check(annotations={LANDLOCK_ANNOTATION: '{"handledAccessFs":1}'})

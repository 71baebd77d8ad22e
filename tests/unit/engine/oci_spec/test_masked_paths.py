"""Masked and read-only paths, and options of /proc, of a request."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaula.engine import relaxations
from jaula.engine.containers.resolved_request import resolve
from jaula.engine.oci_spec import security_opt
from jaula.engine.oci_spec.inputs import HostFacts
from jaula.engine.oci_spec.security_opt import split_paths
from jaula.errors import InvalidRequest
from jaula.security.masked_paths import MASKED_PATHS, READONLY_PATHS
from jaula.spec.api_documents import ContainerCreate, HostConfig
from jaula.state.container_records import ResolvedRequest


def request(**host: object) -> ResolvedRequest:
    return resolve(ContainerCreate(host_config=HostConfig(**host)))  # type: ignore[arg-type]


def covered(*options: str, **host: object) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return security_opt.covered_paths(request(security_opt=options, **host).security)


def test_a_path_is_masked_and_unmasked() -> None:
    masked, readonly = covered("mask=/proc/version:/etc/ssl", "unmask=/proc/acpi:/proc/sys")
    assert set(masked) == set(MASKED_PATHS) - {"/proc/acpi"} | {"/proc/version", "/etc/ssl"}
    assert set(readonly) == set(READONLY_PATHS) - {"/proc/sys"}


def test_all_and_patterns() -> None:
    assert covered("unmask=ALL") == ((), ())
    assert covered("unmask=all", "mask=/proc/kcore") == (("/proc/kcore",), ())
    masked, readonly = covered("unmask=/proc/*")
    assert set(masked) == {path for path in MASKED_PATHS if not path.startswith("/proc/")}
    assert readonly == ()


def test_mask_wins_and_applies_to_privileged_containers() -> None:
    assert "/proc/kcore" in covered("mask=/proc/kcore", "unmask=/proc/kcore")[0]
    assert covered("mask=/proc/kcore", privileged=True) == (("/proc/kcore",), ())
    assert covered("mask=/proc/kcore", "systempaths=unconfined") == (("/proc/kcore",), ())


def test_mask_and_unmask_change_the_requests_own_lists() -> None:
    own = {"masked_paths": ("/a", "/b"), "readonly_paths": ()}
    assert covered("unmask=/a", "mask=/c", **own) == (("/b", "/c"), ())


@pytest.mark.parametrize(
    "option",
    [
        "mask=",
        "mask=proc",
        "mask=/proc/../etc",
        "mask=/",
        "mask=/proc//x",
        "mask=/proc:",
        "mask=ALL",
        "mask=/a\0b",
        "unmask=/etc/passwd",
        "unmask=/proc/*/x",
        "unmask=sys",
        "mask=" + ":".join(["/x"] * 1100),
        "proc-opts=hidepid",
        "proc-opts=hidepid=3",
        "proc-opts=subset=all",
        "proc-opts=subset=pid,subset=pid",
        "proc-opts=gid=x",
        "proc-opts=rw",
        "proc-opts=hidepid=2,,subset=pid",
        "proc-opts=hidepid=2\0",
    ],
)
def test_an_invalid_option_is_refused(option: str) -> None:
    with pytest.raises(InvalidRequest):
        security_opt.decide(request(security_opt=(option,)), HostFacts())


@given(st.text(max_size=60))
def test_any_value_is_parsed_or_refused(text: str) -> None:
    for name in ("mask", "unmask"):
        try:
            paths = split_paths(name, text)
        except InvalidRequest:
            continue
        assert all(path.startswith("/") or path == "ALL" for path in paths)


def test_options_of_proc_arrive_in_the_spec() -> None:
    requested = request(security_opt=("proc-opts=hidepid=2,subset=pid,gid=5",))
    assert security_opt.decide(requested, HostFacts()).proc == ("hidepid=2", "subset=pid", "gid=5")


def test_the_hosts_proc_has_no_options() -> None:
    with pytest.raises(InvalidRequest, match="--pid=host"):
        security_opt.decide(
            request(security_opt=("proc-opts=hidepid=2",), pid_mode="host"), HostFacts()
        )


def test_only_unmasking_is_a_relaxation() -> None:
    def of(*options: str) -> list[str]:
        found = relaxations.of_request(ContainerCreate(), request(security_opt=options))
        return [str(ask) for ask in found]

    assert of("mask=/x", "proc-opts=hidepid=2") == []
    assert of("unmask=/proc/acpi") == ["security-option=unmask=/proc/acpi"]

"""The profiles ``jaula`` and ``nsa-k8s``: each control, with evidence for its outcomes."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from jaula.features.audit.benchmark import isolation, nsa
from jaula.features.audit.benchmark.catalog import IDS, PROFILES
from jaula.features.audit.benchmark.container_state import (
    ContainerProcess,
    ContainerState,
    is_kubelet_path,
    is_token,
)
from jaula.features.audit.benchmark.control import Kind, State
from jaula.features.audit.benchmark.engine import EngineSettings, EngineState
from jaula.features.audit.benchmark.host import HostState, Layout
from jaula.features.verify.checks import TABLE
from jaula.features.verify.model.result import Result, Verdict

POD = ContainerState(
    name="default/p/c", pod="default/p", groups=frozenset({1000}), environment=("A=b",)
)
NSA = {control.id: control for control in nsa.PROFILE.controls}
JAULA = {control.id: control for control in isolation.PROFILE.controls}
SECCOMP = next(check.info for check in TABLE if check.info.id == "seccomp")


def row(verdict: Verdict, check: str = "seccomp") -> Result:
    return Result("seccomp", "seccomp", "filter", "off", "/proc/1/status", verdict, check)


def test_ids_are_unique_in_a_profile_and_sections_are_named() -> None:
    for profile in PROFILES.values():
        ids = [control.id for control in profile.controls]
        assert len(set(ids)) == len(ids)
        assert {control.section for control in profile.controls} == set(profile.sections)
        assert set(ids) <= IDS
        assert all(control.judges and control.level in (1, 2) for control in profile.controls)


@pytest.mark.parametrize(
    ("id", "changes"),
    [
        ("non-root", {"init": ContainerProcess(1, "init", 0)}),
        ("non-root", {"others": (ContainerProcess(2, "sh", 0),)}),
        ("root-group", {"groups": frozenset({0, 1000})}),
        ("immutable-root", {"read_only": False}),
        ("not-privileged", {"init": ContainerProcess(1, "i", 1, (1 << 41) - 1), "masked": False}),
        ("privilege-escalation", {"no_new_privs": False}),
        ("dropped-capabilities", {"init": ContainerProcess(1, "i", 1, 1)}),
        ("host-pid", {"host_namespaces": frozenset({"pid"})}),
        ("host-ipc", {"host_namespaces": frozenset({"ipc"})}),
        ("host-network", {"host_namespaces": frozenset({"net"})}),
        ("user-namespace", {"host_namespaces": frozenset({"user"})}),
        ("host-paths", {"host_paths": (("/srv", "/srv"),)}),
        ("runtime-socket", {"control_sockets": ("/docker.sock",)}),
        ("host-devices", {"devices": ("/dev/fuse",)}),
        ("pod-seccomp", {"seccomp": 0}),
        ("apparmor", {"profile": "unconfined"}),
        ("selinux", {"label": "a:b:spc_t:s0"}),
        ("token-mount", {"tokens": ("/var/run/secrets/kubernetes.io/serviceaccount",)}),
        ("secret-variables", {"environment": ("DB_PASSWORD=x",)}),
        ("pod-memory", {"memory": None}),
        ("pod-cpu", {"cpu": ""}),
        ("pod-processes", {"pids": None}),
    ],
)
def test_a_weakened_pod_fails_its_control(id: str, changes: dict[str, Any]) -> None:
    judge = NSA[id].judges[Kind.CONTAINER]
    assert judge(POD).state in (State.PASS, State.NOT_APPLICABLE)
    judgement = judge(msgspec.structs.replace(POD, **changes))
    assert judgement.state is State.FAIL
    assert judgement.remediation and "jaula" not in judgement.remediation
    assert not judgement.remediation.startswith("start it with")


def test_a_value_of_a_variable_is_not_shown() -> None:
    state = msgspec.structs.replace(POD, environment=("DB_PASSWORD=hunter2",))
    assert "hunter2" not in NSA["secret-variables"].judges[Kind.CONTAINER](state).evidence


def test_the_mounts_of_the_kubelet_are_not_paths_of_the_host() -> None:
    uid = "0f1e2d3c-1111-2222-3333-444455556666"
    volumes = f"/var/lib/kubelet/pods/{uid}/volumes"
    assert is_kubelet_path(f"{volumes}/kubernetes.io~empty-dir/cache")
    assert is_kubelet_path(f"/data/k/pods/{uid}/etc-hosts")
    assert not is_kubelet_path("/srv/pods/data") and not is_kubelet_path("/etc")
    assert is_token(f"{volumes}/kubernetes.io~projected/kube-api-access-x7", "/anywhere")
    assert is_token("/x", "/var/run/secrets/kubernetes.io/serviceaccount")
    assert not is_token("/x", "/srv")


@pytest.mark.parametrize(
    ("verdicts", "state"),
    [
        ((Verdict.HOLDS, Verdict.HOLDS), State.PASS),
        ((Verdict.HOLDS, Verdict.RELAXED), State.FAIL),
        ((Verdict.UNKNOWN, Verdict.RELAXED), State.UNKNOWN),
        ((Verdict.UNKNOWN, Verdict.FAILS), State.FAIL),
        ((), State.NOT_APPLICABLE),
    ],
)
def test_rows_of_verify_are_judged(verdicts: tuple[Verdict, ...], state: State) -> None:
    rows = [row(verdict) for verdict in verdicts]
    assert isolation.judge_rows(rows, SECCOMP).state is state
    container = msgspec.structs.replace(POD, rows=(*rows, row(Verdict.FAILS, "mounts")))
    assert JAULA["seccomp"].judges[Kind.CONTAINER](container).state is state


def test_every_check_of_verify_is_a_control() -> None:
    assert {check.info.id for check in TABLE} <= set(JAULA)


def test_a_weak_host_is_not_a_relaxed_request() -> None:
    id = "host-settings"
    state = HostState(Layout("/r", "/run", "/s", ""), rows=(row(Verdict.RELAXED, id),))
    judgement = JAULA[id].judges[Kind.HOST](state)
    assert judgement.state is State.FAIL and "request" not in judgement.evidence


@pytest.mark.parametrize(
    ("id", "changes", "state"),
    [
        ("audit-log", {"audit_log": ()}, State.PASS),
        ("audit-log", {"audit_log": ("line 3 was changed",)}, State.FAIL),
        ("audit-log", {}, State.UNKNOWN),
        ("image-signatures", {"image_policy": "accept"}, State.FAIL),
        ("image-signatures", {"image_policy": "signed"}, State.PASS),
        ("image-signatures", {"image_policy": ""}, State.UNKNOWN),
        ("default-profile", {}, State.PASS),
        ("default-profile", {"settings": EngineSettings(default_profile="docker")}, State.FAIL),
        ("default-profile", {"settings": None}, State.UNKNOWN),
        ("authorization", {}, State.PASS),
    ],
)
def test_the_engine_is_judged(id: str, changes: dict[str, Any], state: State) -> None:
    engine = msgspec.structs.replace(EngineState({}, {}), **changes)
    assert JAULA[id].judges[Kind.ENGINE](engine).state is state

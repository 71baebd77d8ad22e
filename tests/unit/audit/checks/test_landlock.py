"""Landlock's row: the spec compared with the flags."""

from __future__ import annotations

import pytest
from msgspec import structs

from jaula.features.verify.checks import landlock
from jaula.features.verify.model.container import AuditedContainer
from jaula.features.verify.model.result import Verdict
from jaula.security import capability_sets
from jaula.security.landlock_ruleset import Landlock
from jaula.security.lsm.interface import LabelRequest
from jaula.security.seccomp import seccomp_filter
from jaula.spec.runtime_spec import Linux, Namespace, Process, Spec


@pytest.fixture(autouse=True)
def version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Landlock, "from_host", lambda: Landlock(7))


def spec(*options: str, add: tuple[str, ...] = ()) -> Spec:
    sets = capability_sets.resolve(add=add)
    bare = Spec(
        process=Process(cwd="/", capabilities=sets),
        linux=Linux(namespaces=(Namespace("pid"),), seccomp=seccomp_filter.default_profile(sets)),
    )
    return Landlock(7).confine(bare, LabelRequest(options))


def verdict(given: Spec, *options: str, **host: object) -> tuple[Verdict, str]:
    words = [f"landlock={option}" for option in options]
    document = {"State": {"Pid": 1}, "HostConfig": {"SecurityOpt": words, **host}}
    (row,) = landlock.check(AuditedContainer(document, given))
    return row.verdict, row.requested


def test_the_default_domain_passes() -> None:
    assert verdict(spec()) == (Verdict.HOLDS, "/ rwx")


def test_a_spec_without_its_rules_fails() -> None:
    stripped = structs.replace(spec(), annotations={})
    assert verdict(stripped)[0] is Verdict.FAILS
    assert verdict(stripped, "tcp-bind=80")[0] is Verdict.FAILS


def test_weaker_rules_than_requested_fail() -> None:
    assert verdict(spec(), "tcp-bind=80")[0] is Verdict.FAILS
    assert verdict(spec("tcp-bind=80"), "tcp-bind=80")[0] is Verdict.HOLDS


def test_a_relaxation_names_its_reason() -> None:
    assert verdict(spec("off"), "off") == (Verdict.RELAXED, "none (landlock=off)")
    given = spec(add=("sys_admin",))
    assert verdict(given) == (Verdict.RELAXED, "none (CAP_SYS_ADMIN may mount)")


def test_an_external_runtime_is_a_relaxation() -> None:
    assert verdict(spec("off"), Runtime="runc") == (Verdict.RELAXED, "none (--runtime runc)")


def test_a_kernel_without_landlock_has_no_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Landlock, "from_host", lambda: Landlock(0))
    bare = structs.replace(spec(), annotations={})
    assert verdict(bare) == (Verdict.HOLDS, "none (the kernel has no Landlock)")

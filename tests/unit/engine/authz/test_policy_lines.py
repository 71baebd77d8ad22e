"""The line of the policy that an error names is valid, and allows what was denied."""

from __future__ import annotations

import pytest

from jaula.engine.authz import authorization_policy, policy_file
from jaula.engine.authz.authorization_policy import AccessLevel, Caller, PolicyRule, privilege_line
from jaula.engine.authz.request_ceilings import UNLIMITED, Bound, Demand
from jaula.engine.relaxations import Privilege, Relaxation

FILE = "/etc/jaula/policy.toml"


def rule(*lines: str) -> PolicyRule:
    text = "\n".join(('[user.5]\naccess = "run"', *lines))
    parsed = policy_file.parse(text.encode(), user=lambda name: None, group=lambda name: 7)
    return parsed.rule_of(Caller(uid=5))


@pytest.mark.parametrize(
    "given", [(), ('host-mounts = ["/srv:ro"]', 'capabilities = ["SYS_TIME"]')]
)
@pytest.mark.parametrize(
    "privilege",
    [
        Privilege(Relaxation.HOST_MOUNT, "/etc", writable=False),
        Privilege(Relaxation.HOST_MOUNT, "/var/log/pods/x"),
        Privilege(Relaxation.HOST_NAMESPACE, "user"),
        Privilege(Relaxation.DEVICE, "/dev/kmsg"),
        Privilege(Relaxation.DEVICE, "c 10:229 rwm"),
        Privilege(Relaxation.CAPABILITY, "SYS_ADMIN"),
        Privilege(Relaxation.PRIVILEGED),
        Privilege(Relaxation.SECURITY_OPTION, 'label=type:"x"'),
        Privilege(Relaxation.CGROUP_PARENT, "/kubepods"),
        Privilege(Relaxation.OOM_SCORE, "-5"),
        Privilege(Relaxation.ANNOTATION, "org.systemd.property.X"),
        Privilege(Relaxation.NETWORK_OPTION, "subnet=10.0.0.0/8"),
        Privilege(Relaxation.LOG_ADDRESS, "unix:///run/vector.sock"),
    ],
    ids=str,
)
def test_the_line_allows_a_privilege(given: tuple[str, ...], privilege: Privilege) -> None:
    before = rule(*given)
    assert not before.allows(privilege)
    line = privilege_line(privilege, before)
    key = line.partition(" = ")[0]
    after = rule(*(other for other in given if not other.startswith(f"{key} = ")), line)
    assert after.allows(privilege)
    assert after.covers(before)


@pytest.mark.parametrize(
    "demand",
    [
        Demand(Bound.MEMORY, 2 << 30),
        Demand(Bound.MEMORY, (2 << 30) + 1),
        Demand(Bound.MEMORY, UNLIMITED),
        Demand(Bound.MEMORY_SWAP, (4 << 30) + 1),
        Demand(Bound.MEMORY_SWAP, UNLIMITED),
        Demand(Bound.PIDS, 100),
        Demand(Bound.PIDS, UNLIMITED),
        Demand(Bound.SHM_SIZE, 128 << 20),
        Demand(Bound.ULIMIT, 5, "rtprio"),
        Demand(Bound.ULIMIT, UNLIMITED, "rtprio"),
        Demand(Bound.OOM_KILL_DISABLE),
        Demand(Bound.HOST_PORT, 80, first=80),
        Demand(Bound.HOST_PORT, 90, first=80),
    ],
    ids=str,
)
def test_the_line_allows_a_demand(demand: Demand) -> None:
    low = rule('max-memory = "1m"', "max-pids = 1", 'max-shm-size = "1m"')
    assert not low.ceilings.allow(demand)
    assert rule(low.ceilings.line(demand)).ceilings.allow(demand)


@pytest.mark.parametrize(
    ("caller", "name", "heading"),
    [
        (Caller(uid=5, name="bob"), "[default]", "[user.bob]"),
        (Caller(uid=5), "[default]", "[user.5]"),
        (Caller(uid=5, name="a.b"), "[group.docker] (built in)", '[user."a.b"]'),
        (Caller(uid=5, name="bob"), "[group.dev]", "[group.dev]"),
        (Caller(uid=5, name="bob"), "[group.dev] + [group.ops]", "[group.dev]"),
        (Caller(uid=0, name="root"), "[user.root]", "[user.root]"),
        (Caller(certificate="x y"), "[default]", '[certificate."x y"]'),
        (Caller(), "[anonymous]", "[anonymous]"),
        (Caller(container="0" * 64, entry="traefik"), "[container.traefik]",
         '[container."traefik"]'),
    ],
)  # fmt: skip
def test_the_line_is_below_the_rule_of_the_caller(caller: Caller, name: str, heading: str) -> None:
    error = authorization_policy.denial(
        caller, PolicyRule(name=name, access=AccessLevel.RUN), "run", "ask", "x = 1", FILE
    )
    assert f"ask; the line x = 1 below {heading} in {FILE} allows it" in str(error)


def test_a_long_list_is_not_repeated() -> None:
    many = PolicyRule(name="[user.5]", capabilities=frozenset(f"CAPABILITY_{n}" for n in range(40)))
    line = privilege_line(Privilege(Relaxation.CAPABILITY, "SYS_ADMIN"), many)
    assert line == 'capabilities = [..., "SYS_ADMIN"]'

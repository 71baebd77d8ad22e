"""User-defined networks: verify expects the rules of their options."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import pytest

from harness import containers
from harness.audits import Audited
from harness.engine import PrivateEngine
from jaula.network.firewall import bridge_rules

ICC = "com.docker.network.bridge.enable_icc=false"
MASQUERADE = "com.docker.network.bridge.enable_ip_masquerade=false"

OPTIONS: dict[str, tuple[str, ...]] = {
    "plain": (),
    "internal": ("--internal",),
    "ipv6": ("--ipv6",),
    "ipv6 alone": ("--ipv6", "--ipv4=false"),
    "without icc": ("-o", ICC),
    "without masquerade": ("-o", MASQUERADE),
    "internal without icc": ("--internal", "-o", ICC),
}


@pytest.fixture(params=OPTIONS)
def network(engine: PrivateEngine, request: pytest.FixtureRequest) -> Iterator[str]:
    name = containers.unique("net")
    done = engine.cli("jaula", "network", "create", *OPTIONS[request.param], name)
    assert done.returncode == 0, done.stderr
    try:
        yield name
    finally:
        engine.cli("jaula", "network", "rm", name)


def rows(engine: PrivateEngine, name: str) -> dict[str, dict[str, str]]:
    done = engine.cli("jaula", "verify", "--format", "json", name)
    return {row["id"]: row for row in json.loads(done.stdout)}


def bridge(engine: PrivateEngine, network: str) -> str:
    """Return the bridge of a network, which is in the row of its rules."""
    document = engine.request("GET", f"/networks/{network}").json()
    named = (document.get("Options") or {}).get("com.docker.network.bridge.name")
    return str(named or f"br-{document['Id'][:12]}")


def test_rules_follow_the_options_and_a_deleted_rule_fails(
    engine: PrivateEngine, busybox: str, network: str
) -> None:
    with containers.running(engine, busybox, flags=("--network", network)) as name:
        result = rows(engine, name)
        wrong = {key: row for key, row in result.items() if row["verdict"] != "holds"}
        assert wrong == {}
        assert {"firewall", "interfaces", "addresses", "ipv6"} <= set(result)
        table = bridge_rules.table_name(bridge(engine, network))
        flush = ["nft", "flush", "chain", "ip", table, "guard"]
        subprocess.run(flush, check=True, timeout=10)
        result = rows(engine, name)
    assert {key for key, row in result.items() if row["verdict"] == "FAILS"} == {"firewall"}
    assert "missing in ip a rule of guard" in result["firewall"]["effective"]


def test_an_internal_network_with_open_rules_fails(engine: PrivateEngine, busybox: str) -> None:
    """Replace the rules of an internal network by those of an open one."""
    name = containers.unique("net")
    assert engine.cli("jaula", "network", "create", "--internal", name).returncode == 0
    try:
        with containers.running(engine, busybox, flags=("--network", name)) as container:
            table = bridge_rules.table_name(bridge(engine, name))
            rule = ["nft", "insert", "rule", "ip", table, "forward", "accept"]
            subprocess.run(rule, check=True, timeout=10)
            result = rows(engine, container)
    finally:
        engine.cli("jaula", "network", "rm", name)
    assert result["firewall"]["verdict"] == "FAILS"
    assert "not the engine's: ip a rule of forward" in result["firewall"]["effective"]


def test_a_container_that_was_disconnected_from_its_only_network_passes(
    engine: PrivateEngine, busybox: str
) -> None:
    with containers.running(engine, busybox) as name:
        engine.cli("jaula", "network", "disconnect", "bridge", name)
        audited = Audited(engine, name)
        assert audited.failing() == {}, audited.explain()
        audited.enter("n", "ip", "link", "add", "sneak", "type", "bridge")
        assert set(audited.failing()) == {"interfaces"}

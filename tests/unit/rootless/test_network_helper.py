"""The commands of pasta and slirp4netns, and the systemd scope."""

from __future__ import annotations

from pathlib import Path

import pytest

from jaula import cgroups
from jaula.rootless import holder_state, network_helper, systemd_scope
from jaula.rootless.network_helper import Namespaces
from jaula.rootless.port_driver import forward_for
from jaula.rootless.port_protocol import Forward
from jaula.spec.endpoint_record import PublishedPort

SPACES = Namespaces("/proc/7/ns/user", "/proc/7/ns/net")


def test_pasta_forwards_no_ports_and_hides_the_hosts_loopback() -> None:
    words = network_helper.pasta_command("/usr/bin/pasta", SPACES, "/run/p.pid")
    for flag in ("-t", "-u", "-T", "-U"):
        assert words[words.index(flag) + 1] == "none"
    assert "--no-map-gw" in words
    assert words[words.index("--netns") + 1] == SPACES.net
    assert words[words.index("--userns") + 1] == SPACES.user


def test_slirp4netns_hides_the_hosts_loopback_and_exits_with_the_holder() -> None:
    words = network_helper.slirp4netns_command("/usr/bin/slirp4netns", SPACES, 5, 6)
    assert "--disable-host-loopback" in words
    assert "--exit-fd=6" in words
    assert words[-2:] == [SPACES.net, network_helper.INTERFACE]


def test_name_servers_on_loopback_are_replaced_by_the_helper() -> None:
    host = "# by somebody\nnameserver 127.0.0.53\nnameserver ::1\nnameserver 9.9.9.9\nsearch lan\n"
    assert holder_state.resolv_conf(host) == (
        "# by somebody\nnameserver 10.0.2.3\nnameserver 9.9.9.9\nsearch lan\n"
    )


def test_without_a_tun_device_no_program_is_started(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(network_helper, "TUN", f"{tmp_path}/none")
    joined = network_helper.start(SPACES, str(tmp_path), 0, lambda name: f"/nowhere/{name}")
    assert joined.name == ""
    assert "cannot be opened" in joined.reason


def test_every_missing_helper_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(network_helper, "TUN", "/dev/null")
    joined = network_helper.start(SPACES, str(tmp_path), 0, lambda _: None)
    assert joined == holder_state.NetworkHelper(
        "", "pasta is not installed; slirp4netns is not installed"
    )


def test_a_holder_has_a_unique_scope() -> None:
    assert systemd_scope.unit_name(7, "100") == "jaula-7-100.scope"
    assert systemd_scope.unit_name(7, "100") != systemd_scope.unit_name(7, "200")


def test_only_an_engine_leaf_in_a_writable_tree_is_delegated(tmp_path: Path) -> None:
    tree = tmp_path
    (tree / "app.slice/jaula.scope").mkdir(parents=True)
    (tree / "app.slice/jaula.scope/cgroup.subtree_control").touch()
    result = cgroups.delegated_base(str(tree), "/app.slice/jaula.scope/engine")
    assert result == "/app.slice/jaula.scope"
    assert cgroups.delegated_base(str(tree), "/app.slice/jaula.scope") is None
    assert cgroups.delegated_base(str(tree), "/other.scope/engine") is None


def test_a_published_port_is_forwarded_to_the_containers_address() -> None:
    port = PublishedPort(80, "tcp", "0.0.0.0", 8080)
    assert forward_for(port, "172.30.0.2") == Forward("tcp", "0.0.0.0", 8080, "172.30.0.2", 80)

"""``daemon.json``: Docker's keys, clear errors, hostile input."""

from __future__ import annotations

import json
import re
import string
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.engine import PROJECT
from jaula.cli import command_parser, daemon
from jaula.config import EngineConfig, RuntimeConfig
from jaula.daemon.config import daemon_json, registry_keys
from jaula.errors import InvalidRequest


def read(document: Any) -> dict[str, object]:
    return daemon_json.parse(json.dumps(document).encode())[0]


def config(*words: str) -> EngineConfig:
    return daemon.read_config(command_parser.parse(daemon.COMMAND, words))


@pytest.mark.parametrize("empty", [b"", b"  \n", b"{}", b"\xef\xbb\xbf{}"])
def test_an_empty_file_sets_nothing(empty: bytes) -> None:
    assert daemon_json.parse(empty) == ({}, {})


def test_lines_that_begin_with_slashes_are_comments() -> None:
    text = b'// first\n{\n\t// "debug": true,\n  "registry-mirrors": ["https://a.example"]\n}\n//'
    fields, _ = daemon_json.parse(text)
    assert fields == daemon_json.parse(b'{"registry-mirrors": ["https://a.example"]}')[0]


@pytest.mark.parametrize("text", [b"{} // x", b"/ {}", b'{"a": 1 // x\n}'])
def test_slashes_elsewhere_are_not_a_comment(text: bytes) -> None:
    with pytest.raises(InvalidRequest, match="not a valid JSON document"):
        daemon_json.parse(text)


def test_an_error_after_a_comment_names_its_line() -> None:
    with pytest.raises(InvalidRequest, match="line 3 column"):
        daemon_json.parse(b"// one\n// two\n{x}")


def test_every_setting_of_the_packaged_file_is_valid() -> None:
    text = (PROJECT / "packaging/etc/daemon.json").read_text()
    assert daemon_json.parse(text.encode())[0] == read({"group": "jaula"})
    settings = re.sub(r'^    // (?=")', "    ", text, flags=re.MULTILINE)
    assert len(daemon_json.parse(settings.encode())[0]) > 10


def test_dockers_keys_are_supported() -> None:
    result = read(
        {
            "data-root": "/srv/jaula",
            "exec-root": "/run/other",
            "hosts": ["unix:///run/other.sock"],
            "group": "docker",
            "bip": "10.9.0.1/24",
            "default-address-pools": [
                {"base": "10.0.0.0/12", "size": 20},
                {"base": "192.168.0.0/24"},
            ],
            "storage-driver": "overlay2",
            "log-driver": "json-file",
            "log-opts": {"max-size": "10m", "max-file": "5"},
            "cgroup-parent": "mine",
            "debug": True,
            "default-ulimits": {"nofile": {"Name": "nofile", "Soft": 10, "Hard": 20}},
            "runtimes": {"runc": {"path": "runc"}, "sb": {"path": "/r", "runtimeArgs": ["--x"]}},
            "default-runtime": "runc",
            "default-network-opts": {"bridge": {"com.docker.network.driver.mtu": "1400"}},
        }
    )
    assert result == {
        "root": "/srv/jaula",
        "run": "/run/other",
        "hosts": ("unix:///run/other.sock",),
        "socket_group": "docker",
        "bridge_subnet": "10.9.0.0/24",
        "address_pool": "10.0.0.0/12@20,192.168.0.0/24@24",
        "storage_driver": "overlay2",
        "log_driver": "json-file",
        "log_opt": ("max-size=10m", "max-file=5"),
        "cgroup_parent": "mine",
        "debug": True,
        "nofile": (10, 20),
        "runtimes": (RuntimeConfig("runc", "runc"), RuntimeConfig("sb", "/r", ("--x",))),
        "default_runtime": "runc",
        "default_network_opt": ("bridge=com.docker.network.driver.mtu=1400",),
    }


def test_unknown_keys_are_named_all_at_once() -> None:
    with pytest.raises(InvalidRequest, match="any configuration option: features, insecure"):
        read({"insecure": 1, "features": {}, "debug": True})


@pytest.mark.parametrize(
    "document",
    [
        {"debug": "yes"},
        {"debug": 1},
        {"data-root": ""},
        {"data-root": 5},
        {"data-root": "a\0b"},
        {"hosts": "unix:///x"},
        {"hosts": []},
        {"hosts": [5]},
        {"tlsverify": "yes"},
        {"tlscacert": ""},
        {"bip": "10.9.0.0/24"},
        {"bip": "10.9.0.7/24"},
        {"bip": "10.9.0.1"},
        {"bip": "fe80::1/64"},
        {"default-address-pools": []},
        {"default-address-pools": [{}]},
        {"default-address-pools": [{"base": "10.0.0.1/8"}]},
        {"default-address-pools": [{"base": "10.0.0.0/8", "size": 31}]},
        {"default-address-pools": [{"base": "10.0.0.0/8", "size": 7}]},
        {"publish-past-firewall": "yes"},
        {"ipv6": 1},
        {"default-network-opts": {"macvlan": {}}},
        {"default-network-opts": {"bridge": {"a": 1}}},
        {"ip": 7},
        {"default-address-pools": [{"base": "10.0.0.0/8", "more": 1}]},
        {"log-opts": {"max-size": 10}},
        {"log-opts": ["max-size=10m"]},
        {"default-ulimits": {"nproc": {"Hard": 1}}},
        {"default-ulimits": {"nofile": {"Soft": 1}}},
        {"default-ulimits": {"nofile": {"Hard": 1, "Soft": 2}}},
        {"default-ulimits": {"nofile": {"Hard": -1}}},
        {"default-ulimits": {"nofile": {"Hard": True}}},
        {"runtimes": []},
        {"runtimes": {"x": "runc"}},
        {"runtimes": {"x": {}}},
        {"runtimes": {"x": {"path": ""}}},
        {"runtimes": {"x": {"path": "/r", "runtimeArgs": "--x"}}},
        {"runtimes": {"x": {"path": "/r", "runtimeType": "io.containerd.runsc.v1"}}},
        {"runtimes": {"": {"path": "/r"}}},
        {"runtimes": {"../x": {"path": "/r"}}},
        {"runtimes": {"x" * 65: {"path": "/r"}}},
        {"subid-start": -1},
        {"subid-start": 1.5},
        {"subid-start": 1 << 70},
        [],
        "text",
        None,
    ],
)
def test_an_invalid_value_is_refused_with_its_key(document: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read(document)
    if isinstance(document, dict):
        assert next(iter(document)) in caught.value.message or "runtime" in caught.value.message
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "data",
    [
        b"{",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"debug": true, "debug": false}',
        b'{"debug": NaN}',
        b"{} {}",
        b" " * (daemon_json.MAX_SIZE + 1),
        b'{"a":' * 5000,
    ],
)
def test_hostile_bytes_are_one_clear_error(data: bytes) -> None:
    with pytest.raises(InvalidRequest):
        daemon_json.parse(data)


@given(st.binary(max_size=200))
def test_any_bytes_are_parsed_or_refused(data: bytes) -> None:
    try:
        daemon_json.parse(data)
    except InvalidRequest:
        pass


_plain = st.none() | st.booleans() | st.integers() | st.text(string.printable, max_size=8)
_names = st.sampled_from(["base", "size", "nofile", "Hard", "Soft", "path", "max-size", "x"])
_value = _plain | st.lists(_plain, max_size=2) | st.dictionaries(_names, _plain, max_size=3)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(daemon_json.SETTINGS)), _value, max_size=4))
def test_any_values_are_parsed_or_refused(document: dict[str, Any]) -> None:
    try:
        read(document)
    except InvalidRequest:
        pass


def test_every_setting_is_a_flag_of_the_daemon() -> None:
    known = {flag.name for flag in daemon.FLAGS}
    for setting in daemon_json.SETTINGS.values():
        assert set(setting.flags) <= known


def test_file_and_flags_are_merged(tmp_path: Path) -> None:
    path = tmp_path / "daemon.json"
    path.write_text('{"data-root": "/srv/j", "runtimes": {"runc": {"path": "runc"}}}')
    result = config("--config-file", str(path), "--run", "/run/j", "--default-runtime", "runc")
    assert str(result.paths.root) == "/srv/j"
    assert str(result.socket) == "/run/j/jaula.sock"
    assert result.default_runtime == "runc"


def test_a_setting_in_both_places_is_refused_as_dockerd_does(tmp_path: Path) -> None:
    path = tmp_path / "daemon.json"
    path.write_text('{"debug": true, "runtimes": {"runc": {"path": "runc"}}}')
    with pytest.raises(InvalidRequest) as caught:
        config("--config-file", str(path), "-D", "--add-runtime", "x=/x")
    assert "both as a flag and in the configuration file" in caught.value.message
    assert "debug: (from flag: True, from file: true)" in caught.value.message
    assert "runtimes: (from flag: x=/x" in caught.value.message


def test_a_named_file_must_exist(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="no such file"):
        config("--config-file", str(tmp_path / "none"))
    with pytest.raises(InvalidRequest, match="directory"):
        config("--config-file", str(tmp_path))


@pytest.mark.parametrize("text", ["runc", "=x", "a=", "a b=/x", "jaula=/x"])
def test_an_invalid_runtime_flag_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        config("--config-file", "/dev/null", "--add-runtime", text)


def test_runtime_names_are_unique_and_the_default_is_one_of_them() -> None:
    words = ("--config-file", "/dev/null", "--add-runtime", "a=/x")
    with pytest.raises(InvalidRequest, match="defined twice"):
        config(*words, "--add-runtime", "a=/y")
    with pytest.raises(InvalidRequest, match="default runtime 'b' does not exist"):
        config(*words, "--default-runtime", "b")


def test_registry_settings_are_parsed() -> None:
    result, document = daemon_json.parse(
        b'{"insecure-registries": ["r:5000", "10.0.0.0/8"], "registry-mirrors": ["https://m"],'
        b' "max-concurrent-downloads": 7, "proxies": {"https-proxy": "http://p:1"}}'
    )
    config = registry_keys.pop_registry_config(result)
    assert result == {}
    assert config.insecure == ("r:5000", "10.0.0.0/8")
    assert config.mirrors == ("https://m",)
    assert (config.downloads, config.uploads) == (7, 5)
    assert config.https_proxy == "http://p:1"
    with pytest.raises(InvalidRequest, match="insecure-registries"):
        daemon_json.check_conflicts(document, {"insecure-registry": "x"})


@pytest.mark.parametrize(
    "text",
    [
        b'{"registry-mirrors": "https://m"}',
        b'{"registry-mirrors": ["http://m.example.com"]}',
        b'{"proxies": {"ftp-proxy": "x"}}',
        b'{"proxies": {"http-proxy": "socks5://x"}}',
        b'{"registry-realms": ["x"]}',
        b'{"max-concurrent-downloads": -1}',
    ],
)
def test_invalid_registry_settings_are_refused(text: bytes) -> None:
    with pytest.raises(InvalidRequest):
        registry_keys.pop_registry_config(daemon_json.parse(text)[0])


def test_a_users_certificates_are_in_the_home_directory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("JAULA_ROOTLESS", raising=False)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert registry_keys.pop_registry_config({}).certificates == (
        "/etc/jaula/certs.d",
        "/etc/docker/certs.d",
    )
    monkeypatch.setenv("JAULA_ROOTLESS", "1000")
    monkeypatch.setenv("XDG_CONFIG_HOME", "/home/m/.config")
    assert registry_keys.pop_registry_config({}).certificates[:2] == (
        "/home/m/.config/jaula/certs.d",
        "/home/m/.config/docker/certs.d",
    )
    # of hosts.toml a rootless engine reads those of its user
    assert registry_keys.pop_registry_config({}).hosts == (
        "/home/m/.config/jaula/certs.d",
        "/home/m/.config/docker/certs.d",
    )
    given = registry_keys.pop_registry_config({"registry_certs": "/x"})
    assert (given.certificates, given.hosts) == (("/x",), ("/x",))


@pytest.mark.parametrize(
    ("name", "valid"),
    [
        ("busybox", True),
        ("registry.example:5000/system/*", True),
        ("docker.io*", True),
        ("*", True),
        ("Not A Name", False),
        ("", False),
        ("**", False),
    ],
)
def test_pinned_images_are_names_or_their_beginning(name: str, valid: bool) -> None:
    def read() -> object:
        settings, _ = daemon_json.parse(json.dumps({"cri-pinned-images": [name]}).encode())
        names: Any = settings["cri_pinned_images"]
        daemon_json.check_image_names("cri-pinned-images", names)
        return names

    if valid:
        assert read() == (name,)
        return
    with pytest.raises(InvalidRequest, match="cri-pinned-images"):
        read()

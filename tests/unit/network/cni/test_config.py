"""Network configurations: valid and hostile files, the order of a directory, versions."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaula.errors import InvalidRequest, Unavailable
from jaula.features.kubernetes.cni import cni_config

from .scripted_plugin import conflist


def write(directory: Path, name: str, data: bytes) -> Path:
    path = directory / name
    path.write_bytes(data)
    path.chmod(0o644)
    return path


def test_members_of_a_plugin_are_kept_as_they_are_written() -> None:
    data = (
        b'{"name": "n", "cniVersion": "1.0.0", "plugins": [{"type": "a", "x": 1.50, "y": [1e400]}]}'
    )
    network = cni_config.parse_list(data, "x")
    assert bytes(network.plugins[0].members["x"]) == b"1.50"
    again = cni_config.parse_list(network.encode(), "x")
    assert again == network
    assert bytes(again.plugins[0].members["y"]) == b"[1e400]"


@pytest.mark.parametrize(
    ("members", "chosen", "versions"),
    [
        ({"cniVersion": "0.3.1"}, "0.3.1", ("0.3.1",)),
        ({}, "0.1.0", ("0.1.0",)),
        ({"cniVersion": "0.4.0", "cniVersions": ["1.1.0", "0.3.1"]}, "1.1.0",
         ("0.3.1", "0.4.0", "1.1.0")),
        ({"cniVersion": "9.0.0", "cniVersions": ["1.0.0", "2.0.0"]}, "1.0.0", ("1.0.0",)),
    ],
)  # fmt: skip
def test_the_highest_supported_version_is_chosen(
    members: dict[str, Any], chosen: str, versions: tuple[str, ...]
) -> None:
    data = json.dumps({"name": "n", "plugins": [{"type": "a"}], **members}).encode()
    network = cni_config.parse_list(data, "x")
    assert (network.version, network.versions) == (chosen, versions)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "malformed|truncated"),
        (b"[]", "Expected `object`"),
        (b"null", "Expected `object`"),
        (b"\xff{}", "decode"),
        (b'{"name": "n", "plugins": [{"type": "a", "x": "\xff"}]}', "decode"),
        (b'{"a":' * 100_000, "recursion"),
        (b'{"name": "n", "plugins": [{"type": "a", "x": ' + b"[" * 100_000, "recursion"),
        (b'{"plugins": [{"type": "a"}]}', "name ''"),
        (b'{"name": "../n", "plugins": [{"type": "a"}]}', "name '../n'"),
        (b'{"name": 1, "plugins": [{"type": "a"}]}', "Expected `str`"),
        (b'{"name": "n"}', "plugins is empty"),
        (b'{"name": "n", "plugins": []}', "plugins is empty"),
        (b'{"name": "n", "plugins": [1]}', "Expected `object`"),
        (b'{"name": "n", "plugins": [{}]}', "type ''"),
        (b'{"name": "n", "plugins": [{"type": "../../bin/sh"}]}', "must be the file name"),
        (b'{"name": "n", "plugins": [{"type": ".."}]}', "must be the file name"),
        (b'{"name": "n", "plugins": [{"type": "a\\u0000"}]}', "must be the file name"),
        (b'{"name": "n", "plugins": [{"type": "a", "ipam": {"type": "x/y"}}]}', "type of ipam"),
        (b'{"name": "n", "plugins": [{"type": "a", "capabilities": []}]}', "capabilities"),
        (b'{"name": "n", "cniVersion": "3", "plugins": [{"type": "a"}]}', "no cniVersion"),
        (b'{"name": "n", "disableGC": "maybe", "plugins": [{"type": "a"}]}', "disableGC 'maybe'"),
        (b'{"name": "n", "loadOnlyInlinedPlugins": true}', "plugins is absent"),
    ],
)  # fmt: skip
def test_a_malformed_list_is_one_error(data: bytes, reason: str) -> None:
    with pytest.raises(InvalidRequest, match=rf"(?s)a\.conflist.*({reason})"):
        cni_config.parse_list(data, "a.conflist")


def test_ten_thousand_plugins_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="10000 plugins: at most 64 are possible"):
        cni_config.parse_list(conflist(*["a"] * 10_000), "x")
    assert len(cni_config.parse_list(conflist(*["a"] * 64), "x").plugins) == 64


@given(st.binary(max_size=200))
def test_any_bytes_are_a_configuration_or_one_error(data: bytes) -> None:
    for parse in (cni_config.parse_list, cni_config.parse_single):
        try:
            parse(data, "x")
        except InvalidRequest:
            continue


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
_NAMES = st.sampled_from(
    ["name", "cniVersion", "cniVersions", "plugins", "type", "capabilities", "ipam", "disableGC"]
)


@given(st.dictionaries(_NAMES, _JSON | st.lists(st.dictionaries(_NAMES, _JSON), max_size=2)))
def test_any_object_is_a_configuration_or_one_error(document: dict[str, Any]) -> None:
    data = msgspec.json.encode(document)
    for parse in (cni_config.parse_list, cni_config.parse_single):
        try:
            network = parse(data, "x")
        except InvalidRequest:
            continue
        assert cni_config.parse_list(network.encode(), "x").plugins == network.plugins


def test_a_single_plugin_is_a_list_of_one(tmp_path: Path) -> None:
    data = b'{"cniVersion": "0.3.1", "name": "n", "type": "bridge", "mtu": 1400}'
    network = cni_config.load_file(str(write(tmp_path, "a.conf", data)))
    assert (network.name, network.version) == ("n", "0.3.1")
    assert [plugin.type for plugin in network.plugins] == ["bridge"]
    assert cni_config.load_file(str(write(tmp_path, "a.json", data))).plugins == network.plugins
    with pytest.raises(InvalidRequest, match="is a list of plugins") as e:
        cni_config.load_file(str(write(tmp_path, "b.conf", conflist("a"))))
    assert e.value.hint == "rename it to .conflist"


def test_plugins_of_the_directory_of_the_network_are_appended(tmp_path: Path) -> None:
    write(tmp_path, "10.conflist", conflist("first"))
    (tmp_path / "net").mkdir()
    write(tmp_path / "net", "20.conf", b'{"type": "third"}')
    write(tmp_path / "net", "10.conf", b'{"type": "second"}')
    write(tmp_path / "net", "30.txt", b"not read")
    network = cni_config.load_file(str(tmp_path / "10.conflist"))
    assert [plugin.type for plugin in network.plugins] == ["first", "second", "third"]
    assert len(cni_config.parse_list(network.encode(), "x").plugins) == 3
    write(tmp_path, "10.conflist", conflist("first", loadOnlyInlinedPlugins=True))
    assert len(cni_config.load_file(str(tmp_path / "10.conflist")).plugins) == 1
    write(tmp_path, "10.conflist", b'{"cniVersion": "1.0.0", "name": "net"}')
    assert len(cni_config.load_file(str(tmp_path / "10.conflist")).plugins) == 2


def test_the_first_valid_file_in_lexical_order_is_used(tmp_path: Path) -> None:
    write(tmp_path, "30.conflist", conflist("third"))
    write(tmp_path, "20.conf", b'{"name": "n", "type": "second"}')
    write(tmp_path, "05.txt", conflist("ignored"))
    write(tmp_path, "10.conflist", b"{")
    network, skipped = cni_config.load_directory(str(tmp_path))
    assert [plugin.type for plugin in network.plugins] == ["second"]
    assert network.source == str(tmp_path / "20.conf")
    assert [str(tmp_path / "10.conflist") in error.message for error in skipped] == [True]


def test_a_directory_without_a_valid_file_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="no network configuration in"):
        cni_config.load_directory(str(tmp_path / "absent"))
    for number in range(300):
        write(tmp_path, f"{number:03}.conflist", b"{")
    with pytest.raises(Unavailable, match=r"no valid .*000\.conflist.*\(and 99 other files\)"):
        cni_config.load_directory(str(tmp_path))
    with pytest.raises(Unavailable, match="cannot read"):
        cni_config.load_directory(str(tmp_path / "000.conflist"))


def test_files_that_are_not_regular_are_skipped(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "01.conflist")
    (tmp_path / "02.conflist").symlink_to("01.conflist")
    (tmp_path / "03.conflist").symlink_to("absent")
    (tmp_path / "04.conflist").symlink_to("04.conflist")
    (tmp_path / "05.conflist").symlink_to("/dev/zero")
    (tmp_path / "06.conflist").mkdir()
    write(tmp_path, "07.conflist", b" " * (1 << 20) + conflist("large"))
    write(tmp_path, "08.conflist", conflist("writable")).chmod(0o666)
    (tmp_path / "09.conflist").symlink_to(write(tmp_path, "target", conflist("linked")))
    network, skipped = cni_config.load_directory(str(tmp_path))
    assert [plugin.type for plugin in network.plugins] == ["linked"]
    assert [error.message.partition(f"{tmp_path}/")[2] for error in skipped] == [
        "01.conflist is not a regular file",
        "02.conflist is not a regular file",
        "03.conflist: No such file or directory",
        "04.conflist: Too many levels of symbolic links",
        "05.conflist is not a regular file",
        "06.conflist is not a regular file",
        "07.conflist has more than 1048576 bytes",
        "08.conflist is writable by other users",
    ]

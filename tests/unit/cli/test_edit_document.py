"""The document of ``jaula edit``: TOML that is read back, and the change between two texts."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest

from jaula.cli.cli_errors import CliError
from jaula.features.edit.cli import edit_document

DOCUMENT: dict[str, Any] = {
    "Version": "v",
    "Name": "web",
    "PortBindings": {
        "80/tcp": [{"HostIp": "", "HostPort": "8080"}],
        "53/udp": [{"HostIp": "::1", "HostPort": "53"}],
        "81/tcp": [{"HostIp": "", "HostPort": ""}],
    },
    "Mounts": [{"Type": "volume", "Source": "data", "Target": "/data", "ReadOnly": False}],
    "Networks": ["bridge"],
    "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3},
    "Limits": {"Memory": 512 << 20, "NanoCpus": 1_500_000_000, "PidsLimit": 100},
    "Labels": {'hostile"\n[limits]': '"\n\x1b[31m\\ ✓'},
    "Healthcheck": None,
}


def changed(*replacements: tuple[str, str]) -> dict[str, Any]:
    text = edit_document.dumps(DOCUMENT)
    for old, new in replacements:
        assert old in text, text
        text = text.replace(old, new)
    return edit_document.change(DOCUMENT, text)


def test_a_text_that_is_not_edited_is_no_change() -> None:
    assert changed() == {}


def test_hostile_labels_are_strings() -> None:
    parsed = tomllib.loads(edit_document.dumps(DOCUMENT))
    assert parsed["labels"] == DOCUMENT["Labels"]
    assert parsed["publish"] == ["[::1]:53:53/udp", "8080:80/tcp", "81/tcp"]
    assert parsed["limits"] == {"memory": "512m", "cpus": 1.5, "pids-limit": 100}
    assert "\x1b" not in edit_document.dumps(DOCUMENT)


@pytest.mark.parametrize(
    ("old", "new", "body"),
    [
        ('"8080:80/tcp",', "", {"Unpublish": {"80/tcp": [{"HostIp": "", "HostPort": "8080"}]}}),
        ('"81/tcp",', '"81/tcp", "127.0.0.1:443:443",',
         {"Publish": {"443/tcp": [{"HostIp": "127.0.0.1", "HostPort": "443"}]}}),
        ('networks = ["bridge"]', 'networks = ["other"]',
         {"Connect": {"other": {}}, "Disconnect": ["bridge"]}),
        ('"on-failure:3"', '"always"', {"Update": {"RestartPolicy": {"Name": "always"}}}),
        ('"512m"', '"1g"', {"Update": {"Memory": 1 << 30}}),
        ("cpus = 1.5", "cpus = 2", {"Update": {"NanoCpus": 2_000_000_000}}),
        ('memory = "512m"\n', "", {"RemoveLimits": ["Memory"]}),
        ("cpus = 1.5", "# cpus = 1.5", {"RemoveLimits": ["NanoCpus"]}),
        ("read-only = false", "read-only = true",
         {"Unmount": ["/data"], "Mounts": [
             {"Type": "volume", "Source": "data", "Target": "/data", "ReadOnly": True}]}),
        ("[labels]", '[labels]\nnew = "1"', {"Labels": {"new": "1"}}),
    ],
)  # fmt: skip
def test_each_change_is_its_member(old: str, new: str, body: dict[str, Any]) -> None:
    assert changed((old, new)) == body


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("networks =", "networks", "not TOML"),
        ("restart =", 'hostname = "x"\nrestart =', "'hostname' is not one of"),
        ('"on-failure:3"', "7", "must be a string"),
        ('"on-failure:3"', '"on-failure:x"', "not a number"),
        ('"512m"', '"much"', "not a value for memory"),
        ("cpus = 1.5", "cores = 2", "'cores' is not one of"),
        ('target = "/data"', "", "target must be a path"),
        ("read-only = false", 'mode = "rw"', "'mode' is not one of"),
        ("[labels]", '[[mount]]\ntarget = "/data"\n[labels]', "twice"),
        ("[labels]", "[labels]\nnumber = 1", "table of strings"),
        ('networks = ["bridge"]', "networks = 1", "array of strings"),
        ('networks = ["bridge"]', 'networks = ["bridge"]\nlimits = 1\n#', "."),
    ],
)
def test_a_wrong_text_is_a_clear_error(old: str, new: str, words: str) -> None:
    with pytest.raises(CliError, match=words):
        changed((old, new))

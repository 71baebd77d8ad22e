"""``--mount`` is parsed as docker parses it."""

from __future__ import annotations

from typing import Any

import pytest

from jaula.cli.cli_errors import UsageError
from jaula.cli.containers import mount_option


@pytest.mark.parametrize(
    ("word", "document"),
    [
        (
            "source=v,target=/m,volume-subpath=a/b,volume-nocopy,readonly",
            {
                "Type": "volume",
                "Source": "v",
                "Target": "/m",
                "ReadOnly": True,
                "VolumeOptions": {"Subpath": "a/b", "NoCopy": True},
            },
        ),
        (
            "type=volume,dst=/m,volume-opt=type=tmpfs,volume-opt=o=size=1m,volume-label=a=b",
            {
                "Type": "volume",
                "Target": "/m",
                "VolumeOptions": {
                    "Labels": {"a": "b"},
                    "DriverConfig": {"Options": {"type": "tmpfs", "o": "size=1m"}},
                },
            },
        ),
        (
            "type=bind,src=/a,dst=/m,ro,bind-propagation=rprivate,bind-recursive=readonly",
            {
                "Type": "bind",
                "Source": "/a",
                "Target": "/m",
                "ReadOnly": True,
                "BindOptions": {"Propagation": "rprivate", "ReadOnlyForceRecursive": True},
            },
        ),
        (
            "type=tmpfs,dst=/m,tmpfs-size=1m,tmpfs-mode=0700",
            {
                "Type": "tmpfs",
                "Target": "/m",
                "TmpfsOptions": {"SizeBytes": 1 << 20, "Mode": 0o700},
            },
        ),
    ],
)
def test_a_mount_is_parsed(word: str, document: dict[str, Any]) -> None:
    assert mount_option.document(word) == document


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("type=bind,src=/a,dst=/m,bind-recursive=writable", "requires 'readonly'"),
        ("type=bind,src=/a,dst=/m,bind-recursive=readonly", "requires 'readonly'"),
        ("type=bind,src=/a,dst=/m,ro,bind-recursive=readonly", "'bind-propagation=rprivate'"),
        ("type=bind,src=/a,dst=/m,bind-recursive=sometimes", "invalid value for bind-recursive"),
        ("type=bind,src=/a,dst=/m,volume-subpath=a", "cannot mix 'volume-\\*' options"),
        ("type=tmpfs,dst=/m,volume-nocopy", "cannot mix 'volume-\\*' options"),
        ("type=bind,dst=/m", "source is required"),
        ("source=v", "target is required"),
        ("type=odd,dst=/m", "invalid mount type"),
        ("dst=/m,colour=red", "unexpected key"),
        ("dst=/m,nonsense", "must be a key=value pair"),
        ('"dst=/m', "a quote is not closed"),
        ('dst="/m', "a quote inside"),
    ],
)
def test_an_invalid_mount_is_refused(word: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        mount_option.document(word)


def test_an_engine_socket_needs_no_target() -> None:
    assert mount_option.document("type=engine-socket") == {"Type": "engine-socket"}
    word = "type=engine-socket,dst=/run/docker.sock,ro"
    assert mount_option.document(word) == {
        "Type": "engine-socket",
        "Target": "/run/docker.sock",
        "ReadOnly": True,
    }

"""Bundles whose containers could access the host's interpreter."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import typing_extensions

from jaula.oci import cloned_binary, runtime_entry

USER = {"type": "user"}
ROW = {"containerID": 0, "hostID": 100000, "size": 65536}


def config(spaces: Any, rows: Any) -> dict[str, Any]:
    return {"linux": {"namespaces": spaces, "uidMappings": rows}}


@pytest.mark.parametrize(
    ("document", "owner", "reached"),
    [
        (config([USER], [ROW]), 0, False),
        (config([USER], [ROW]), 99999, False),
        (config([USER], [ROW]), 100000, True),
        (config([USER], [ROW]), 165535, True),
        (config([USER], [ROW]), 165536, False),
        (config([USER], [ROW, {"containerID": 70000, "hostID": 0, "size": 1}]), 0, True),
        (config([], [ROW]), 0, True),
        (config([{"type": "pid"}], [ROW]), 0, True),
        (config([{"type": "user", "path": "/proc/1/ns/user"}], [ROW]), 0, True),
        (config([USER], []), 0, True),
        (config([USER], [{"hostID": "0", "size": 1}]), 0, True),
        (config(None, [ROW]), 0, True),
        (config(["user"], [ROW]), 0, True),
        ({"linux": None}, 0, True),
        ([], 0, True),
    ],
)
def test_a_user_namespace_without_the_owner_needs_no_clone(
    document: Any, owner: int, reached: bool
) -> None:
    assert cloned_binary.maps_host_id(document, owner) is reached


@pytest.mark.parametrize(
    "flags", [["--bundle"], ["-b"], ["-bundle"], ["--bundle", "/nowhere", "--bundle"]]
)
def test_the_last_bundle_flag_wins(tmp_path: Path, flags: list[str]) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config([USER], [ROW])))
    words = ["--root", "/r", "create", *flags, str(tmp_path), "name"]
    assert not cloned_binary._needs_clone(words, 0)
    joined = ["create", f"{flags[-1]}={tmp_path}", "name"]
    assert not cloned_binary._needs_clone(joined, 0)


@pytest.mark.parametrize("text", [None, "", '{"linux": {"uidMappings"', '{"uidMappings"' * 9999])
def test_an_unclear_config_needs_a_clone(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    assert cloned_binary._needs_clone(["run", "--bundle", str(tmp_path), "name"], 0)


def test_a_fifo_instead_of_the_config_does_not_block(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "config.json")
    assert cloned_binary._needs_clone(["run", "--bundle", str(tmp_path), "name"], 0)


def test_other_commands_are_not_executed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise AssertionError("executed anew")

    monkeypatch.setattr(cloned_binary, "ensure", refuse)
    monkeypatch.setattr("jaula.oci.runtime_main.main", lambda: None)
    monkeypatch.setattr("gc.disable", lambda: None)  # of this process of tests
    monkeypatch.setitem(sys.modules, "typing_extensions", typing_extensions)
    for words in (["state", "name"], ["--root", "/r", "delete", "--force", "name"], []):
        monkeypatch.setattr("sys.argv", ["jaula-runtime", *words])
        runtime_entry.start(lambda argv: None)

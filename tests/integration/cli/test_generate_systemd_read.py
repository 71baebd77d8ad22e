"""``generate systemd``: what a container's values are, the unit has as words, and nothing else."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from harness.containers import unique
from harness.engine import PrivateEngine
from jaula.cli.containers import mount_option
from jaula.errors import InvalidRequest
from jaula.features.quadlet import systemd_units, unit_words

HOSTILE = "a b\"c'd$e%f,g;h\\i\U0001f600\n[Service]\nExecStart=/bin/sh\n"


def value(text: str, key: str) -> list[str]:
    lines = [line for line in text.split("\n") if line.startswith(f"{key}=")]
    assert len(lines) == 1, lines
    return unit_words.split(lines[0].partition("=")[2])


def test_the_unit_has_the_words_of_a_container(
    engine: PrivateEngine, busybox: str, tmp_path: Path
) -> None:
    name = unique()
    body = {
        "Image": busybox,
        "Cmd": ["sh", "-c", HOSTILE],
        "Env": [f"A={HOSTILE}"],
        "Labels": {f"l{HOSTILE}": HOSTILE},
        "HostConfig": {
            "Mounts": [{"Type": "tmpfs", "Target": '/a,readonly=1,"b"'}],
            "Tmpfs": {"/tmp/x y": "size=1m"},
        },
    }
    answer = engine.request("POST", f"/containers/create?name={name}", body)
    assert answer.status == 201, answer.body
    try:
        done = engine.cli("jaula", "generate", "systemd", "--new", "--name", name)
        assert done.returncode == 0, done.stderr
        command = [w.replace("%%", "%").replace("$$", "$") for w in value(done.stdout, "ExecStart")]
        assert command[-3:] == ["sh", "-c", HOSTILE]
        assert command[command.index("--env") + 1] == f"A={HOSTILE}"
        assert command[command.index("--label") + 1] == f"l{HOSTILE}={HOSTILE}"
        mount = mount_option.document(command[command.index("--mount") + 1])
        assert (mount["Target"], mount.get("ReadOnly")) == ('/a,readonly=1,"b"', None)
        assert command[command.index("--tmpfs") + 1] == "/tmp/x y:size=1m"
        if shutil.which("systemd-analyze"):
            file = tmp_path / f"container-{name}.service"
            file.write_text(done.stdout)
            verify = ["systemd-analyze", "verify", "--man=no", str(file)]
            read = subprocess.run(verify, capture_output=True, text=True, timeout=60)
            assert not re.search(r"(?i)unknown|parse|invalid|ignoring|unbalanced", read.stderr)
    finally:
        engine.request("DELETE", f"/containers/{name}?force=1")


@pytest.mark.parametrize("flag", ["wants", "after", "requires", "container-prefix"])
def test_a_name_of_a_unit_is_one_word(engine: PrivateEngine, busybox: str, flag: str) -> None:
    name = unique()
    assert engine.cli("jaula", "create", "--name", name, busybox).returncode == 0
    try:
        text = f"--{flag}=a\nExecStart=/bin/sh"
        done = engine.cli("jaula", "generate", "systemd", "--name", text, name)
        assert done.returncode != 0
        assert "invalid name of a unit" in done.stderr
    finally:
        engine.request("DELETE", f"/containers/{name}?force=1")


@pytest.mark.parametrize(
    "host",
    [
        {"Tmpfs": {"/a:exec": "size=1m"}},
        {"Tmpfs": {"/a:exec": ""}},
        {"Devices": [{"PathOnHost": "/dev/a:/dev/b", "PathInContainer": "/c",
                      "CgroupPermissions": "r"}]},
    ],
)  # fmt: skip
def test_a_path_with_a_colon_is_refused(host: dict[str, object]) -> None:
    document = {"Id": "1" * 64, "Config": {"Image": "x"}, "HostConfig": host}
    with pytest.raises(InvalidRequest, match="colon"):
        systemd_units.run_arguments(document, {})

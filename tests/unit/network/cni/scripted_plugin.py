"""Plugins that are shell scripts: they record each call and print what a test gives them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

_SCRIPT = """#!/bin/sh
directory={directory}
n=$(($(ls "$directory" | wc -l) + 1))
cat >"$directory/$n"
printf '\\n%s %s %s' "$CNI_COMMAND" "$CNI_IFNAME" "$CNI_NETNS" >>"$directory/$n"
case $CNI_COMMAND in
{cases}
esac
"""


class Call(NamedTuple):
    """One execution of a plugin."""

    plugin: str
    command: str
    ifname: str
    netns: str
    request: dict[str, Any]


class Plugins:
    """A directory of plugins, and the calls that they have received, in order."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "bin"
        self.directory.mkdir()
        self._calls = directory / "calls"
        self._calls.mkdir()

    def write(self, name: str, **cases: str) -> None:
        """Write a plugin; ``cases`` are shell commands by operation, ``default`` for the rest."""
        lines = [f"{'*' if k == 'default' else k}) {text} ;;" for k, text in cases.items()]
        self.write_text(name, _SCRIPT.format(directory=self._calls, cases="\n".join(lines)))

    def write_text(self, name: str, text: str) -> None:
        path = self.directory / name
        path.write_text(text)
        path.chmod(0o755)

    def forward(self, name: str, **cases: str) -> None:
        """Write a plugin that answers ADD with a result of one address."""
        self.write(name, **({"ADD": f"echo '{RESULT}'"} | cases))

    @property
    def calls(self) -> list[Call]:
        result = []
        for path in sorted(self._calls.iterdir(), key=lambda p: int(p.name)):
            request, _, parameters = path.read_text().rpartition("\n")
            command, ifname, netns = parameters.split(" ")
            document = json.loads(request)
            result.append(Call(document.get("type", ""), command, ifname, netns, document))
        return result

    def names(self) -> list[str]:
        """Return the calls as ``COMMAND plugin``."""
        return [f"{call.command} {call.plugin}" for call in self.calls]


RESULT = json.dumps(
    {
        "cniVersion": "1.0.0",
        "interfaces": [{"name": "eth0", "sandbox": "/proc/7/ns/net", "mac": "02:00:00:00:00:01"}],
        "ips": [{"address": "10.1.0.5/16", "gateway": "10.1.0.1", "interface": 0}],
        "dns": {"nameservers": ["10.1.0.1"]},
    }
)


def conflist(*types: str, version: str = "1.0.0", **members: Any) -> bytes:
    """Return a configuration list of plugins without settings."""
    rows = [{"type": name} if isinstance(name, str) else name for name in types]
    document = {"cniVersion": version, "name": "net", "plugins": rows, **members}
    assert re.fullmatch(r"[0-9.]*", version)
    return json.dumps(document).encode()

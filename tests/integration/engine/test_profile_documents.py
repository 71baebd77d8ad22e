"""A profile in a request: parsed with bounds, while the engine goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.engine import PrivateEngine

HOSTILE = {
    "dots": "a" + ".a" * 300_000 + " = 1\n",
    "quoted": '"a"' + '."a"' * 200_000 + " = 1\n",
    "header": "[" + "a." * 300_000 + "a]\n",
    "parts": "".join(f"a{n}.b.c.d.e.f.g.h = 1\n" for n in range(30_000)),
    "nested": "a = " + "[" * 500_000 + "\n",
    "number": "a = " + "9" * 900_000 + "\n",
}


def peak(engine: PrivateEngine) -> int:
    """Return the most memory that the engine has taken, in bytes."""
    assert engine.process is not None
    status = Path(f"/proc/{engine.process.pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("member", ["Profile", "Annotations"])
def test_a_hostile_profile_is_refused_with_little_memory(
    engine: PrivateEngine, busybox: str, text: str, member: str
) -> None:
    before = peak(engine)
    value = text if member == "Profile" else {"io.jaula.profile": text}
    body = {"Image": busybox, "HostConfig": {member: value}}
    answer = engine.request("POST", "/containers/create", body)
    assert answer.status == 400, answer.body[:300]
    assert "profile of the request" in answer.json()["message"]
    assert peak(engine) - before < 64 << 20
    assert engine.request("GET", "/_ping").status == 200

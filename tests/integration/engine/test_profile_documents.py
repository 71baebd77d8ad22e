"""A profile in a request: parsed with bounds, while the engine goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from threading import Thread

import pytest

from conftest import load_image
from harness import containers, leaks
from harness.engine import PrivateEngine
from harness.hostile_profiles import HOSTILE
from harness.paused_steps import PausedEngine


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


GOOD = """version = 1
name = "web"
capabilities = ["NET_BIND_SERVICE"]

[limits]
pids = 77
"""
BAD = {
    "unknown": 'version = 1\nname = "web"\nnothing = 1\n',
    "text": "no TOML\n",
    "deep": "a = " + "[" * 100_000 + "\n",
    "large": "#" * 600_000 + "\nx\n",
    "dots": "a" + ".a" * 500_000 + " = 1\n",
}


def test_the_first_container_of_an_engine_has_a_profile(
    new_engine: Callable[..., PrivateEngine], tmp_path: Path
) -> None:
    """No build has started a process of its own before, and loaded what that needs."""
    engine = new_engine()
    load_image(engine, "busybox")
    file = tmp_path / "web.toml"
    for command in ("run", "create"):
        for text in BAD.values():
            file.write_text(text)
            done = engine.cli("jaula", command, "--profile", str(file), "busybox", "true")
            # As docker: an error of the engine is 1 of create, and 125 of run.
            assert done.returncode in ((125,) if command == "run" else (1, 125)), done
            assert done.stdout == ""
            assert "Traceback" not in done.stderr
            errors = [line for line in done.stderr.splitlines() if "profile" in line]
            assert len(errors) == 1, done.stderr
            assert len(done.stderr) < 2000
    assert engine.request("GET", "/containers/json?all=1").json() == []
    file.write_text(GOOD)
    flags = ("--rm", "--profile", str(file), "busybox")
    done = engine.cli("jaula", "run", *flags, "grep", "CapBnd", "/proc/self/status")
    assert done.returncode == 0, done
    assert int(done.stdout.split()[1], 16) == 1 << 10  # CAP_NET_BIND_SERVICE


def test_a_container_starts_after_the_engine_was_killed_without_its_profile_being_parsed(
    worker_index: int, tmp_path: Path
) -> None:
    """So no later parser can refuse what an earlier one has accepted."""
    file = tmp_path / "web.toml"
    file.write_text(GOOD)
    flags = ("--name", "web", "--profile", str(file), "busybox")
    with leaks.nothing_left(PausedEngine(worker_index % 120 + 120)) as engine:
        assert isinstance(engine, PausedEngine)
        load_image(engine, "busybox")
        done = engine.cli("jaula", "create", *flags, "sleep", "99")
        assert done.returncode == 0, done
        engine.kill()
        engine.start()
        with engine.pausing("parse of a profile") as wait:
            assert engine.request("POST", "/containers/web/start").status == 204
            assert engine.fault.read_text() == "parse of a profile"  # no work has reached it
            inspection = Thread(target=engine.request, args=("GET", "/containers/web/json"))
            inspection.start()
            wait()  # an inspection parses it
        inspection.join()
        document = containers.inspect(engine, "web")
        assert document["HostConfig"]["PidsLimit"] == 77
        facts = containers.status(containers.pid(engine, "web"))
        assert int(facts["CapBnd"], 16) == 1 << 10
        engine.request("DELETE", "/containers/web?force=1")

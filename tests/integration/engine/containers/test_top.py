"""``top`` of processes that exit while ``ps`` runs."""

from __future__ import annotations

from harness import containers
from harness.engine import PrivateEngine


def test_the_user_of_a_short_process_is_that_of_the_container(
    engine: PrivateEngine, busybox: str
) -> None:
    script = ("sh", "-c", "while :; do sleep 0.01; done")
    users, commands = set(), set()
    with containers.running(engine, busybox, *script, flags=("-u", "1234")) as name:
        for _ in range(40):
            rows = engine.request("GET", f"/containers/{name}/top").json()["Processes"]
            users |= {row[0] for row in rows}
            commands |= {row[-1] for row in rows}
    assert users == {"1234"}
    assert "sleep 0.01" in commands

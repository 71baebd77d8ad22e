"""`jaula doctor --against`: it compares two hosts for moves in both directions."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from harness.engine import PrivateEngine
from harness.migration import Sites, sites
from jaula.features.migration.host_compatibility import cpu_features

pytestmark = [pytest.mark.criu, pytest.mark.needs("gcc", "ip", "openssl", "nsenter", "unshare")]
LOST = cpu_features()[0]


class OnePoorer(PrivateEngine):
    """Engines, of which the second is on a host whose processors lack one feature."""

    def _prefix(self, own_network: bool) -> tuple[str, ...]:
        prefix = super()._prefix(own_network)
        if self.index % 2:
            return prefix
        file = self.root / "cpuinfo"
        with open("/proc/cpuinfo", encoding="utf-8") as cpuinfo:
            file.write_text(cpuinfo.read().replace(f" {LOST} ", " "))
        script = 'mount --bind "$0" /proc/cpuinfo && exec "$@"'
        return *prefix, "unshare", "--mount", "sh", "-c", script, str(file)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sites]:
    with sites(tmp_path_factory.mktemp("sites"), 8, kind=OnePoorer) as made:
        yield made


def test_the_richer_host_gives_nothing_to_the_poorer_one(two: Sites) -> None:
    done = two.a.engine.cli("jaula", "doctor", "--against", two.b.target)
    assert done.returncode == 1, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["THIS", "HOST", two.b.target]
    assert [line.split()[0] for line in lines[1:4]] == ["architecture", "page", "processor"]
    assert f"Features of processors that only this host has: {LOST}" in lines
    assert lines[-2] == (
        f"Containers cannot move from this host to {two.b.target}: processor: the target lacks"
        f" {LOST} (choose a host with the same processor or a newer one)."
    )
    assert lines[-1] == f"Containers can move from {two.b.target} to this host."


def test_the_poorer_host_gives_to_the_richer_one(two: Sites) -> None:
    done = two.b.engine.cli("jaula", "doctor", "--against", two.a.target, "--format", "json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert all(row["Passed"] for row in document["ToThere"])
    assert [row["Check"] for row in document["ToHere"] if not row["Passed"]] == ["processor"]
    assert set(document["There"]["CPUFeatures"]) - set(document["Here"]["CPUFeatures"]) == {LOST}
    assert document["Here"] | {"CPUFeatures": []} == document["There"] | {"CPUFeatures": []}


def test_the_other_engine_asks_for_the_right_to_migrate(two: Sites) -> None:
    with two.b.policy('access = "run"'):
        text = two.a.refused("doctor", "--against", two.b.target)
    assert "move containers to this engine" in text
    assert "migrate = true" in text


@pytest.mark.parametrize(
    ("target", "text"),
    [
        ("unix:///run/x", "is not an address"),
        ("tcp://127.0.0.1:1", "cannot connect to the engine at 127.0.0.1:1"),
    ],
)
def test_a_wrong_target_is_an_error(two: Sites, target: str, text: str) -> None:
    assert text in two.a.refused("doctor", "--against", target)


def test_the_request_has_a_target(two: Sites) -> None:
    reply = two.a.engine.request("GET", "/jaula/migrations/hosts")
    assert reply.status == 400
    assert "to=tcp://HOST:2376" in reply.json()["message"]

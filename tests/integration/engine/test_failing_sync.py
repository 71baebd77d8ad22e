"""A database that the disk does not take for a while: reads, ends of containers, and afterwards."""

from __future__ import annotations

import contextlib
import errno
import threading
from collections.abc import Iterator

import pytest

from conftest import load_image
from harness import containers, leaks
from harness.engine import Reply
from harness.faulty_engine import FaultyEngine

READS = (
    *("/containers/json?all=1", "/info", "/version", "/images/json", "/networks", "/volumes"),
    "/system/df",
)


class SyncEngine(FaultyEngine):
    """An engine with the faults of :mod:`harness.failing_sync`."""

    script = "failing_sync.py"

    @contextlib.contextmanager
    def failing(self, word: int | str) -> Iterator[None]:
        self.fault.write_text(str(word))
        try:
            yield
        finally:
            self.fault.unlink()


@pytest.fixture(scope="module")
def engine(worker_index: int) -> Iterator[SyncEngine]:
    private = SyncEngine((worker_index + 131) % 250 + 1, extra_flags=("--durability", "strict"))
    with leaks.nothing_left(private):
        load_image(private, "busybox")
        yield private


def run(engine: SyncEngine) -> str:
    name = containers.unique("sync")
    body = {"Image": "busybox", "Cmd": ["sleep", "600"]}
    assert engine.request("POST", f"/containers/create?name={name}", body).status == 201
    assert engine.request("POST", f"/containers/{name}/start").status == 204
    return name


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EMFILE, errno.EDQUOT])
def test_an_error_of_the_disk_ends_with_its_cause(engine: SyncEngine, number: int) -> None:
    stopped, killed = run(engine), run(engine)
    with engine.failing(number):
        refused = engine.request("POST", "/volumes/create", {"Name": containers.unique("v")})
        created = engine.request("POST", "/containers/create", {"Image": "busybox"})
        assert created.status == 503
        assert "restart" not in created.json()["message"]
        for path in READS:
            assert engine.request("GET", path).status == 200, path
        assert containers.inspect(engine, stopped)["State"]["Running"]
        assert engine.request("POST", f"/containers/{stopped}/stop?t=0").status == 204
        assert engine.request("POST", f"/containers/{killed}/kill").status == 204
        assert not containers.inspect(engine, stopped)["State"]["Running"]
        assert engine.request("DELETE", f"/containers/{killed}?force=1").status == 204
        assert engine.request("GET", f"/containers/{killed}/json").status == 404
    assert refused.status in (201, 503)
    body = {"Image": "busybox"}
    created = engine.request("POST", f"/containers/create?name={containers.unique('after')}", body)
    assert created.status == 201
    assert engine.request("DELETE", f"/containers/{stopped}").status == 204
    engine.kill()
    engine.start()
    identifiers = [c["Id"] for c in engine.request("GET", "/containers/json?all=1").json()]
    assert created.json()["Id"] in identifiers
    for identifier in identifiers:
        assert engine.request("DELETE", f"/containers/{identifier}?force=1").status == 204
    for volume in engine.request("GET", "/volumes").json()["Volumes"] or ():
        engine.request("DELETE", f"/volumes/{volume['Name']}")


@pytest.mark.slow
def test_a_disk_that_does_not_answer_keeps_no_read_and_no_stop(engine: SyncEngine) -> None:
    name = run(engine)
    with engine.failing("hang"):
        replies: list[Reply] = []
        body = {"Image": "busybox"}
        writer = threading.Thread(
            target=lambda: replies.append(engine.request("POST", "/containers/create", body))
        )
        writer.start()
        for path in READS:
            assert engine.request("GET", path).status == 200, path
        assert engine.request("POST", f"/containers/{name}/stop?t=0").status == 204
        assert engine.request("DELETE", f"/containers/{name}").status == 204
        assert replies == []
    writer.join(60)
    assert replies[0].status == 201
    identifier = replies[0].json()["Id"]
    assert engine.request("DELETE", f"/containers/{identifier}").status == 204

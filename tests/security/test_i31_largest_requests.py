"""The largest requests that the API accepts do not stop the engine (I31)."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

import pytest

from harness.engine import PrivateEngine, Reply

LARGEST = 4 * 1024 * 1024  # bytes of a body
PORTS = 1100  # more than select(2) has descriptors for
_ANSWER = 30.0  # seconds; both are answered in a fraction of one

_EDITS = {
    "a million bindings": b'{"Publish":{"80/tcp":[%s{}]}}' % (b"{}," * ((LARGEST - 64) // 3)),
    "a million bindings to remove": b'{"Unpublish":{"80/tcp":[%s{}]}}'
    % (b"{}," * ((LARGEST - 64) // 3)),
    "bindings at the bound": json.dumps(
        {"Publish": {"80/tcp": [{"HostPort": str(1 + n)} for n in range(16_384)] + [{}]}}
    ).encode(),
}


def _beside(request: Callable[[], Reply], engine: PrivateEngine) -> Reply:
    """Return the answer of a request, during which another client is answered."""
    replies: list[Reply] = []
    thread = threading.Thread(target=lambda: replies.append(request()))
    thread.start()
    pings = 0
    while thread.is_alive() or not pings:
        assert engine.request("GET", "/_ping", timeout=_ANSWER).status == 200
        pings += 1
    thread.join()
    return replies[0]


@pytest.mark.parametrize("name", _EDITS)
def test_an_edit_of_the_largest_size_leaves_the_engine_answering(
    name: str, engine: PrivateEngine, plain: str
) -> None:
    assert len(_EDITS[name]) <= LARGEST
    path = f"/jaula/containers/{plain}/edit"
    reply = _beside(lambda: engine.request("POST", path, _EDITS[name], timeout=_ANSWER), engine)
    assert (reply.status, "at most 16384 are allowed" in reply.body.decode()) == (400, True)
    assert engine.request("GET", f"/containers/{plain}/json").json()["State"]["Running"]


def test_a_thousand_published_ports_do_not_end_the_engine(
    engine: PrivateEngine, busybox: str
) -> None:
    """libnftables aborts its process with a descriptor above 1023, and each port has one."""

    def body(**members: Any) -> dict[str, Any]:
        return {"Image": busybox, "Cmd": ["sleep", "infinity"], "HostConfig": members}

    bindings = {"80/tcp": [{"HostIp": "127.0.0.1"}] * PORTS}
    network = f"{engine.tag}-ports"
    made = []
    try:
        for members in ({"PortBindings": bindings}, {"NetworkMode": network}, {}):
            if members.get("NetworkMode"):
                reply = engine.request("POST", "/networks/create", {"Name": network})
                assert reply.status == 201, reply
            reply = engine.request("POST", "/containers/create", body(**members))
            assert reply.status == 201, reply
            made.append(reply.json()["Id"])
            reply = engine.request("POST", f"/containers/{made[-1]}/start")
            assert reply.status == 204, reply
        reply = engine.request("POST", f"/networks/{network}/connect", {"Container": made[0]})
        assert reply.status == 200, reply
        assert engine.request("GET", "/_ping").status == 200
    finally:
        for container in made:
            engine.request("DELETE", f"/containers/{container}?force=1")
        engine.request("DELETE", f"/networks/{network}")

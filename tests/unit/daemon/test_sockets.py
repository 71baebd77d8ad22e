"""The path of a unix socket at the end of an engine: another engine may serve there."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from jaula.daemon import sockets
from jaula.errors import Conflict


@pytest.mark.parametrize("full", [False, True])
def test_the_socket_of_another_engine_stays(tmp_path: Path, full: bool) -> None:
    """Its backlog may be full: a connection would wait."""
    path = tmp_path / "jaula.sock"
    sockets.listen_unix(path).close()
    path.unlink()  # another program removes it, and another engine is started
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen(0)
        clients = [socket.socket(socket.AF_UNIX) for _ in range(8 if full else 0)]
        for client in clients:
            client.setblocking(False)
            client.connect_ex(str(path))
        sockets.remove(path, [])
        assert path.exists()
        with pytest.raises(Conflict, match="in use by another engine"):
            sockets.listen_unix(path)
        for client in clients:
            client.close()
    own = sockets.listen_unix(path)  # not closed yet: the start of the engine failed
    sockets.remove(path, [own])
    assert not path.exists()
    sockets.remove(path, [own])

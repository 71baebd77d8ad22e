"""Seven peers that keep the target busy with their files: its other clients, and its end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness import criu_program, images, migration_peer
from harness.engine import SLOW, PrivateEngine
from harness.migration_peer import Target
from jaula.features.migration.data_stream import DataWriter
from jaula.features.migration.migration_channel import Channel, LinkLost
from jaula.spec.migration import (
    MAX_DATA,
    DataKind,
    OfferedMount,
    Transfer,
    TransferKind,
)

pytestmark = pytest.mark.needs("openssl")
IMAGE, PEERS = "moved", 7
HOLE = 1 << 38  # bytes of a sparse file in a volume
ANSWER = 20.0 * SLOW  # seconds for each command beside the peers
STOP = 30.0 * SLOW  # seconds for the end of the engine, which waits 5 s for threads


@pytest.fixture
def target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Target]:
    programs = tmp_path / "programs"
    programs.mkdir()
    criu_program.write(programs)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    with migration_peer.target(tmp_path, 233) as made:
        images.import_image(made.engine, IMAGE, images.busybox_entries())
        yield made


def request(volume: str) -> bytes:
    config = {"Image": IMAGE, "Cmd": ["true"], "HostConfig": {"Binds": [f"{volume}:/v"]}}
    return json.dumps(config).encode()


def sparse_head() -> bytes:
    """Return the head of a tar whose member is a sparse file in GNU's format 1.0."""
    numbers = b"1\n%d\n0\n" % HOLE
    content = numbers + bytes(-len(numbers) % 512)
    names = {"GNU.sparse.major": 1, "GNU.sparse.minor": 0, "GNU.sparse.name": "file",
             "GNU.sparse.realsize": HOLE}  # fmt: skip
    records = b"".join(_record(f"{name}={value}\n") for name, value in names.items())
    return _header("pax", b"x", len(records)) + records + bytes(-len(records) % 512) + _header(
        "file", b"0", len(content)
    ) + content  # fmt: skip


def _record(text: str) -> bytes:
    length = len(text) + 3
    while len(f"{length} {text}") != length:
        length += 1
    return f"{length} {text}".encode()


def _header(name: str, kind: bytes, size: int) -> bytes:
    fields = [name.encode().ljust(100, b"\0"), b"0000644\0", b"0000000\0", b"0000000\0",
              b"%011o\0" % size, b"00000000000\0", b" " * 8, kind]  # fmt: skip
    head = b"".join(fields).ljust(257, b"\0") + b"ustar\x0000"
    head = head.ljust(512, b"\0")
    return head[:148] + b"%06o\0 " % sum(head) + head[156:]


async def stall(target: Target, stack: contextlib.AsyncExitStack, number: int) -> DataWriter | None:
    """Begin a move, send large sparse files in part, and send nothing more."""
    channel: Channel = await stack.enter_async_context(target.connect())
    running = number % 2 == 0
    volume = f"stalled{number}"
    offer = await target.offer(
        IMAGE,
        request(volume),
        volumes=(OfferedMount("/v", volume),),
        stopped=not running,
        memory=1 << 30,
    )
    prepared = await target.prepare(channel, offer)
    if not running:
        await channel.send(Transfer(TransferKind.VOLUME, "/v"))
        await channel.send_data(sparse_head())
        return None
    stream = await asyncio.to_thread(target.open_stream, prepared.token)

    def send() -> None:
        for name in (b"pages-1.img", b"pages-2.img"):
            stream.write(DataKind.NAME, name)
            for _ in range((400 << 20) // MAX_DATA):
                stream.write_zeros(MAX_DATA)
            if name == b"pages-1.img":
                stream.write(DataKind.END)

    await asyncio.to_thread(send)
    return stream


def commands(engine: PrivateEngine) -> list[tuple[float, tuple[str, ...], str]]:
    """Return how long each command took, in seconds, and its error."""
    found = []
    for words in (
        ("volume", "create", "kept"),
        ("run", "--rm", "-v", "kept:/v", IMAGE, "touch", "/v/file"),
        ("tag", IMAGE, "removed"),
        ("rmi", "removed"),
        ("system", "df"),
        ("info",),
        ("volume", "rm", "kept"),
    ):
        begun = time.monotonic()
        done = engine.cli("jaula", *words, timeout=ANSWER * 3)
        error = done.stderr if done.returncode else ""
        found.append((time.monotonic() - begun, words, error))
    return found


def check(found: list[tuple[float, tuple[str, ...], str]]) -> None:
    assert [row for row in found if row[0] > ANSWER or row[2]] == []


def end(engine: PrivateEngine) -> None:
    assert engine.process is not None
    begun = time.monotonic()
    engine.process.send_signal(signal.SIGTERM)
    engine.process.wait(STOP * 2)
    assert time.monotonic() - begun < STOP
    engine.process = None


@pytest.mark.slow
@pytest.mark.parametrize("leave", [False, True])
@pytest.mark.timeout(300)
def test_seven_stalled_peers_keep_no_other_client_waiting(target: Target, leave: bool) -> None:
    """They hold their connections, or go away without a word before the engine ends."""

    async def run() -> None:
        async with contextlib.AsyncExitStack() as stack:
            streams = await asyncio.gather(*(stall(target, stack, n) for n in range(PEERS)))
            check(await asyncio.to_thread(commands, target.engine))
            if not leave:
                await asyncio.to_thread(end, target.engine)
            for stream in streams:
                if stream is not None:
                    stream.abort()
            if not leave:
                stack.push(_is_lost)

    asyncio.run(run())
    if leave:
        check(commands(target.engine))
        names = target.engine.cli("jaula", "ps", "-aq").stdout.split()
        wait_until(lambda: not target.engine.cli("jaula", "ps", "-aq").stdout.split(), names)
        end(target.engine)
    target.engine.start()
    assert target.engine.cli("jaula", "ps", "-aq").stdout == ""
    assert "stalled" not in target.engine.cli("jaula", "volume", "ls", "-q").stdout


def _is_lost(kind: object, error: BaseException | None, _: object) -> bool:
    """Accept that the engine has ended before the peers."""
    return isinstance(error, LinkLost | OSError)


def wait_until(condition: Callable[[], bool], what: object) -> None:
    deadline = time.monotonic() + ANSWER * 3
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.2)

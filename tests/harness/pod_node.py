"""An engine with CRI and Debian's CNI plugins, in a network namespace that acts as the host's."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from conftest import load_image
from harness import leaks
from harness.engine import PrivateEngine
from harness.pods import Cri, connected
from integration.network.conftest import new_namespace
from jaula.features.kubernetes.cni.bridge_config import bridge_conflist
from jaula.kernel.netlink import in_netns

CIDRS = ("10.231.0.0/24", "fd00:231::/64")


class Node(NamedTuple):
    """An engine, its configuration of the network and the addresses in use.

    ``netns`` is the network namespace in which the engine runs.
    """

    engine: PrivateEngine
    netns: int
    config: Path
    addresses: Path

    def start(self) -> None:
        with in_netns(self.netns):
            self.engine.start()

    def used(self) -> set[str]:
        return {path.name for path in self.addresses.rglob("10.*")}

    def calls(self, work: Callable[[Cri], Awaitable[None]]) -> None:
        """Run ``work`` with a connection, then remove every pod."""

        async def run() -> None:
            async with connected(self.engine) as cri:
                try:
                    await work(cri)
                finally:
                    for pod in (await cri.call("ListPodSandbox")).items:
                        await cri.call("RemovePodSandbox", pod_sandbox_id=pod.id)

        asyncio.run(run())


@contextmanager
def running_node(index: int, directory: Path, *flags: str) -> Iterator[Node]:
    """Start a node, yield it, stop it and assert that nothing remains."""
    document = json.loads(bridge_conflist(CIDRS, bridge="jltcni0"))
    document["plugins"][0]["ipam"]["dataDir"] = str(directory / "addresses")
    config = directory / "net.d" / "10-test.conflist"
    config.parent.mkdir()
    config.write_text(json.dumps(document))
    cni = ("--cni-conf-dir", str(config.parent), "--cni-bin-dir", "/usr/lib/cni")
    engine = PrivateEngine(index, extra_flags=("--cri", *cni, *flags))
    node = Node(engine, new_namespace(), config, directory / "addresses")
    try:
        node.start()
        load_image(engine, "busybox")
        yield node
        engine.discard()
        assert not leaks.of_engine(engine)
    finally:
        if engine.process is not None:
            engine.kill()
        os.close(node.netns)
        leaks.clean_up(engine)
        engine.delete_directories()

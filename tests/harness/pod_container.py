"""A program: an engine in this process creates and starts the container of a pod.

Arguments: root, run directory, cgroup parent, first subordinate id, image, directory and path of
the log, and the command of the container. It prints its id, then an answer to each line of its
input: ``reopen REF`` opens a log again. The end of the input stops the engine.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from jaula.config import EngineConfig, Paths
from jaula.daemon.create_engine import new_engine
from jaula.engine.containers.log_config import pod_log_config
from jaula.errors import JaulaError
from jaula.runtime.runtime_client import Runtime
from jaula.runtime_interfaces import runtime_interfaces
from jaula.spec.api_documents import ContainerCreate, HostConfig


async def _main(config: EngineConfig, runtime: Runtime, image: str, *words: str) -> None:
    directory, path, *command = words
    engine = new_engine(config, runtime)
    await engine.open()
    try:
        body = ContainerCreate(
            image=image, cmd=tuple(command), host_config=HostConfig(network_mode="none")
        )
        created = await engine.containers.create(
            body, None, None, log=pod_log_config(directory, path)
        )
        print(created.id, flush=True)
        try:
            await engine.containers.start(created.id)
            print("started", flush=True)
        except JaulaError as error:
            print(f"{type(error).__name__}: {error}", flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            try:
                await engine.containers.reopen_log(line.split()[1])
                print("opened", flush=True)
            except JaulaError as error:
                print(f"{type(error).__name__}: {error}", flush=True)
    finally:
        await engine.close()


if __name__ == "__main__":
    root, run, parent, first_id, *rest = sys.argv[1:]
    settings = EngineConfig(
        paths=Paths(Path(root), Path(run)),
        cgroup_parent=parent,
        subid_start=int(first_id),
        subid_count=5_000_000,
        durability="relaxed",
    )
    asyncio.run(_main(settings, Runtime.launch(runtime_interfaces), *rest))

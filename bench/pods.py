"""Measures of pods: each returns ``{measure: {runtime: [samples]}}``, in the units of its titles.

The start of a pod is RunPodSandbox, CreateContainer and StartContainer. Its end is StopPodSandbox
and RemovePodSandbox, which kill and remove the container too. Runtimes alternate.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from argparse import Namespace
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from cri_runtimes import CNI, HOST, PUBLISHED, Client, Plugins, PodRuntime, Processes, connected
from engines import pss_bytes, status_bytes

Results = dict[str, dict[str, list[float]]]
GROUP = 10  # pods of the first and of the last group
_SETTLE_SECONDS = 2.0  # before memory is read
_NETWORKS = {
    HOST: "host network",
    CNI: "CNI (bridge, host-local, portmap)",
    PUBLISHED: "CNI, one published port",
}
_START = ("RunPodSandbox", "CreateContainer", "StartContainer")
_END = ("StopPodSandbox", "RemovePodSandbox")


class Samples:
    """Results of several measures."""

    def __init__(self) -> None:
        self.results: Results = {}

    def add(self, key: str, runtime: PodRuntime, *values: float) -> None:
        self.results.setdefault(key, {}).setdefault(runtime.name, []).extend(values)


async def start_pod(
    client: Client, runtime: PodRuntime, name: str, network: str
) -> tuple[str, str, list[float]]:
    """Start a pod of one container; return both ids and the milliseconds of each call."""
    config = runtime.sandbox_config(name, network)
    run, sandbox = await client.timed("RunPodSandbox", config=config)
    pod = sandbox.pod_sandbox_id
    create, created = await client.timed(
        "CreateContainer",
        pod_sandbox_id=pod,
        config=runtime.container_config(network),
        sandbox_config=config,
    )
    container = created.container_id
    start, _ = await client.timed("StartContainer", container_id=container)
    return pod, container, [run, create, start]


async def end_pod(client: Client, pod: str) -> list[float]:
    """Stop and remove a pod; return the milliseconds of each call."""
    return [(await client.timed(method, pod_sandbox_id=pod))[0] for method in _END]


async def cycles(runtimes: Sequence[PodRuntime], options: Namespace) -> Results:
    """Start and end one pod, with each kind of network."""
    samples = Samples()
    async with AsyncExitStack() as stack:
        clients = [(r, await stack.enter_async_context(connected(r.cri_socket))) for r in runtimes]
        for network in _NETWORKS:
            before: dict[str, float] = {}
            for number in range(options.rounds + 1):  # the first one is not counted
                for runtime, client in clients if number % 2 else reversed(clients):
                    if number == 1:
                        before[runtime.name] = runtime.processor_seconds()
                    name = f"{network}-{number}"
                    pod, _, start = await start_pod(client, runtime, name, network)
                    end = await end_pod(client, pod)
                    if not number:
                        continue
                    samples.add(f"start {network}", runtime, sum(start))
                    samples.add(f"end {network}", runtime, sum(end))
                    for method, value in zip((*_START, *_END), start + end, strict=True):
                        samples.add(f"{method} {network}", runtime, value)
            for runtime in runtimes:
                used = runtime.processor_seconds() - before[runtime.name]
                samples.add(f"processor {network}", runtime, used / options.rounds * 1e3)
    return samples.results


async def full_node(runtimes: Sequence[PodRuntime], options: Namespace) -> Results:
    """Start many pods one by one; measure memory and queries before and with them."""
    samples = Samples()
    async with AsyncExitStack() as stack:
        clients = [(r, await stack.enter_async_context(connected(r.cri_socket))) for r in runtimes]
        idle: dict[str, int] = {}
        await asyncio.sleep(_SETTLE_SECONDS)
        for runtime in runtimes:
            processes = runtime.pods_processes()
            idle[runtime.name] = _all(processes)
            samples.add("idle rss", runtime, status_bytes(processes.daemon[0], "VmRSS") / 1e6)
            samples.add("idle pss", runtime, idle[runtime.name] / 1e6)
        pods: dict[str, list[tuple[str, str]]] = {runtime.name: [] for runtime in runtimes}
        for number in range(options.pods):
            for runtime, client in clients if number % 2 else reversed(clients):
                name = f"node-{number}"
                pod, container, times = await start_pod(client, runtime, name, CNI)
                pods[runtime.name].append((pod, container))
                samples.add("node start", runtime, sum(times))
        for runtime in runtimes:
            starts = samples.results["node start"][runtime.name]
            first, last = statistics.median(starts[:GROUP]), statistics.median(starts[-GROUP:])
            samples.add("first starts", runtime, first)
            samples.add("last starts", runtime, last)
            samples.add("last to first", runtime, last / first)
            samples.add("total 1", runtime, sum(starts) / 1e3)
        await asyncio.sleep(_SETTLE_SECONDS)
        for runtime in runtimes:
            _memory(samples, runtime, idle[runtime.name], options.pods)
        await _queries(samples, clients, pods, options.rounds)
        for runtime in runtimes:
            main = runtime.pods_processes().daemon[0]
            samples.add("queried rss", runtime, status_bytes(main, "VmRSS") / 1e6)
        for runtime, client in clients:
            start = time.perf_counter()
            for pod, _ in pods[runtime.name]:
                await end_pod(client, pod)
            samples.add("end 1", runtime, time.perf_counter() - start)
    return samples.results


def _all(processes: Processes) -> int:
    """Return the bytes of the runtime's processes and of the pauses."""
    return sum(map(pss_bytes, (*processes.daemon, *processes.shims, *processes.pauses)))


def _memory(samples: Samples, runtime: PodRuntime, idle: int, count: int) -> None:
    processes = runtime.pods_processes()
    if len(processes.pauses) != count:
        raise RuntimeError(f"{runtime.name}: {len(processes.pauses)} of {count} pods run")
    samples.add("pod memory", runtime, (_all(processes) - idle) / count / 1e3)
    samples.add("shim memory", runtime, sum(map(pss_bytes, processes.shims)) / count / 1e3)
    samples.add("pause memory", runtime, sum(map(pss_bytes, processes.pauses)) / count / 1e3)
    samples.add("shims", runtime, len(processes.shims) / count)
    samples.add("full rss", runtime, status_bytes(processes.daemon[0], "VmRSS") / 1e6)


async def _queries(
    samples: Samples,
    clients: Sequence[tuple[PodRuntime, Client]],
    pods: Mapping[str, Sequence[tuple[str, str]]],
    rounds: int,
) -> None:
    for number in range(rounds + 1):  # the first one is not counted
        for runtime, client in clients if number % 2 else reversed(clients):
            own = pods[runtime.name]
            sandboxes, listed = await client.timed("ListPodSandbox")
            containers, _ = await client.timed("ListContainers")
            stats, answer = await client.timed("ListContainerStats")
            if len(listed.items) != len(own) or len(answer.stats) != len(own):
                raise RuntimeError(f"{runtime.name}: a list has not all {len(own)} pods")
            _, container = own[number % len(own)]
            run, done = await client.timed("ExecSync", container_id=container, cmd=["true"])
            if done.exit_code:
                raise RuntimeError(f"{runtime.name}: `true` exited with {done.exit_code}")
            if number:
                samples.add("lists", runtime, sandboxes + containers)
                samples.add("stats", runtime, stats)
                samples.add("exec", runtime, run)


async def parallel(runtimes: Sequence[PodRuntime], options: Namespace) -> Results:
    """Start many pods by several clients at the same time, one runtime after the other."""
    samples = Samples()
    for number in range(options.repeats):
        for runtime in runtimes if number % 2 else reversed(runtimes):
            names = [f"parallel-{number}-{index}" for index in range(options.pods)]
            shares = [names[n :: options.clients] for n in range(options.clients)]
            start = time.perf_counter()
            pods = await asyncio.gather(*(_start_all(runtime, share) for share in shares))
            samples.add("total parallel", runtime, time.perf_counter() - start)
            start = time.perf_counter()
            await asyncio.gather(*(_end_all(runtime, share) for share in pods))
            samples.add("end parallel", runtime, time.perf_counter() - start)
    return samples.results


async def _start_all(runtime: PodRuntime, names: Sequence[str]) -> list[str]:
    async with connected(runtime.cri_socket) as client:
        return [(await start_pod(client, runtime, name, CNI))[0] for name in names]


async def _end_all(runtime: PodRuntime, pods: Sequence[str]) -> None:
    async with connected(runtime.cri_socket) as client:
        for pod in pods:
            await end_pod(client, pod)


async def plugins_alone(base: Path, rounds: int) -> Results:
    """Attach and detach network namespaces alone: what every runtime waits for."""
    plugins = Plugins(base)
    times = [await plugins.cycle(number) for number in range(rounds + 1)]
    add, delete = zip(*times[1:], strict=True)
    return {"plugins": {"ADD": list(add), "DEL": list(delete)}}


ALL: dict[str, Callable[[Sequence[PodRuntime], Namespace], Awaitable[Results]]] = {
    "cycles": cycles,
    "full_node": full_node,
    "parallel": parallel,
}


def titles(pods: int, clients: int) -> dict[str, str]:
    """Return the titles of the measures, with their units, in the order of the table."""
    rows: dict[str, str] = {}
    for network, text in _NETWORKS.items():
        rows[f"start {network}"] = f"start of a pod, {text} (ms)"
        rows |= {f"{method} {network}": f"· {method} (ms)" for method in _START}
        rows[f"end {network}"] = f"end of a pod, {text} (ms)"
        rows |= {f"{method} {network}": f"· {method} (ms)" for method in _END}
        rows[f"processor {network}"] = f"processor time of a start and an end, {text} (ms)"
    return rows | {
        "total 1": f"start of {pods} pods, CNI, one client (s)",
        "first starts": f"· the first {GROUP} of them, each (ms)",
        "last starts": f"· the last {GROUP} of them, each (ms)",
        "last to first": "· last to first",
        "end 1": f"end of {pods} pods, one client (s)",
        "total parallel": f"start of {pods} pods, CNI, {clients} clients (s)",
        "end parallel": f"end of {pods} pods, {clients} clients (s)",
        "pod memory": "memory per idle pod, without its container's process (PSS, kB)",
        "shim memory": "· shims (kB)",
        "pause memory": "· pause (kB)",
        "shims": "· number of shims",
        "idle rss": "resident memory of the main process, no pods (MB)",
        "full rss": f"resident memory of the main process, {pods} pods (MB)",
        "queried rss": "· after the next three rows (MB)",
        "idle pss": "memory of all processes of the daemon, no pods (PSS, MB)",
        "lists": f"ListPodSandbox and ListContainers, {pods} pods (ms)",
        "stats": f"ListContainerStats, {pods} pods (ms)",
        "exec": f"ExecSync of `true`, {pods} pods (ms)",
    }

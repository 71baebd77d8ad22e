"""Measures of engines: each returns ``{engine: [samples]}`` in the unit of its docstring."""

from __future__ import annotations

import json
import statistics
import subprocess
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import clients
import hostile
from engines import IMAGE, Engine, Rootfs, parent, pss_bytes, status_bytes

HERE = Path(__file__).resolve().parent
Samples = dict[str, list[float]]
RUNNING = 500  # containers while an engine is started again
VERIFIED = 100  # containers of one `verify --all`
Measure = Callable[[Sequence[Engine], Rootfs, Namespace], Samples]


def _alternate(engines: Sequence[Engine], rounds: int, once: Callable[[Engine], float]) -> Samples:
    """Run ``rounds`` of each engine in turn, after one uncounted round that warms caches.

    Every other round has the reverse order, since an engine may leave work to the next one's time.
    """
    samples: Samples = {engine.name: [] for engine in engines}
    for number in range(rounds + 1):
        for engine in engines if number % 2 else reversed(engines):
            value = once(engine)
            if number:
                samples[engine.name].append(value)
    return samples


def _milliseconds(engine: Engine, *words: str) -> float:
    command, environment = engine.words(*words), engine.environment()
    start = time.perf_counter()
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=environment,
        timeout=120,
    )
    elapsed = (time.perf_counter() - start) * 1e3
    if done.returncode:
        raise RuntimeError(f"{engine.name} {' '.join(words)}: {done.stderr.decode()[-600:]}")
    return elapsed


def run_command(engines: Sequence[Engine], rootfs: Rootfs, options: Namespace) -> Samples:
    """`run --rm busybox true`, default network, whole command (ms)"""
    return _alternate(
        engines, options.rounds, lambda e: _milliseconds(e, "run", "--rm", IMAGE, "true")
    )


def run_without_network(engines: Sequence[Engine], rootfs: Rootfs, options: Namespace) -> Samples:
    """`run --rm --network none busybox true`, whole command (ms)"""
    words = ("run", "--rm", "--network", "none", IMAGE, "true")
    return _alternate(engines, options.rounds, lambda e: _milliseconds(e, *words))


def exec_command(engines: Sequence[Engine], rootfs: Rootfs, options: Namespace) -> Samples:
    """`exec CONTAINER true`, whole command (ms)"""
    for engine in engines:
        engine.run(
            "run", "-d", "--name", "probe", IMAGE, "sleep", "3600", stdout=subprocess.DEVNULL
        )
    samples = _alternate(
        engines, options.rounds, lambda e: _milliseconds(e, "exec", "probe", "true")
    )
    for engine in engines:
        engine.remove("probe")
    return samples


def api_cycle(engines: Sequence[Engine], rootfs: Rootfs, options: Namespace) -> Samples:
    """Create + start + wait + remove over the API, one client, one connection (ms)"""
    serving = [engine for engine in engines if engine.socket]
    connections = {engine.name: engine.connect() for engine in serving}

    def once(engine: Engine) -> float:
        client = connections[engine.name]
        start = time.perf_counter()
        created = client.call(
            "POST", "/containers/create", {"Image": IMAGE, "Cmd": ["true"], "HostConfig": {}}
        )
        container = created["Id"]
        client.call("POST", f"/containers/{container}/start")
        status = client.call("POST", f"/containers/{container}/wait")["StatusCode"]
        client.call("DELETE", f"/containers/{container}")
        if status:
            raise RuntimeError(f"{engine.name}: the container exited with {status}")
        return (time.perf_counter() - start) * 1e3

    try:
        return _alternate(serving, options.rounds * 2, once)
    finally:
        for connection in connections.values():
            connection.close()


def burst(engines: Sequence[Engine], rootfs: Rootfs, options: Namespace) -> Samples:
    """Containers started by parallel clients over the API (containers a second)"""
    samples: Samples = {}
    for engine in (e for e in engines if e.socket):
        names = [f"burst{number}" for number in range(options.containers)]
        start = time.perf_counter()
        with ThreadPoolExecutor(options.clients) as pool:
            shares = [names[n :: options.clients] for n in range(options.clients)]
            for client in [pool.submit(_start_all, engine, share) for share in shares]:
                client.result()
        samples[engine.name] = [options.containers / (time.perf_counter() - start)]
        for first in range(0, len(names), 20):
            engine.remove(*names[first : first + 20])
    return samples


def _start_all(engine: Engine, names: Sequence[str]) -> None:
    client = engine.connect()
    body = {"Image": IMAGE, "Cmd": ["sleep", "3600"], "HostConfig": {}}
    try:
        for name in names:
            client.call("POST", f"/containers/create?name={name}", body)
            client.call("POST", f"/containers/{name}/start")
    finally:
        client.close()


@contextmanager
def running(engine: Engine, count: int, clients: int) -> Iterator[list[str]]:
    """Containers that sleep, by their names, started by parallel clients and removed after use."""
    names = [f"running{number}" for number in range(count)]
    with ThreadPoolExecutor(clients) as pool:
        shares = [names[n::clients] for n in range(clients)]
        for client in [pool.submit(_start_all, engine, share) for share in shares]:
            client.result()
    yield names
    for first in range(0, len(names), 20):
        engine.remove(*names[first : first + 20])


def crowded_start(engines: Sequence[Engine], rootfs: Rootfs, options: Namespace) -> Samples:
    """Start of a container beside 480 running ones, divided by a start beside none"""
    samples: Samples = {}
    for engine in (e for e in engines if e.socket):
        alone = _start_times(engine, [f"alone{number}" for number in range(20)])
        with running(engine, RUNNING - len(alone), options.clients):
            crowded = _start_times(engine, [f"crowded{number}" for number in range(20)])
        samples[engine.name] = [statistics.median(crowded) / statistics.median(alone)]
    return samples


def _start_times(engine: Engine, names: Sequence[str]) -> list[float]:
    """Start containers one after the other; return the seconds of each start."""
    client = engine.connect()
    body = {"Image": IMAGE, "Cmd": ["sleep", "3600"], "HostConfig": {}}
    times = []
    try:
        for name in names:
            client.call("POST", f"/containers/create?name={name}", body)
            begin = time.perf_counter()
            client.call("POST", f"/containers/{name}/start")
            times.append(time.perf_counter() - begin)
    finally:
        client.close()
        engine.remove(*names)
    return times


def engine_start(engines: Sequence[Engine], rootfs: Rootfs, options: Namespace) -> Samples:
    """Start of an engine without containers, until it answers (ms)"""
    serving = [engine for engine in engines if engine.socket]
    return _alternate(serving, options.rounds, lambda engine: engine.restart() * 1e3)


def restart(engines: Sequence[Engine], rootfs: Rootfs, options: Namespace) -> Samples:
    """Kill of an engine with 500 running containers, until the next one answers (ms)"""
    samples: Samples = {}
    for engine in (e for e in engines if e.socket):
        with running(engine, RUNNING, options.clients):
            samples[engine.name] = [engine.restart() * 1e3 for _ in range(5)]
            listed = engine.run("ps", "-q", capture_output=True, text=True).stdout.split()
            if len(listed) != RUNNING:
                raise RuntimeError(f"{engine.name}: {len(listed)} of {RUNNING} containers run")
    return samples


def verify(engines: Sequence[Engine], rootfs: Rootfs, options: Namespace) -> Samples:
    """`verify --all` of 100 containers, whole command (ms)"""
    chosen = [engine for engine in engines if engine.name in ("jaula", "baseline")]
    with ExitStack() as stack:
        for engine in chosen:
            stack.enter_context(running(engine, VERIFIED, options.clients))
        return _alternate(chosen, 5, lambda engine: _milliseconds(engine, "verify", "--all"))


def monitor_memory(engines: Sequence[Engine], rootfs: Rootfs, options: Namespace) -> Samples:
    """Memory of the process that watches one idle container (PSS, MB)"""
    samples: Samples = {}
    for engine in engines:
        names = [f"idle{number}" for number in range(options.idle)]
        for name in names:
            engine.run(
                *("run", "-d", "--name", name, IMAGE, "sleep", "3600"), stdout=subprocess.DEVNULL
            )
        time.sleep(1)
        monitors = {parent(engine.pid_of(name)) for name in names}
        samples[engine.name] = [pss_bytes(pid) / 1e6 for pid in sorted(monitors)]
        engine.remove(*names)
    return samples


def engine_memory(engines: Sequence[Engine], rootfs: Rootfs, options: Namespace) -> Samples:
    """Resident memory of the idle engine's main process (MB)"""
    time.sleep(2)
    return {
        engine.name: [status_bytes(pids[0], "VmRSS") / 1e6]
        for engine in engines
        if (pids := engine.processes())
    }


def all_memory(engines: Sequence[Engine], rootfs: Rootfs, options: Namespace) -> Samples:
    """Memory of all processes of the idle engine (PSS, MB)"""
    return {
        engine.name: [sum(pss_bytes(pid) for pid in pids) / 1e6]
        for engine in engines
        if (pids := engine.processes())
    }


def floor(engines: Sequence[Engine], rootfs: Rootfs, options: Namespace) -> Samples:
    """Lower bounds: the kernel alone, and runc without an engine (ms)"""
    with tempfile.TemporaryDirectory(prefix="jb", dir="/var/tmp") as name:
        program = Path(name) / "floor"
        subprocess.run(["gcc", "-O2", "-o", program, HERE / "floor.c"], check=True)
        words = [str(program), str(rootfs.directory), str(max(20, options.rounds))]
        result = subprocess.run(words, capture_output=True, text=True, check=True)
        return {
            "kernel": [json.loads(result.stdout)["median_ms"]],
            "runc": _runc(Path(name), rootfs, options.rounds),
        }


def _runc(base: Path, rootfs: Rootfs, rounds: int) -> list[float]:
    bundle = base / "bundle"
    bundle.mkdir()
    subprocess.run(["runc", "spec", "--bundle", bundle], check=True)
    document = json.loads((bundle / "config.json").read_text())
    document["process"] |= {"args": ["/bin/true"], "terminal": False}
    document["root"] = {"path": str(rootfs.directory), "readonly": True}
    document["linux"]["cgroupsPath"] = f"/{base.name}/runc"
    (bundle / "config.json").write_text(json.dumps(document))
    samples = []
    for number in range(rounds):
        start = time.perf_counter()
        subprocess.run(
            ["runc", "--root", base / "state", "run", "--bundle", bundle, f"{base.name}-{number}"],
            check=True,
            stdin=subprocess.DEVNULL,
        )
        samples.append((time.perf_counter() - start) * 1e3)
    for parent_group in Path("/sys/fs/cgroup").glob(f"*/{base.name}"):
        parent_group.rmdir()
    return samples


def phases(engines: Sequence[Engine], rootfs: Rootfs, options: Namespace) -> Samples:
    """Phases of one `jaula run` (ms)"""
    engine = next((engine for engine in engines if engine.name == "jaula"), None)
    if engine is None:
        return {}
    samples: Samples = {}

    def timed(name: str, action: Callable[[], object]) -> object:
        start = time.perf_counter()
        result = action()
        samples.setdefault(name, []).append((time.perf_counter() - start) * 1e3)
        return result

    client = engine.connect()
    for _ in range(options.rounds):
        timed("client: start and end of the program", lambda: engine.run("--version", stdout=-3))
        timed("API: one request that does nothing", lambda: client.call("GET", "/_ping"))
        for network in ("default", "none"):
            body = {"Image": IMAGE, "Cmd": ["true"], "HostConfig": {"NetworkMode": network}}
            create = timed(
                f"create, network {network}",
                lambda body=body: client.call("POST", "/containers/create", body),  # type: ignore[misc]
            )
            assert isinstance(create, dict)
            path = f"/containers/{create['Id']}"
            for name, method, rest in (
                ("start", "POST", "/start"),
                ("wait for the end of the program", "POST", "/wait"),
                ("remove", "DELETE", ""),
            ):
                timed(
                    f"{name}, network {network}",
                    lambda method=method, target=path + rest: client.call(method, target),  # type: ignore[misc]
                )
    client.close()
    return samples


ALL: dict[str, Measure] = {
    "engine_start": engine_start,
    "engine_memory": engine_memory,
    "all_memory": all_memory,
    "run_command": run_command,
    "run_without_network": run_without_network,
    "api_cycle": api_cycle,
    "exec_command": exec_command,
    "monitor_memory": monitor_memory,
    "burst": burst,
    "restart": restart,
    "crowded_start": crowded_start,
    "verify": verify,
    "floor": floor,
    "phases": phases,
    **clients.ALL,
    **hostile.ALL,
}
TITLES = {key: (measure.__doc__ or key) for key, measure in ALL.items()}
HIGHER_IS_BETTER = frozenset({"burst"}) | clients.HIGHER_IS_BETTER

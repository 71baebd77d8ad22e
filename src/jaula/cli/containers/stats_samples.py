"""Resource usage of containers, from samples of ``GET /containers/X/stats``.

The engine answers a single sample at once (``one-shot``). The client computes rates from two
samples, so a view of many containers takes one interval, not one for each.
"""

from __future__ import annotations

from jaula.cli.cli_errors import EngineError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from jaula.cli.client.api_client import Client

NOT_FOUND, CONFLICT = 404, 409


class ContainerUsage:
    """The resource usage of one container.

    Bytes and numbers are totals. ``cpu`` is percent of one CPU since the previous sample.
    ``read_rate`` and ``write_rate`` are bytes per second.
    """

    def __init__(self, sample: dict[str, Any], before: dict[str, Any] | None) -> None:
        memory = sample.get("memory_stats") or {}
        self.id: str = sample.get("id", "")
        self.name: str = sample.get("name", "").removeprefix("/")
        self.memory = max(memory.get("usage", 0) - _cache(memory), 0)
        self.limit: int = memory.get("limit", 0)
        self.memory_percent = 100.0 * self.memory / self.limit if self.limit else 0.0
        self.pids: int = (sample.get("pids_stats") or {}).get("current", 0)
        networks = (sample.get("networks") or {}).values()
        self.received = sum(network.get("rx_bytes", 0) for network in networks)
        self.sent = sum(network.get("tx_bytes", 0) for network in networks)
        self.read, self.written = _blocks(sample)
        self.running = bool(memory or self.pids)
        before = before or {"cpu_stats": sample.get("precpu_stats") or {}}
        self.cpu = _cpu(sample.get("cpu_stats") or {}, before.get("cpu_stats") or {})
        seconds = _seconds(sample, before)
        was_read, was_written = _blocks(before)
        self.read_rate = max(self.read - was_read, 0) / seconds if seconds else 0.0
        self.write_rate = max(self.written - was_written, 0) / seconds if seconds else 0.0


def _cache(memory: dict[str, Any]) -> int:
    """Return the page cache that the kernel reclaims first, in bytes.

    Docker does not count it as used.
    """
    details = memory.get("stats") or {}
    cache = details.get("total_inactive_file", details.get("inactive_file", 0))
    return int(cache) if cache < memory.get("usage", 0) else 0


def _blocks(sample: dict[str, Any]) -> tuple[int, int]:
    rows = (sample.get("blkio_stats") or {}).get("io_service_bytes_recursive") or ()
    read = sum(row["value"] for row in rows if row["op"].lower() == "read")
    written = sum(row["value"] for row in rows if row["op"].lower() == "write")
    return read, written


def _cpu(now: dict[str, Any], before: dict[str, Any]) -> float:
    used = _total(now) - _total(before)
    passed: int = now.get("system_cpu_usage", 0) - before.get("system_cpu_usage", 0)
    if used <= 0 or passed <= 0 or not before.get("system_cpu_usage"):
        return 0.0
    cpus = (
        now.get("online_cpus") or len((now.get("cpu_usage") or {}).get("percpu_usage") or ()) or 1
    )
    return 100.0 * used / passed * float(cpus)


def _total(cpu: dict[str, Any]) -> int:
    return int((cpu.get("cpu_usage") or {}).get("total_usage", 0))


def _seconds(sample: dict[str, Any], before: dict[str, Any]) -> float:
    from jaula.spec.units import unix_time

    try:
        return max(unix_time(sample["read"]) - unix_time(before["read"]), 0.0)
    except (KeyError, ValueError):
        return 0.0


class Sampler:
    """Samples the named containers, or all running ones, and keeps the previous samples."""

    def __init__(self, client: Client, names: list[str], *, everything: bool = False) -> None:
        self._client = client
        self._names = names
        self._everything = everything
        self._before: dict[str, dict[str, Any]] = {}

    def take(self) -> list[ContainerUsage]:
        """Take one sample of each container.

        :raises EngineError: when a named container does not exist.
        """
        samples: dict[str, dict[str, Any]] = {}
        for identity, name in self._inspect() if self._names else self._list():
            try:
                sample = self._client.get(
                    f"/containers/{identity}/stats", (("stream", "0"), ("one-shot", "1"))
                )
            except EngineError as error:
                if error.code not in (NOT_FOUND, CONFLICT):
                    raise
                continue  # the container was removed after it was listed
            samples[identity] = {**sample, "id": identity, "name": name}
        usages = [ContainerUsage(sample, self._before.get(key)) for key, sample in samples.items()]
        self._before = samples
        return usages

    def _inspect(self) -> list[tuple[str, str]]:
        documents = [self._client.get(f"/containers/{name}/json") for name in self._names]
        return [(container["Id"], container["Name"]) for container in documents]

    def _list(self) -> list[tuple[str, str]]:
        documents = self._client.get("/containers/json", (("all", self._everything),)) or []
        return [(container["Id"], (container["Names"] or [""])[0]) for container in documents]

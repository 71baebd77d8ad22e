"""``jaula cgtop``: the cgroups of containers, the busiest first, like systemd-cgtop."""

from __future__ import annotations

from time import monotonic, sleep

from jaula.cli.cli_errors import EngineError, UsageError
from jaula.cli.client.api_client import Client
from jaula.cli.command_parser import Command, Flag, Options
from jaula.cli.containers.stats_samples import ContainerUsage, Sampler
from jaula.cli.main import Settings
from jaula.cli.output import text_table
from jaula.cli.output.ansi import redraws
from jaula.cli.output.screen import Screen
from jaula.spec import units

ORDERS = {"c": "cpu", "m": "memory", "t": "tasks", "i": "io", "p": "path"}
QUIT_KEYS = b"qQ\x03\x04"


def run(options: Options) -> int:
    """Draw until q is typed, or for a number of iterations."""
    order = options.text("order", "cpu")
    if order not in ORDERS.values():
        kinds = ", ".join(ORDERS.values())
        raise UsageError(f'"{order}" is not a valid value for --order: {kinds}', status=1)
    client = Client(Settings.host)
    view = CgroupView(client, order)
    remaining = options.number("iterations")
    if options.on("batch") or not redraws(1):
        remaining = remaining or 1
        view.sample()
        for _ in range(remaining):
            sleep(options.number("delay", 1))
            view.sample()
            print(view.text(), flush=True)
        return 0
    return _live(view, options.number("delay", 1), remaining)


def _live(view: CgroupView, delay: int, remaining: int) -> int:
    from posix import isatty

    from jaula.cli.output.user_terminal import RawTerminal

    keys = 0 if isatty(0) else None
    view.sample()
    with RawTerminal(0), Screen() as screen:
        while True:
            if keys is None:
                sleep(delay)
            elif not _wait(view, screen, delay):
                return 0
            view.sample()
            screen.draw(view.text())
            remaining -= 1
            if remaining == 0:
                return 0


def _wait(view: CgroupView, screen: Screen, delay: int) -> bool:
    """Wait ``delay`` seconds and handle keys; False to exit."""
    from posix import read
    from select import POLLIN, poll

    poller = poll()
    poller.register(0, POLLIN)
    end = monotonic() + delay
    while (rest := end - monotonic()) > 0:
        if not poller.poll(rest * 1000):
            continue
        for key in read(0, 64) or QUIT_KEYS[:1]:
            if key in QUIT_KEYS:
                return False
            view.order = ORDERS.get(chr(key).lower(), view.order)
            screen.draw(view.text())
    return True


class CgroupView:
    """The last samples, sorted and formatted."""

    def __init__(self, client: Client, order: str) -> None:
        self.order = order
        self._client = client
        self._sampler = Sampler(client, [])
        self._usages: list[ContainerUsage] = []
        self._paths: dict[str, str] = {}

    def sample(self) -> None:
        """Take one sample of each container."""
        self._usages = self._sampler.take()

    def path(self, usage: ContainerUsage) -> str:
        """Return the cgroup of the container as in its spec, with the container's name."""
        if usage.id not in self._paths:
            try:
                spec = self._client.get(f"/jaula/containers/{usage.id}/spec")
                cgroup_path = ((spec or {}).get("linux") or {}).get("cgroupsPath") or ""
            except EngineError:
                cgroup_path = ""  # removed meanwhile, or an engine without this route
            self._paths[usage.id] = cgroup_path or f"/{usage.id[:12]}"
        head, _, identity = self._paths[usage.id].rpartition("/")
        return f"{head}/{identity[:12]} ({usage.name})"

    def text(self) -> str:
        """Return the table, with a header that lists the keys."""
        keys = {
            "cpu": lambda usage: -usage.cpu,
            "memory": lambda usage: -usage.memory,
            "tasks": lambda usage: -usage.pids,
            "io": lambda usage: -(usage.read_rate + usage.write_rate),
        }
        usages = sorted(self._usages, key=keys.get(self.order, self.path))
        lines = ["CGROUP\tTASKS\t%CPU\tMEMORY\tINPUT/s\tOUTPUT/s"]
        lines += [
            f"{self.path(usage)}\t{usage.pids}\t{usage.cpu:.1f}\t{units.bytes_size(usage.memory)}"
            f"\t{units.human_size(usage.read_rate, 3)}\t{units.human_size(usage.write_rate, 3)}"
            for usage in usages
        ]
        total = sum(usage.cpu for usage in usages), sum(usage.memory for usage in usages)
        head = (
            f"{len(usages)} containers, {total[0]:.1f}% CPU, "
            f"{units.bytes_size(total[1])} memory; by {self.order} (c m t i p), q quits\n\n"
        )
        return head + text_table.aligned(lines)


COMMAND = Command(
    "[OPTIONS]",
    "Display the cgroups of containers by CPU, memory or I/O usage",
    run,
    flags=(
        Flag("batch", "b", "bool", "Print the views one after the other, as plain text"),
        Flag("delay", "d", "seconds", "Seconds between two views", default="1"),
        Flag("iterations", "n", "int", "Exit after this number of views"),
        Flag("order", "", "string", "Initial order", default="cpu",
             completes=tuple(ORDERS.values())),
    ),
    max_args=0,
    description=(
        "A live view of the cgroups of running containers, like systemd-cgtop. Keys: c orders "
        "by CPU, m by memory, t by tasks, i by I/O, p by path, q quits."
    ),
    examples=(("Print three views", "jaula cgtop -b -n 3"),),
    see_also=("stats", "top"),
)  # fmt: skip

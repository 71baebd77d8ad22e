"""Step 6: the five capability sets, by default and with flags."""

from __future__ import annotations

from jaula.features.demo import kernel
from jaula.features.demo.runner import Result, TourRunner

SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
DEFAULT, WITHOUT_RAW, BIND_ONLY = "00000000a80425fb", "00000000a80405fb", "0000000000000400"
NOTHING = "0000000000000000"


def show(tour: TourRunner) -> None:
    """Read masks from /proc and try what they forbid."""
    tour.text("The shell that runs this tour, on the host:")
    tour.show("\n".join(f"{name}: {text}" for name, text in kernel.status("self", *SETS).items()))
    tour.text("A container's root:")
    _expect(tour, _masks(tour), DEFAULT)
    tour.jaula("caps", "a80425fb")
    for words, refusal in (
        (("date", "-s", "2001-01-01 00:00"), "it may not set the host's clock (EPERM)"),
        (
            ("ip", "address", "add", "10.1.2.3/24", "dev", "lo"),
            "it may not add an interface address (EPERM)",
        ),
    ):
        refused = tour.jaula("run", "--rm", tour.image, *words)
        denied = "not permitted" in refused.output + refused.error
        tour.check(denied, refusal)
    ping = ("ping", "-c", "1", "-W", "2", "127.0.0.1")
    tour.check(tour.jaula("run", "--rm", tour.image, *ping).status == 0, "ping works")
    tour.text("Without net_raw:")
    _expect(tour, _masks(tour, "--cap-drop", "net_raw"), WITHOUT_RAW)
    quiet = tour.jaula("run", "--rm", "--cap-drop", "net_raw", tour.image, *ping)
    tour.check(quiet.status != 0, "ping fails")
    tour.text("With net_bind_service and nothing else:")
    _expect(tour, _masks(tour, "--cap-drop", "all", "--cap-add", "net_bind_service"), BIND_ONLY)


def _masks(tour: TourRunner, *words: str) -> Result:
    return tour.jaula("run", "--rm", *words, tour.image, "grep", "Cap", "/proc/self/status")


def _expect(tour: TourRunner, result: Result, mask: str) -> None:
    rows = (line.partition(":") for line in result.output.splitlines())
    masks = {name: text.strip() for name, _, text in rows}
    granted = [masks.get(name) for name in ("CapPrm", "CapEff", "CapBnd")]
    tour.check(granted == [mask] * 3, "permitted, effective and bounding set are {mask}", mask=mask)
    empty = [masks.get(name) for name in ("CapInh", "CapAmb")]
    tour.check(empty == [NOTHING] * 2, "inheritable and ambient set are empty")

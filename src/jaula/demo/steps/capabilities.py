"""Step 6: the five capability sets, by default and as asked."""

from __future__ import annotations

from jaula.demo import kernel
from jaula.demo.runner import Result, TourRunner

SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
DEFAULT, WITHOUT_RAW, BIND_ONLY = "00000000a80425fb", "00000000a80405fb", "0000000000000400"
NOTHING = "0000000000000000"


def show(guide: TourRunner) -> None:
    """Read masks from /proc and try what they forbid."""
    guide.say("The shell that runs this tour, on the host:")
    guide.show("\n".join(f"{name}: {text}" for name, text in kernel.status("self", *SETS).items()))
    guide.say("A container's root:")
    _expect(guide, _masks(guide), DEFAULT)
    guide.jaula("caps", "a80425fb")
    for words, what in (
        (("date", "-s", "2001-01-01 00:00"), "set the host's clock"),
        (("ip", "address", "add", "10.1.2.3/24", "dev", "lo"), "add an interface address"),
    ):
        refused = guide.jaula("run", "--rm", guide.image, *words)
        told = "not permitted" in refused.output + refused.error
        guide.must(told, f"it may not {what} (EPERM)")
    ping = ("ping", "-c", "1", "-W", "2", "127.0.0.1")
    guide.must(guide.jaula("run", "--rm", guide.image, *ping).status == 0, "ping works")
    guide.say("Without net_raw:")
    _expect(guide, _masks(guide, "--cap-drop", "net_raw"), WITHOUT_RAW)
    quiet = guide.jaula("run", "--rm", "--cap-drop", "net_raw", guide.image, *ping)
    guide.must(quiet.status != 0, "ping fails")
    guide.say("With net_bind_service and nothing else:")
    _expect(guide, _masks(guide, "--cap-drop", "all", "--cap-add", "net_bind_service"), BIND_ONLY)


def _masks(guide: TourRunner, *words: str) -> Result:
    return guide.jaula("run", "--rm", *words, guide.image, "grep", "Cap", "/proc/self/status")


def _expect(guide: TourRunner, result: Result, mask: str) -> None:
    rows = (line.partition(":") for line in result.output.splitlines())
    found = {name: text.strip() for name, _, text in rows}
    own = [found.get(name) for name in ("CapPrm", "CapEff", "CapBnd")]
    guide.must(own == [mask] * 3, f"permitted, effective and bounding set are {mask}")
    rest = [found.get(name) for name in ("CapInh", "CapAmb")]
    guide.must(rest == [NOTHING] * 2, "inheritable and ambient set are empty")

"""The v2 ``io`` controller, OCI's ``blockIO``.

Source: OCI config-linux.md "Block IO"; kernel ``admin-guide/cgroup-v2.rst`` "IO". OCI weights are
10 to 1000, as on v1 and in BFQ; ``io.weight`` is 1 to 10000.
"""

from __future__ import annotations

from collections.abc import Iterator

from jaula.cgroups.cgroup_driver import BlkioStats, IoEntry
from jaula.cgroups.cgroup_files import FileWrite, Reader, Step, WriteWarning
from jaula.cgroups.v2 import pressure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jaula.spec.runtime_spec import BlockIO, Resources

_NO_WEIGHT = "this kernel has no block I/O weights, the weight is not in effect"
_NO_LEAF = "leaf weights do not exist in cgroup v2, they are not in effect"


class Io:
    """The v2 ``io`` controller."""

    name = "io"
    section = "block_io"
    limits = ("io.weight", "io.bfq.weight", "io.max")

    def decide(self, resources: Resources, current: Reader) -> tuple[Step, ...]:
        block = resources.block_io
        if block is None:
            return ()
        bfq = current("io.bfq.weight") is not None
        return (*_weights(block, bfq), *_throttles(block))


def weight(blkio: int) -> int:
    """Convert a weight of 10 to 1000 linearly to 1 to 10000."""
    return 1 + (min(max(blkio, 10), 1000) - 10) * 9999 // 990


def _weights(block: BlockIO, bfq: bool) -> Iterator[Step]:
    file = "io.bfq.weight" if bfq else "io.weight"
    if block.weight:
        value = block.weight if bfq else weight(block.weight)
        yield FileWrite(file, str(value), missing=_NO_WEIGHT)
    for device in block.weight_device:
        if device.weight:
            value = device.weight if bfq else weight(device.weight)
            yield FileWrite(file, f"{device.major}:{device.minor} {value}", missing=_NO_WEIGHT)
        elif device.weight == 0:
            yield FileWrite(file, f"{device.major}:{device.minor} default", missing=_NO_WEIGHT)
    if block.leaf_weight or any(device.leaf_weight for device in block.weight_device):
        yield WriteWarning(_NO_LEAF)


def _throttles(block: BlockIO) -> Iterator[Step]:
    for name, devices in (
        ("rbps", block.throttle_read_bps_device),
        ("wbps", block.throttle_write_bps_device),
        ("riops", block.throttle_read_iops_device),
        ("wiops", block.throttle_write_iops_device),
    ):
        for device in devices:
            rate = str(device.rate) if device.rate else "max"
            yield FileWrite("io.max", f"{device.major}:{device.minor} {name}={rate}")


def stats(read: Reader, *, detailed: bool = False) -> BlkioStats:
    """Parse ``io.stat``: ``8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6``."""
    entries: list[IoEntry] = []
    for line in (read("io.stat") or "").splitlines():
        device, *pairs = line.split(" ")
        major, _, minor = device.partition(":")
        if not (major.isdigit() and minor.isdigit()):
            continue
        values = {key: value for key, _, value in (pair.partition("=") for pair in pairs)}
        counts = [values.get(key, "") for key in ("rbytes", "wbytes", "rios", "wios")]
        read_b, write_b, reads, writes = (int(x) if x.isdigit() else 0 for x in counts)
        entries.append(IoEntry(int(major), int(minor), read_b, write_b, reads, writes))
    return BlkioStats(
        devices=tuple(entries), pressure=pressure.stats(read, "io") if detailed else None
    )

"""The v1 ``blkio`` controller: weights, throttling, bytes by device.

Source: OCI config-linux.md "Block IO"; kernel ``admin-guide/cgroup-v1/blkio-controller.rst``.
Weights need the BFQ scheduler (``blkio.bfq.weight``), or CFQ on old kernels (``blkio.weight``).
"""

from __future__ import annotations

from collections.abc import Iterator

from jaula.cgroups.cgroup_driver import BlkioStats, IoCount, IoEntry
from jaula.cgroups.cgroup_files import FileWrite, Reader, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jaula.spec.runtime_spec import BlockIO, Resources

_NO_WEIGHT = "this kernel has no block I/O weights, the weight is not in effect"


class Blkio:
    """The v1 ``blkio`` controller."""

    name = "blkio"
    section = "block_io"
    limits = (
        "blkio.weight",
        "blkio.bfq.weight",
        "blkio.throttle.read_bps_device",
        "blkio.throttle.write_bps_device",
        "blkio.throttle.read_iops_device",
        "blkio.throttle.write_iops_device",
    )

    def decide(self, resources: Resources, current: Reader) -> tuple[Step, ...]:
        block = resources.block_io
        if block is None:
            return ()
        return tuple(_weights(block, current)) + tuple(_throttles(block))


def _weights(block: BlockIO, current: Reader) -> Iterator[Step]:
    prefix = "blkio" if current("blkio.weight") is not None else "blkio.bfq"
    if block.weight:
        yield FileWrite(f"{prefix}.weight", str(block.weight), missing=_NO_WEIGHT)
    if block.leaf_weight:
        yield FileWrite("blkio.leaf_weight", str(block.leaf_weight), missing=_NO_WEIGHT)
    for device in block.weight_device:
        key = f"{device.major}:{device.minor}"
        if device.weight is not None:  # 0 removes that of the device
            yield FileWrite(f"{prefix}.weight_device", f"{key} {device.weight}", missing=_NO_WEIGHT)
        if device.leaf_weight:
            leaf = f"{key} {device.leaf_weight}"
            yield FileWrite("blkio.leaf_weight_device", leaf, missing=_NO_WEIGHT)


def _throttles(block: BlockIO) -> Iterator[Step]:
    for name, devices in (
        ("read_bps", block.throttle_read_bps_device),
        ("write_bps", block.throttle_write_bps_device),
        ("read_iops", block.throttle_read_iops_device),
        ("write_iops", block.throttle_write_iops_device),
    ):
        for device in devices:
            value = f"{device.major}:{device.minor} {device.rate}"
            yield FileWrite(f"blkio.throttle.{name}_device", value)


LISTS = (
    "io_service_bytes",
    "io_serviced",
    "io_queued",
    "io_service_time",
    "io_wait_time",
    "io_merged",
    "time",
    "sectors",
)
"""Recursive counters, ``blkio.*_recursive``; each I/O scheduler has its own."""


def stats(read: Reader, *, detailed: bool = False) -> BlkioStats:
    """Return statistics from throttling's counters, which include every request.

    BFQ's counters include only requests to its own devices.
    """
    byte_counts = _by_device(read("blkio.throttle.io_service_bytes_recursive"))
    operation_counts = _by_device(read("blkio.throttle.io_serviced_recursive"))
    return BlkioStats(
        devices=tuple(
            IoEntry(
                major=major,
                minor=minor,
                read_bytes=byte_counts.get((major, minor, "Read"), 0),
                write_bytes=byte_counts.get((major, minor, "Write"), 0),
                read_operations=operation_counts.get((major, minor, "Read"), 0),
                write_operations=operation_counts.get((major, minor, "Write"), 0),
            )
            for major, minor in dict.fromkeys(
                (key[0], key[1]) for key in (*byte_counts, *operation_counts)
            )
        ),
        lists={name: _counts(read, name) for name in LISTS} if detailed else {},
    )


def _counts(read: Reader, name: str) -> tuple[IoCount, ...]:
    """Return a list of the first policy with counters: BFQ, CFQ of old kernels, throttling."""
    for prefix in ("blkio.bfq", "blkio", "blkio.throttle"):
        counts: list[IoCount] = []
        for line in (read(f"{prefix}.{name}_recursive") or "").splitlines():
            fields = line.split()  # "8:0 Read 4096", or "8:0 4096"
            major, _, minor = fields[0].partition(":") if fields else ("", "", "")
            if major.isdigit() and minor.isdigit() and fields[-1].isdigit():
                operation = fields[1] if len(fields) == 3 else ""
                counts.append(IoCount(int(major), int(minor), operation, int(fields[-1])))
        if counts:
            return tuple(counts)
    return ()


def _by_device(text: str | None) -> dict[tuple[int, int, str], int]:
    """Parse lines of ``8:0 Read 4096``; the line ``Total 4096`` has no device and is skipped."""
    values: dict[tuple[int, int, str], int] = {}
    for line in (text or "").splitlines():
        fields = line.split()
        if len(fields) != 3 or not fields[2].isdigit():
            continue
        major, _, minor = fields[0].partition(":")
        if major.isdigit() and minor.isdigit():
            values[int(major), int(minor), fields[1]] = int(fields[2])
    return values

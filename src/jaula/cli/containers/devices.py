"""Limits of single devices in ``run`` and ``create``, and flags that no engine can follow."""

from __future__ import annotations

from jaula.cli.errors import UsageError
from jaula.cli.images import content_trust

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from jaula.cli.command import Options

_OF_DEVICES = (
    ("blkio-weight-device", "BlkioWeightDevice", "Weight"),
    ("device-read-bps", "BlkioDeviceReadBps", "Rate"),
    ("device-read-iops", "BlkioDeviceReadIOps", "Rate"),
    ("device-write-bps", "BlkioDeviceWriteBps", "Rate"),
    ("device-write-iops", "BlkioDeviceWriteIOps", "Rate"),
)


def add(options: Options, host: dict[str, Any]) -> None:
    """Limits of single devices, and what is refused here with a reason."""
    for flag, name, member in _OF_DEVICES:
        if options.given(flag):
            words = options.texts(flag)
            host[name] = [_device_limit(word, flag, member) for word in words]
    if options.given("gpus"):
        host["DeviceRequests"] = [{"Count": -1, "Capabilities": [["gpu"]]}]
    content_trust.check(options)
    if options.given("link-local-ip"):
        raise UsageError("link-local addresses are not given to containers; use --ip or --ip6")


def _device_limit(word: str, flag: str, member: str) -> dict[str, Any]:
    from jaula.spec import units

    path, colon, value = word.rpartition(":")
    try:
        if not colon or not path.startswith("/dev/"):
            raise ValueError("/dev/NAME:number is wanted")
        number = units.size(value) if flag.endswith("-bps") else units.integer(value)
        if number < 0:
            raise ValueError("it may not be negative")
    except ValueError as error:
        raise UsageError(f'invalid argument "{word}" for "--{flag}" flag: {error}') from None
    return {"Path": path, member: number}

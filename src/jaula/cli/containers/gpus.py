"""``--gpus all``, ``--gpus 2``, ``--gpus device=0``: a request for GPUs as comma-separated fields.

Source: docker/cli ``opts/gpus.go``.
"""

from __future__ import annotations

from jaula.cli.cli_errors import UsageError
from jaula.cli.containers import mount_option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_GPU = "gpu"


def request(word: str) -> dict[str, Any]:
    """Return the API's DeviceRequest for one ``--gpus``.

    :raises UsageError: when it is invalid.
    """
    document: dict[str, Any] = {"Driver": "", "Capabilities": [[_GPU]], "Options": {}}
    seen: set[str] = set()
    for field in mount_option.fields(word, "--gpus"):
        key, equals, value = field.partition("=")
        if not equals:
            key, value = "count", field
        if key in seen:
            raise _bad(word, f"gpu request key '{key}' can be specified only once")
        seen.add(key)
        if key == "count":
            document["Count"] = _count(word, value)
        elif key == "driver":
            document["Driver"] = value
        elif key == "device":
            document["DeviceIDs"] = value.split(",")
        elif key == "capabilities":
            document["Capabilities"] = [list(dict.fromkeys((*value.split(","), _GPU)))]
        elif key == "options":
            pairs = (pair.partition("=") for pair in value.split(","))
            document["Options"] = {name: text for name, _, text in pairs}
        else:
            raise _bad(word, f"unexpected key '{key}' in '{field}'")
    if "count" not in seen and "device" not in seen:
        document["Count"] = 1
    return document


def _count(word: str, value: str) -> int:
    if value == "all":
        return -1
    try:
        return int(value)
    except ValueError:
        raise _bad(
            word, f'invalid count ({value}): value must be either "all" or an integer'
        ) from None


def _bad(word: str, reason: str) -> UsageError:
    return UsageError(f'invalid argument "{word}" for "--gpus" flag: {reason}')
